"""Rows of a table by their numbers, and the table's gradient: sums over equal numbers."""

from __future__ import annotations

import math

import array_api_compat
import numpy as np

from ..backend import Array, Namespace, array_namespace, dtype_name, on_host, to_numpy
from ..errors import DataError, DTypeError, ShapeError
from .matmul import matmul
from .shapes import check_floating, check_same_shape, working_dtype

EXACT = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24, "float64": 2**53}
"""Up to where a float type has every whole number."""
_FEW = 2**21  # elements up to which a matrix of zeros and ones is cheap


def embedding(codes: Array, W: Array) -> Array:
    """``y[…] = W[codes[…]]``.

    Parameters
    ----------
    codes : array of integers, or of floats that are whole, shape (…)
        Row numbers in 0…V−1. With population tables, either (…, P, N, K), each member its own, or
        (N, K) or (N,), shared by all.
    W : array of floats, shape (V, D) or (P, V, D)

    Returns
    -------
    array of W's dtype, shape (…, D), or (P, …, D) where members share the numbers
        On a device, where looking would wait, the row of a number that there is not is NaN.

    Raises
    ------
    DataError
        In host memory, for what is no row number.
    DTypeError
        If codes are of a float type that does not have all numbers up to V.
    """
    xp = array_namespace(codes, W)
    places, known = _places(xp, "embedding", codes, W)
    rows = xp.reshape(W, (-1, W.shape[-1]))
    y = xp.take(rows, xp.reshape(places, (-1,)), axis=0)
    y = xp.reshape(y, (*places.shape, W.shape[-1]))
    if known is None:
        return y
    return xp.where(xp.expand_dims(known, axis=-1), y, xp.full_like(y, math.nan))


def embedding_backward(dy: Array, codes: Array, W: Array, padding: int | None = None) -> Array:
    """``dW[v] = Σ dy[…]`` over all places with ``codes[…] = v``; 0 for the row ``padding``.

    Parameters
    ----------
    dy : array, shape of embedding's result
    codes, W
        As in :func:`embedding`.
    padding : int, optional

    Returns
    -------
    array, shape of W

    Notes
    -----
    The sums are the same in every run: nothing is added in the order in which threads happen to
    come. Few numbers of a small table are a product with a matrix of zeros and ones, as if the
    codes were one-hot; more are sorted, and equal neighbours added in ⌈log₂⌉ passes, in the k-th
    those that are 2ᵏ apart (Hillis and Steele 1986).
    """
    xp = array_namespace(dy, codes, W)
    places, _ = _places(xp, "embedding_backward", codes, W)
    check_floating("embedding_backward", "dy", dy)
    check_same_shape("embedding_backward", "dy", dy, (*places.shape, W.shape[-1]))
    V, D = W.shape[-2:]
    members = W.shape[0] if W.ndim == 3 else 1
    if W.ndim == 3 and places.ndim > 3:  # further axes are only more rows of each member
        places, dy = xp.moveaxis(places, -3, 0), xp.moveaxis(dy, -4, 0)
    dtype = working_dtype(xp, dy)
    slopes = xp.reshape(xp.astype(dy, dtype, copy=False), (members, -1, D))
    places = xp.reshape(places, (members, -1))
    if members * places.shape[1] * V <= _FEW:
        own = _range(xp, places, members * V)
        hot = xp.expand_dims(places, axis=-2) == xp.reshape(own, (members, V, 1))
        dW = matmul(xp.astype(hot, dtype), slopes)
    else:
        flat = xp.reshape(places, (-1,))
        dW = _sums_of_equals(xp, flat, xp.reshape(slopes, (-1, D)), members * V)
    dW = xp.astype(xp.reshape(dW, W.shape), W.dtype, copy=False)
    if padding is None:
        return dW
    kept = xp.reshape(_range(xp, places, V) != padding, (V, 1))
    return xp.where(kept, dW, xp.zeros_like(dW))


