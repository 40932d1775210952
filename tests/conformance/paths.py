"""The ways by which the same computation can run, and arrays for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import xpmlp
from xpmlp import ops
from xpmlp.backend import backend_problems

PATHS = ("numpy, kernels", "numpy, reference", "torch", "jax")


@contextmanager
def on(path: str) -> Iterator[None]:
    """The backend, and the kernels on or off, of one of the paths."""
    name, _, how = path.partition(", ")
    if backend_problems()[name] is not None:
        pytest.skip(f"{name} is not installed")
    with xpmlp.use_backend(name):
        if how == "reference":
            with ops.without_kernels():
                yield
        else:
            yield
