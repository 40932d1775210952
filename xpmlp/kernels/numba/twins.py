"""One source, compiled twice: serial, and with its ``prange`` loops in parallel."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from .sources import compiled


def twins(body: Callable, **options: Any) -> tuple[Callable, Callable]:
    """The serial and the parallel version of a function that uses ``prange``.

    Numba files its cached code under the function's name and signature, not its options: under one
    name the second twin would be handed the first one's code. So the parallel one has its own.
    """
    name = body.__name__ + "_parallel"
    other = FunctionType(body.__code__.replace(co_name=name), body.__globals__, name)
    other.__module__, other.__qualname__ = body.__module__, name
    return compiled(body, nogil=True, **options), compiled(
        other, nogil=True, parallel=True, **options
    )
