"""Minibatch gather for NumPy arrays: bytes in, normalized floats out, each read and written once.

Rows lie anywhere in a data set that may be larger than every cache, so what counts is that memory
is asked for a few rows ahead. The division is a real one, as in the reference: beside that wait it
costs nothing, and the results are the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import prange, types
from numba.extending import overload

from ...errors import DataError
from .simd import address, prefetch
from .threads import enter_parallel, leave_parallel
from .twins import twins

_PARALLEL_ELEMENTS = 80_000  # with fewer, waking a second thread takes longer than it saves
_AHEAD = 4  # rows between the one that is asked for and the one that is converted


def gather_rows(x, index, mean, std, *, dtype, out=None):
    """The kernel, with the signature and the results of the op's reference.

    Raises
    ------
    DataError
        If a row number is outside of x.
    """
    y = np.empty((*index.shape, *x.shape[1:]), dtype) if out is None else out
    rows, chosen = len(x), index.reshape(-1)
    if mean is None:
        mean, std = 0.0, 1.0
    else:
        mean, std = _flat(mean), _flat(std)
    arguments = x.reshape(-1), rows, chosen, mean, std, y.reshape(-1)
    if y.size > _PARALLEL_ELEMENTS and enter_parallel():
        try:
            wrong = _gather_parallel(*arguments)
        finally:
            leave_parallel()
    else:
        wrong = _gather(*arguments)
    if wrong >= 0:
        raise DataError(
            f"`gather_rows`: expected row numbers in 0…{rows - 1}, got {chosen[wrong]} at place "
            f"{wrong}; check where they come from"
        )
    return y


def _flat(statistic):
    """A number, or one for each element of a row."""
    return statistic.reshape(-1) if getattr(statistic, "ndim", 0) else float(statistic)


def _at(statistic, j):
    raise NotImplementedError("for compiled code")


@overload(_at, inline="always")
def _compiled_at(statistic, j):
    if isinstance(statistic, types.Array):
        return lambda statistic, j: statistic[j]
    return lambda statistic, j: statistic


def _gather_body(x, rows, index, mean, std, y):
    for n in range(index.size):
        if index[n] < 0 or index[n] >= rows:
            return n
    real = y.dtype.type
    width = y.size // max(1, index.size)
    row_bytes = width * x.itemsize
    start = address(x)
    for n in prange(index.size):
        if n + _AHEAD < index.size:
            prefetch(start + np.intp(index[n + _AHEAD]) * row_bytes, row_bytes, 0)
        source = np.uintp(index[n]) * np.uintp(width)
        target = np.uintp(n) * np.uintp(width)
        for j in range(np.uintp(width)):
            y[target + j] = (real(x[source + j]) - real(_at(mean, j))) / real(_at(std, j))
    return -1


# Numba checks divisors unless told not to, and a loop with a check in it does not vectorize.
_gather, _gather_parallel = twins(_gather_body, error_model="numpy")
