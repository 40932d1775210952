"""PyTorch through torch.compile, one compilation a case and within a time limit.

It needs a C++ compiler on the CPU. The forward (and with it the backward) of an op or of a network
with its loss is compiled; optimizers take torch's fused form, except where the update is the case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..solver import Build
from .torch_eager import torch_solvers


def start() -> None:
    """Make the solvers; torch is imported now."""
    SOLVERS.update(torch_solvers(_compiled))


def _compiled(function: Callable) -> Callable:
    import torch

    # Without this, the shapes of one case would make the next one compile for all shapes at once.
    torch.compiler.reset()
    compiled: Any = torch.compile(function, dynamic=False)
    return compiled


SOLVERS: dict[str, Build] = {}
