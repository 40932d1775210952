"""When the numba kernels refuse, by op: metadata in, a reason or None out.

Nothing here imports numba; that it is installed is looked up once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import re
from functools import cache
from typing import Any

import numpy as np

COST = "a training step of a small network takes 3 to 20 times as long"
MISSING = (
    "numba is not installed, is older than 0.62, or is not made for this NumPy: "
    f'pip install "xpmlp[fast]"; without it {COST}'
)
_LEAST = (0, 62)  # the first whose LLVM knows the kernels' untyped pointers
_FLOATS = ("float32", "float64")
_NATIVE_FLOATS = (np.dtype("float32"), np.dtype("float64"))


@cache
def installed() -> bool:
    """Whether a numba that the kernels can use may be imported."""
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        version, needs = importlib.metadata.version("numba"), importlib.metadata.requires("numba")
    except importlib.metadata.PackageNotFoundError:  # importable all the same: take it
        return True
    return _numbers(version) >= _LEAST and not _refuses(needs or [], np.__version__)


def _refuses(requirements: list[str], version: str) -> bool:
    """Whether numba is not made for this NumPy, and would raise when it is imported."""
    numpy = next((text for text in requirements if re.match(r"numpy\b", text)), "")
    limit = re.search(r"<(=?)\s*([\d.]+)", numpy)
    if limit is None:
        return False
    own, most = _numbers(version), _numbers(limit[2])
    return own > most if limit[1] else own >= most


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


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
    if logits.dtype not in _NATIVE_FLOATS:
        return f"logits are {logits.dtype}, not float32 or float64"
    for name, array in (("targets", targets), ("class_weights", class_weights)):
        if array is not None and not array.dtype.isnative:
            return f"{name} have another byte order than this machine"
        if array is not None and array.dtype.kind == "f" and array.dtype != logits.dtype:
            return f"{name} are {array.dtype}, logits {logits.dtype}"
    return None


def same_float_arrays(
    *arrays: np.ndarray, in_place: bool = False, **hyperparameters: Any
) -> str | None:
    """Arrays of one shape and of one dtype, float32 or float64; numbers, or one for each member.

    In place, all but the gradient, the second one, lie in order.
    """
    if not installed():
        return MISSING
    dtype, shape, plain = arrays[0].dtype, arrays[0].shape, np.ndarray
    for array in arrays:
        if type(array) is not plain or (array.dtype is not dtype and array.dtype != dtype):
            return "the arrays differ in dtype"
        if array.shape != shape:
            return "the arrays differ in shape"
    if dtype not in _NATIVE_FLOATS:
        return f"the arrays are {dtype}, not float32 or float64"
    for name, value in hyperparameters.items():
        if type(value) is float:
            continue
        own = getattr(value, "shape", ())
        if own not in ((), shape[:1] + (1,) * (len(shape) - 1)):
            return f"{name} has shape {own}, not one number for each member"
    if in_place and not all([array.flags.carray for array in arrays[:1] + arrays[2:]]):
        return "elements that are written to do not lie in order"
    return None


def dropout(x: np.ndarray, **options: Any) -> str | None:
    """Any shape, float32 or float64."""
    return same_float_arrays(x)


def gather_rows(
    x: np.ndarray,
    index: np.ndarray,
    mean: Any = None,
    std: Any = None,
    *,
    dtype: str,
    out: np.ndarray | None = None,
) -> str | None:
    """Rows that lie one after the other, of numbers up to 64 bits, to float32 or float64."""
    if not installed():
        return MISSING
    if dtype not in _FLOATS:
        return f"the result is {dtype}, not float32 or float64"
    if x.dtype.kind not in "iuf" or x.dtype.itemsize > 8 or x.dtype == np.float16:
        return f"x is {x.dtype}, which numba does not convert"
    if not (x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative):
        return "x is not laid out row after row"
    if type(index) is not np.ndarray or index.dtype.kind not in "iu" or not index.dtype.isnative:
        return "the row numbers are no array of integers"
    for name, value in (("mean", mean), ("std", std)):
        shape = getattr(value, "shape", ())
        if shape != () and (shape != x.shape[1:] or value.dtype != dtype):
            return f"{name} is {value.dtype} of shape {shape}, not {dtype} of {x.shape[1:]}"
    if getattr(mean, "shape", ()) != getattr(std, "shape", ()):
        return "mean and std differ in shape"
    wanted = (*index.shape, *x.shape[1:])
    if out is not None and not (
        out.shape == wanted and out.dtype == dtype and out.flags.c_contiguous
    ):
        return f"out is {out.dtype} of shape {out.shape}, not C-contiguous {dtype} of {wanted}"
    return None


def normalization(x: np.ndarray, gamma: np.ndarray, *others: np.ndarray) -> str | None:
    """x (…, N, D) with features (D,), or (P, N, D) with (P, D), of one dtype."""
    if not installed():
        return MISSING
    shape, features, dtype = x.shape, gamma.shape, x.dtype
    for array in (x, gamma, *others):
        if type(array) is not np.ndarray or array.dtype != dtype:
            return "the arrays differ in dtype"
    if dtype not in _NATIVE_FLOATS:
        return f"the arrays are {dtype}, not float32 or float64"
    for array in others:
        if array.shape != features:
            return f"features have shapes {features} and {array.shape}"
    if x.size == 0 or len(shape) < 2:
        return f"x has shape {shape}"
    if features != shape[-1:] and (len(features) < 2 or features != shape[:-2] + shape[-1:]):
        return f"x has shape {shape}, features {features}"
    return None


def batch_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, *statistics: np.ndarray
) -> str | None:
    """As :func:`normalization`, and dy like x."""
    if dy.shape != x.shape or dy.dtype != x.dtype:
        return "dy and x differ in shape or dtype"
    return normalization(x, gamma, *statistics)


def layer_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, *statistics: np.ndarray
) -> str | None:
    """As :func:`batch_norm_backward`, but with statistics (…, N, 1)."""
    for array in statistics:
        if array.shape != (*x.shape[:-1], 1) or array.dtype != x.dtype:
            return "the statistics are not one number of x's dtype for each row"
    return batch_norm_backward(dy, x, gamma)


_WORTH_CALLING = 70  # products, where one more counts for every 4000 multiply-adds
_WORTH_ALONE = 1_000_000  # multiply-adds of one product, beside OpenBLAS with AVX-512
_NARROW = 4  # columns, with which most lanes of a vector would be empty


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
    work = rows * depth * columns
    if count == 1 and columns <= _NARROW:
        return "a matrix by a few vectors: NumPy's product is the faster one"
    if (count == 1 and work < _WORTH_ALONE) or count + count * work / 4000 < _WORTH_CALLING:
        return "so small that NumPy's product is done before a kernel is called"
    return None


_VECTOR_WORK = 80_000  # multiply-adds by a vector, with which NumPy's product is the faster one


def linear(
    x: np.ndarray, W: np.ndarray, b: np.ndarray | None = None, *, activation: str | None = None
) -> str | None:
    """One batch, or one a member, any strides; not large matrices by vectors."""
    return _fully_connected(x, W, b)


def piecewise_linear(
    x: np.ndarray, W: np.ndarray, b: np.ndarray | None = None, *, columns: Any
) -> str | None:
    """One batch, or one a member."""
    if W.ndim == 3 and x.ndim == 3 and x.shape[0] != W.shape[0]:
        return "there is not one batch for each member"
    return _fully_connected(x, W, b)


def linear_backward(
    dy: np.ndarray,
    x: np.ndarray,
    W: np.ndarray,
    y: np.ndarray | None = None,
    *,
    activation: str | None = None,
    input_grad: bool = True,
) -> str | None:
    """As :func:`linear`."""
    return _fully_connected(x, W, dy, y)


def _fully_connected(x: np.ndarray, W: np.ndarray, *others: np.ndarray | None) -> str | None:
    if not installed():
        return MISSING
    dtype = x.dtype
    for array in (x, W, *others):
        if array is None:
            continue
        if type(array) is not np.ndarray:
            return f"an operand is a {type(array).__name__}, not a plain array"
        if array.dtype != dtype or dtype not in _NATIVE_FLOATS:
            return f"operands are {dtype} and {array.dtype}, not all float32 or all float64"
        if not array.flags.aligned:
            return "elements are not aligned in memory"
        if array.size == 0:
            return "an operand is empty"
    if x.ndim == 1 or W.ndim > 3 or (W.ndim == 3 and x.ndim > 3):
        return f"x has shape {x.shape} for weights {W.shape}"
    members = W.shape[0] if W.ndim == 3 else 1
    rows, columns = x.shape[-2] if W.ndim == 3 else math.prod(x.shape[:-1]), W.shape[-1]
    if min(rows, columns) == 1 and members * rows * columns * x.shape[-1] > _VECTOR_WORK:
        return "a large matrix by a vector: NumPy's product is as fast"
    return None