def _sums_of_equals(xp: Namespace, keys: Array, rows: Array, count: int) -> Array:
    """For each of the keys 0 … count−1 the sum of the rows that have it."""
    order = xp.argsort(keys, stable=True)
    keys, sums = xp.take(keys, order, axis=0), xp.take(rows, order, axis=0)
    reach, size = 1, keys.shape[0]
    while reach < size:
        same = xp.expand_dims(keys[reach:] == keys[:-reach], axis=-1)
        earlier = xp.where(same, sums[:-reach, :], xp.zeros_like(sums[:-reach, :]))
        sums = xp.concat([sums[:reach, :], sums[reach:, :] + earlier], axis=0)
        reach *= 2
    wanted = _range(xp, keys, count)
    last = xp.searchsorted(keys, wanted, side="right") - 1  # where the sum of a key is whole
    last = xp.where(last < 0, xp.zeros_like(last), last)
    there = xp.take(keys, last, axis=0) == wanted
    sums = xp.take(sums, last, axis=0)
    return xp.where(xp.expand_dims(there, axis=-1), sums, xp.zeros_like(sums))


def _places(xp: Namespace, where: str, codes: Array, W: Array) -> tuple[Array, Array | None]:
    """The rows in W, its members one after another, and which codes are good, if not all are."""
    check_floating(where, "W", W)
    if W.ndim not in (2, 3) or 0 in W.shape:
        raise ShapeError(
            f"`{where}`: expected W of shape (V, D) or (P, V, D), got {tuple(W.shape)}"
        )
    own, V = W.ndim == 3 and codes.ndim > 2, W.shape[-2]
    if own and codes.shape[-3] != W.shape[0]:
        raise ShapeError(
            f"`{where}`: expected codes of shape (N, K), (N,) or ({W.shape[0]}, N, K) for a "
            f"population of {W.shape[0]}, got {tuple(codes.shape)}"
        )
    known = look_at_codes(where, codes, V)
    if known is not None:
        codes = xp.where(known, codes, xp.zeros_like(codes))
    # 32 bits wherever they are enough: JAX has no others unless told so.
    index = xp.int32 if math.prod(W.shape[:-1]) < 2**31 else xp.int64
    places = xp.astype(codes, index, copy=False)
    if W.ndim == 2:
        return places, known
    first = V * _range(xp, places, W.shape[0])
    if own:
        return places + xp.reshape(first, (-1, 1, 1)), known
    places = places + xp.reshape(first, (-1, *[1] * codes.ndim))
    return places, None if known is None else xp.broadcast_to(known, places.shape)


def look_at_codes(where: str, codes: Array, count: int) -> Array | None:
    """Raise DataError for what is no whole number in 0…count−1; on a device, say which are."""
    name, xp = dtype_name(codes.dtype), array_namespace(codes)
    whole = "float" not in name
    if EXACT.get(name, count) < count:
        raise DTypeError(
            f"`{where}`: expected codes that tell {count} rows apart, got {name}, which has not "
            f"every whole number above {EXACT[name]}; give them as integers"
        )
    if not on_host(codes):
        known = (codes >= 0) & (codes < count)
        return known if whole else known & (xp.floor(codes) == codes)
    numbers = to_numpy(codes)
    with np.errstate(invalid="ignore"):
        good = (numbers >= 0) & (numbers < count)
        good = good if whole else good & (np.floor(numbers) == numbers)
    if not good.all():
        place = tuple(int(i) for i in np.argwhere(~good)[0])
        raise DataError(
            f"`{where}`: expected whole numbers in 0…{count - 1}, got {numbers[place]} at "
            f"{place if len(place) != 1 else place[0]} ({int((~good).sum())} such in all); check "
            "how the codes were made, or raise the number of rows"
        )
    return None


def _range(xp: Namespace, like: Array, count: int) -> Array:
    """0 … count−1, like an array of row numbers."""
    return xp.arange(count, dtype=like.dtype, device=array_api_compat.device(like))
