"""Piecewise-linear maps of NumPy arrays, whose codes are never written.

A number between the edges k and k + 1 of its column has the codes 1 … 1, f, 0 … 0, whose product
with W is ``Σ_{j<k} W_j + f W_k``: of the running sums ``T_j = W_0 + … + W_j`` that is
``(1 − f) T_{k−1} + f T_k``, two rows. A number itself is one row by x, a level is one row. So the
map is a sum of few weighted rows of T, and its gradient the same weights, by which rows of dy are
added to rows of dT; from these, dW are running sums from the end. Both are made in place.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit

from .launching import launch
from .records import FEATURES, Of, by_columns, by_rows, record
from .records import ROWS as EACH
from .simd import address
from .weighted_rows import add_to_row, sum_of_rows

_PARALLEL_WORK = 300_000  # in multiply-adds, as for products

_X = Of("rows", "width", apart="apart")  # 0 apart where members share the batch
_TABLE = Of("width", 3, dtype="int64", shared=True)
_SIZES = {"width": int, "depth": int, "table": _TABLE}
_CODED = {"x": _X, "apart": int, **_SIZES}
RunningSums = record(
    "RunningSums", **_SIZES, W=Of("depth", "stride"), stride=int, T=Of("depth", "columns")
)
CodedRows = record(
    "CodedRows", **_CODED, T=Of("depth", "columns"), b=FEATURES, y=EACH, rectified=int
)
CodedGradient = record("CodedGradient", **_CODED, dy=EACH, dW=Of("depth", "stride"), stride=int)


def piecewise_linear(x, W, b, *, columns):
    """The kernel, with the signature and the results of the op's reference."""
    dtype, (depth, wide) = x.dtype, W.shape[-2:]
    members = W.shape[0] if W.ndim == 3 else 1
    lead = x.shape[:-1] if W.ndim == 2 or x.ndim == 3 else (members, *x.shape[:-1])
    y, T = np.empty((*lead, wide), dtype), np.empty(W.size, dtype)
    b = np.zeros((members, wide), dtype) if b is None else b
    rows, width = y.size // (members * wide), len(columns)
    apart = rows * width if x.ndim == 3 else 0
    of_columns = width, depth, table(columns)
    sums = RunningSums.plain(members, rows, wide, *of_columns, W, wide, T)
    made = CodedRows.plain(members, rows, wide, x, apart, *of_columns, T, b, y, 0)
    worth_it = 2 * y.size * width >= _PARALLEL_WORK
    launch(running_sums(dtype), sums, coded_rows(dtype), made, worth_it=worth_it)
    return y


@cache
def table(columns: tuple[tuple[str, int], ...]) -> np.ndarray:
    """What compiled code reads of the columns: of each its kind, its first row in W, its rows."""
    counts = [count for _, count in columns]
    first = np.cumsum([0, *counts])[:-1]
    kinds = [_KINDS[kind] for kind, _ in columns]
    return np.stack([kinds, first, counts], axis=1).astype(np.int64).ravel()


_NUMBER, _IN_BINS, _LEVEL = range(3)
_KINDS = {"linear": _NUMBER, "bins": _IN_BINS, "levels": _LEVEL}


@njit(inline="always")
def _weighted_rows(kind, count, x):
    """The rows that x is a sum of: how many, the second's number, and their weights.

    Two are neighbours, and with one row it is the second.
    """
    one, zero = type(x)(1), type(x)(0)
    if kind == _IN_BINS:
        if x <= zero:
            return 0, np.uintp(0), zero, zero
        if x >= count:
            return 1, np.uintp(count - 1), zero, one
        if x > zero:
            k = np.uintp(x)
            f = x - type(x)(k)
            return (2 if k > np.uintp(0) else 1), k, one - f, f
        return 1, np.uintp(0), zero, x  # NaN
    if kind == _LEVEL:
        if x >= zero and x < count:
            k = np.uintp(x)
            if type(x)(k) == x:
                return 1, k, zero, one
        return 0, np.uintp(0), zero, zero
    return 1, np.uintp(0), zero, x


def _running_sums(a, first, last):
    """``T``: of columns in bins the running sums of W's rows, else these themselves."""
    for c in range(a.width):
        kind, top, count = a.table[3 * c], np.uintp(a.table[3 * c + 1]), a.table[3 * c + 2]
        for r in range(top, top + np.uintp(count)):
            here, of_W = r * a.columns, r * a.stride
            if kind == _IN_BINS and r > top:
                before = here - a.columns
                for j in range(first, last):
                    a.T[here + j] = a.T[before + j] + a.W[of_W + j]
            else:
                for j in range(first, last):
                    a.T[here + j] = a.W[of_W + j]


def _coded_rows(a, first, last):
    """``y = c(x) W + b``, rectified if asked for."""
    zero, wide = a.y.dtype.type(0), a.columns
    offsets, weights = np.empty(2 * a.width, np.int64), np.empty(2 * a.width, a.y.dtype)
    size, start, of_T = a.y.itemsize, address(a.b), address(a.T)
    of_offsets, of_weights = address(offsets), address(weights)
    for n in range(first, last):
        count = 0
        for c in range(a.width):
            kind, top = a.table[3 * c], np.uintp(a.table[3 * c + 1])
            x = a.x[n * a.width + c]
            rows, k, below, own = _weighted_rows(kind, a.table[3 * c + 2], x)
            of_k = np.intp((top + k) * wide)
            if rows == 2:
                offsets[count], weights[count] = of_k - np.intp(wide), below
                count += 1
            if rows >= 1:
                offsets[count], weights[count] = of_k, own
                count += 1
        out = address(a.y) + np.intp(n * wide) * size
        sum_of_rows(
            zero, start, of_T, of_offsets, of_weights, count, out, np.intp(wide), a.rectified
        )


def _coded_gradient(a, first, last):
    """``dW = c(x)ᵀ dy`` of some columns of W."""
    size, high = a.dy.itemsize, np.intp(last - first)
    for c in range(a.width):
        kind, top, count = a.table[3 * c], np.uintp(a.table[3 * c + 1]), a.table[3 * c + 2]
        for r in range(top, top + np.uintp(count)):
            for j in range(first, last):
                a.dW[r * a.stride + j] = 0
        of_row = np.intp(a.stride) * size
        for n in range(a.rows):
            rows, k, below, own = _weighted_rows(kind, count, a.x[n * a.width + c])
            here = address(a.dW) + np.intp((top + k) * a.stride + first) * size
            of_n = address(a.dy) + np.intp(n * a.columns + first) * size
            if rows == 2:
                add_to_row(below, here - of_row, of_n, high)
            if rows >= 1:
                add_to_row(own, here, of_n, high)
        if kind == _IN_BINS:
            for r in range(count - 1, 0, -1):
                here = np.intp((top + np.uintp(r)) * a.stride + first) * size + address(a.dW)
                add_to_row(a.dW.dtype.type(1), here - of_row, here, high)


running_sums = by_columns(RunningSums, _running_sums)
coded_rows = by_rows(CodedRows, _coded_rows)
coded_gradient = by_columns(CodedGradient, _coded_gradient)
