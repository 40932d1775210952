"""Minibatch gather for NumPy arrays: bytes in, normalized floats out, each read and written once.

Rows lie anywhere in a data set that may be larger than every cache, so what counts is that memory
is asked for a few rows ahead. The division is a real one, as in the reference: beside that wait it
costs nothing, and the results are the same bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ...errors import DataError
from .launching import launch
from .records import ADDRESS, NUMBER, Of, of_member, record
from .records import ROWS as EACH
from .simd import prefetch
from .tape import instruction, share, vector

_PARALLEL_ELEMENTS = 80_000  # with fewer, waking a second thread takes longer than it saves
_AHEAD = 4  # rows between the one that is asked for and the one that is converted

Gathered = record(
    "Gathered", x=ADDRESS, total=int, index=Of("rows", dtype="int64"), mean=NUMBER, std=NUMBER,
    means=ADDRESS, stds=ADDRESS, found=ADDRESS, y=EACH,
)  # fmt: skip
"""Of ``total`` rows of x; means and stds are 0 where one number is for all elements of a row."""


def gather_rows(x, index, mean, std, *, dtype, out=None):
    """The kernel, with the signature and the results of the op's reference.

    Raises
    ------
    DataError
        If a row number is outside of x.
    """
    y = np.empty((*index.shape, *x.shape[1:]), dtype) if out is None else out
    chosen, rows = index.astype(np.int64, copy=False), len(x)
    means = stds = 0
    if mean is None:
        mean, std = 0.0, 1.0
    elif getattr(mean, "ndim", 0):
        mean, std, means, stds = 0.0, 1.0, mean, std
    large = y.size > _PARALLEL_ELEMENTS
    found = np.zeros(1, np.int64) if large else 0  # threads say here what a status says else
    given = Gathered.plain(
        1, index.size, y.size // max(1, index.size), x, rows, chosen, float(mean), float(std),
        means, stds, found, y,
    )  # fmt: skip
    wrong = launch(_gathered(x.dtype)(y.dtype), given, worth_it=large)
    if wrong or (large and found[0]):
        place = int(np.argmax((chosen < 0) | (chosen >= rows)))
        raise DataError(
            f"`gather_rows`: expected row numbers in 0…{rows - 1}, got {index.reshape(-1)[place]} "
            f"at place {place}; check where they come from"
        )
    return y


@cache
def _gathered(source: np.dtype) -> Any:
    """The instruction for rows of a type."""
    some, size = source.type(0), source.itemsize

    @instruction
    def gathered(real):
        def run(arguments, part, parts):
            a = of_member(arguments, Gathered, 0, real(0))
            first, last = share(np.intp(a.rows), part, parts, 1)
            width, total = np.intp(a.columns), np.intp(a.total)
            for n in range(first, last):
                if a.index[n] < 0 or a.index[n] >= total:
                    if a.found != 0:
                        vector(np.intp(a.found), 1, np.int64(0))[0] = 1
                    return 1
            x, row_bytes = vector(a.x, total * width, some), width * size
            means, stds = vector(a.means, width, real(0)), vector(a.stds, width, real(0))
            for n in range(first, last):
                if n + _AHEAD < last:
                    prefetch(a.x + a.index[n + _AHEAD] * row_bytes, row_bytes, 0)
                begin, to = np.uintp(a.index[n] * width), np.uintp(n * width)
                if a.means == 0:
                    for j in range(np.uintp(width)):
                        a.y[to + j] = (real(x[begin + j]) - a.mean) / a.std
                else:
                    for j in range(np.uintp(width)):
                        a.y[to + j] = (real(x[begin + j]) - means[j]) / stds[j]
            return 0

        return run

    return gathered
