"""The passes over rows of logits against float64, for the vectors that this process compiles for.

Imported by the tests; run as a program, it does the same in a process of its own, which may be told
to use narrower vectors (``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES``).
"""

from __future__ import annotations

import sys

import numpy as np
from numba import njit

from xpmlp.kernels.numba import simd
from xpmlp.kernels.numba.simd import address
from xpmlp.kernels.numba.softmax_rows import row_exponentials, row_maxima, scale_rows

COLUMNS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100, 511, 513, 1000)
ROWS = 3
SENTINEL = 77


@njit
def passes(x, rows, columns, peaks, exponentials, stride, totals, y):
    zero = x.dtype.type(0)
    row_maxima(zero, address(x), rows, columns, address(peaks))
    row_exponentials(
        zero, address(x), rows, columns, address(peaks), address(exponentials), stride,
        address(totals),
    )  # fmt: skip
    scale_rows(zero, address(exponentials), stride, rows, columns, address(totals), address(y))


def softmax_parts(x, *, in_place=False):
    """Maxima, exponentials, their sums, and the products of the two, of the rows of x."""
    rows, columns = x.shape
    peaks, totals = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    stride = columns if in_place else max(columns, 64 // x.itemsize)
    exponentials = np.full(rows * stride + 64, SENTINEL, x.dtype)
    y = exponentials if in_place else np.full(rows * columns + 64, SENTINEL, x.dtype)
    passes(x.ravel(), rows, columns, peaks, exponentials, stride, totals, y)
    assert (y[rows * columns :] == SENTINEL).all()  # nothing beyond the rows
    kept = exponentials[: rows * stride].reshape(rows, stride)[:, :columns]
    return peaks, kept, totals, y[: rows * columns].reshape(rows, columns)


def ulps(values, exact):
    spacing = np.spacing(np.abs(exact).astype(values.dtype)).astype(np.longdouble)
    return np.max(np.abs(values - exact) / spacing)


def check(columns, dtype, rng):
    x = (rng.normal(size=(ROWS, columns)) * 5).astype(dtype)
    peaks, exponentials, totals, y = softmax_parts(x)
    np.testing.assert_array_equal(peaks, x.max(axis=1))
    exact = np.exp((x - x.max(axis=1, keepdims=True)).astype(np.longdouble))
    assert ulps(exponentials, exact) < 2
    assert ulps(totals, exact.sum(axis=1)) < 4
    np.testing.assert_array_equal(y, exponentials * totals[:, None])
    if x[0].nbytes >= simd.target().bits // 8:  # shorter rows are never scaled in place
        np.testing.assert_array_equal(softmax_parts(x, in_place=True)[3], y)


def check_all(dtype):
    rng = np.random.default_rng(0)
    for columns in COLUMNS:
        check(columns, dtype, rng)


if __name__ == "__main__":
    bits, *dtypes = sys.argv[1:]
    assert simd.target().bits == int(bits)
    for name in dtypes:
        check_all(name)
    print("done")
