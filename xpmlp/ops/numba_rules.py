"""When the numba kernels refuse, by op: metadata in, a reason or None out.

Nothing here imports numba; that it is installed is looked up once.
"""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from typing import Any

import numpy as np

MISSING = (
    'numba is not installed: pip install "xpmlp[fast]"; without it a training step of a small '
    "network takes about 1.4 times as long"
)
_FLOATS = ("float32", "float64")


@cache
def installed() -> bool:
    """Whether numba can be imported."""
    return importlib.util.find_spec("numba") is not None


def softmax_cross_entropy(
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    label_smoothing: Any = 0.0,
    ignore_index: int | None = None,
    class_weights: np.ndarray | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> str | None:
    """Any shape, float32 or float64."""
    if not installed():
        return MISSING
    if logits.dtype.name not in _FLOATS:
        return f"logits are {logits.dtype}, not float32 or float64"
    for name, array in (("targets", targets), ("class_weights", class_weights)):
        if array is not None and array.dtype.kind == "f" and array.dtype != logits.dtype:
            return f"{name} are {array.dtype}, logits {logits.dtype}"
    return None


def same_float_arrays(*arrays: np.ndarray, **hyperparameters: Any) -> str | None:
    """Arrays of one shape and of one dtype, float32 or float64; numbers, or one for each member."""
    if not installed():
        return MISSING
    first = arrays[0]
    for array in arrays:
        if type(array) is not np.ndarray or array.dtype != first.dtype:
            return "the arrays differ in dtype"
        if array.shape != first.shape:
            return "the arrays differ in shape"
    if first.dtype.name not in _FLOATS:
        return f"the arrays are {first.dtype}, not float32 or float64"
    for name, value in hyperparameters.items():
        shape = getattr(value, "shape", ())
        if shape not in ((), (first.shape[0],) + (1,) * (first.ndim - 1)):
            return f"{name} has shape {shape}, not one number for each member"
    return None


def dropout(x: np.ndarray, **options: Any) -> str | None:
    """Any shape, float32 or float64."""
    return same_float_arrays(x)


_NATIVE_FLOATS = (np.dtype("float32"), np.dtype("float64"))
_WORTH_CALLING = 70  # products, where one more counts for every 4000 multiply-adds


def matmul(a: np.ndarray, b: np.ndarray) -> str | None:
    """Matrix by matrix, any strides; not where the call would take longer than NumPy's product."""
    if not installed():
        return MISSING
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return f"operands are {type(a).__name__} and {type(b).__name__}, not plain arrays"
    if a.dtype != b.dtype or a.dtype not in _NATIVE_FLOATS:
        return f"operands are {a.dtype} and {b.dtype}, not both float32 or both float64"
    if not (a.flags.aligned and b.flags.aligned):
        return "elements are not aligned in memory"
    rows, depth, columns, count = a.shape[-2], a.shape[-1], b.shape[-1], 1
    if b.ndim == 2:
        rows = math.prod(a.shape[:-1])
    elif a.ndim == b.ndim == 3:
        count = max(a.shape[0], b.shape[0])
    else:
        count = math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    if rows == 1 or columns == 1:
        return "a matrix by a vector: NumPy's product is as fast"
    if count + count * rows * depth * columns / 4000 < _WORTH_CALLING:
        return "so small that NumPy's product is done before a kernel is called"
    return None
