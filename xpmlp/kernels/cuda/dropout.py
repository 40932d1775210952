"""Launches ``dropout.cu``, and the arguments by which any kernel draws a dropout mask."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import geometry, launch

_BITS = 24
_WORD = 0xFFFFFFFF
NO_DROPOUT = (None, None, None, np.uint32(0), None, 0)


def dropout(x: Any, rates: tuple[float, ...], rng: Any, step: Any) -> Any:
    """The kernel, with the signature and the results of the op's reference."""
    suffix = launch.suffix_of(x)
    x = launch.contiguous(x)
    y = launch.empty(tuple(x.shape), x.dtype)
    members = len(rng.seeds)
    size = x.size // members
    plan = geometry.elementwise("dropout", size, members, suffix, launch.device())
    mask = arguments(rates, rng, step, members, suffix)
    launch.run("dropout", suffix, plan, x, y, size, np.int32(members), *mask)
    return y


def arguments(
    rates: tuple[float, ...], rng: Any, step: Any, members: int, suffix: str
) -> tuple[Any, ...]:
    """What the kernels call DROPOUT: keys, thresholds, scales, stream, step, offset.

    ``step`` is a number, or has ``counter``, an int64 array of one element on the device, and an
    ``offset`` to it: then a recorded step draws another mask at every replay.
    """
    keys, thresholds, scales = _tables(rates, rng.seeds, members, suffix, launch.device_number())
    counter = getattr(step, "counter", None)
    offset = step.offset if counter is not None else int(step)
    return keys, thresholds, scales, np.uint32(rng.stream), counter, offset


@cache
def _tables(
    rates: tuple[float, ...], seeds: tuple[int, ...], members: int, suffix: str, device: int
) -> tuple[Any, Any, Any]:
    """One row a member, made once: tables must not travel while a step is recorded."""
    keys = np.array([(seed & _WORD, seed >> 32) for seed in seeds], np.uint32)
    of_members = np.array(rates * (members // len(rates)))
    thresholds = np.rint(of_members * (1 << _BITS)).astype(np.uint32)
    scales = (1.0 / (1.0 - of_members)).astype(_STORED[suffix])
    return launch.constant(keys), launch.constant(thresholds), _scales(scales, suffix)


_STORED = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": np.float32}


def _scales(scales: np.ndarray, suffix: str) -> Any:
    """In the elements' type; NumPy has no bfloat16, whose bits are a float32's upper half."""
    if suffix != "bf16":
        return launch.constant(scales)
    bits = scales.view(np.uint32)
    nearest = bits + 0x7FFF + ((bits >> 16) & 1)
    return launch.constant((nearest >> 16).astype(np.uint16))
