"""The kernels' four element types as NumPy arrays; bfloat16 as its bits in uint16."""

from __future__ import annotations

import numpy as np

SUFFIXES = ("f32", "f64", "f16", "bf16")
STORAGE = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": np.uint16}
WIDE = {"f32": np.float32, "f64": np.float64, "f16": np.float32, "bf16": np.float32}
EPS = {"f32": 2.0**-23, "f64": 2.0**-52, "f16": 2.0**-10, "bf16": 2.0**-7}
"""The distance from 1 to the next number."""


def encode(values: np.ndarray, suffix: str) -> np.ndarray:
    """Numbers as an array of the element type, rounded to nearest even."""
    if suffix != "bf16":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, STORAGE[suffix])
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FFF, rounded).astype(np.uint16)


def decode(array: np.ndarray, suffix: str) -> np.ndarray:
    """The numbers that an array of the element type holds, in float64."""
    if suffix == "bf16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def poisoned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An output array full of NaN bits: what a kernel does not write is seen."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = 0xFF
    return array
