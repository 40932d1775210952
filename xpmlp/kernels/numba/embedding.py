"""Instructions for columns of codes, and of numbers beside them, in a training step's batch.

Rows are looked up, and a table's gradient is summed, by whoever has that row of the table: its
batch rows are a chain, in their order, so that the sum is the same however the work is cut.
"""

from __future__ import annotations

import numpy as np

from .records import COUNT, Of, by_members, by_rows, of_member, record
from .tape import instruction

_BATCH = Of("rows", "columns", apart="apart")  # 0 apart where members share it
_WIDE = Of("rows", "wide")

Codes = record("Codes", x=_BATCH, apart=int, place=int, count=int)
Embedded = record(
    "Embedded", x=_BATCH, apart=int, place=int, W=Of("count", "pitch"), count=int, pitch=int,
    dim=int, y=_WIDE, wide=int, begin=int,
)  # fmt: skip
Chained = record(
    "Chained", x=_BATCH, apart=int, place=int, count=int, first=Of("count", dtype="int64"),
    following=Of("rows", dtype="int64"),
)  # fmt: skip
Summed = record(
    "Summed", first=Of("rows", dtype="int64"), following=Of("batch", dtype="int64"), batch=int,
    padding=COUNT, dy=Of("batch", "wide"), wide=int, begin=int, dW=Of("rows", "pitch"), pitch=int,
)  # fmt: skip
Passed = record("Passed", x=_BATCH, apart=int, place=int, count=int, y=_WIDE, wide=int, begin=int)


@instruction
def check_codes(real):
    """1 where a code is no whole number in 0 … count−1, else 0."""

    def run(arguments, part, parts):
        wrong = 0
        members = of_member(arguments, Codes, 0, real(0)).members
        for member in range(members):
            a = of_member(arguments, Codes, member, real(0))
            for row in range(a.rows):
                code = a.x[row * a.columns + a.place]
                wrong |= not (code >= 0 and code < a.count and code == np.floor(code))
        return wrong

    return run


check_codes.record = Codes


def _embedded(a, first, last):
    """Each row's vector, from the place ``begin`` of y's row on."""
    for row in range(first, last):
        source = np.uintp(a.x[row * a.columns + a.place]) * a.pitch
        target = row * a.wide + a.begin
        for j in range(a.dim):
            a.y[target + j] = a.W[source + j]


def _passed(a, first, last):
    """``count`` numbers of each row, from ``place`` on, to ``begin``."""
    for row in range(first, last):
        source, target = row * a.columns + a.place, row * a.wide + a.begin
        for j in range(a.count):
            a.y[target + j] = a.x[source + j]


def _chained(a, first, last):
    """The first row with each code, or −1, and from each row the next one with its code."""
    a.first[:] = -1
    for back in range(a.rows):
        row = a.rows - np.uintp(1) - back
        code = np.uintp(a.x[row * a.columns + a.place])
        a.following[row] = a.first[code]
        a.first[code] = np.intp(row)


def _summed(a, first, last):
    """``dW = Σ dy`` of some rows of the table, each over its chain."""
    real = a.dy.dtype.type
    sums = np.zeros(a.columns)
    for code in range(first, last):
        sums[:] = 0.0
        row = a.first[code]
        if np.intp(code) == a.padding:
            row = -1
        while row >= 0:
            begin = np.uintp(row) * a.wide + a.begin
            for j in range(a.columns):
                sums[j] += a.dy[begin + j]
            row = a.following[row]
        for j in range(a.columns):
            a.dW[code * a.pitch + j] = real(sums[j])


embedded, passed = by_rows(Embedded, _embedded), by_rows(Passed, _passed)
chained, code_sums = by_members(Chained, _chained), by_rows(Summed, _summed, unit=16)
