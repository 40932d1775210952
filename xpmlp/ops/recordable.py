"""Array functions in forms that a recording on a GPU takes, where the standard's do not.

Under CuPy, array-api-compat's ``clip`` and ``sign`` pick elements by a mask, which waits for the
device, and ``concat`` sends the addresses of more than eight arrays from the host. Neither may
happen while a step is recorded, and both cost time in any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import Array, Namespace, array_namespace

_AT_ONCE = 8


def clip(x: Array, low: float, high: float) -> Array:
    """x within [low, high]; NaN stays."""
    xp = array_namespace(x)
    return xp.minimum(xp.maximum(x, xp.full_like(x, low)), xp.full_like(x, high))


def sign(x: Array) -> Array:
    """-1, 0 or 1 in x's dtype; NaN stays."""
    xp = array_namespace(x)
    found = xp.astype(x > 0, x.dtype) - xp.astype(x < 0, x.dtype)
    return xp.where(xp.isnan(x), x, found)


def concat(xp: Namespace, arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays along an axis that they have."""
    while len(arrays) > _AT_ONCE:
        starts = range(0, len(arrays), _AT_ONCE)
        arrays = [xp.concat(arrays[at : at + _AT_ONCE], axis=axis) for at in starts]
    return xp.concat(arrays, axis=axis)


def stack(xp: Namespace, arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays of one shape along a new axis."""
    return concat(xp, [xp.expand_dims(array, axis=axis) for array in arrays], axis)
