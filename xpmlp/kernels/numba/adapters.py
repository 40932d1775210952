"""What the members of a population have of their own around a product that they share."""

from __future__ import annotations

import numpy as np

from .records import FEATURES, ROWS, Of, by_columns, by_rows, record
from .tape import release, scratch

_BATCH = Of("rows", "columns", apart="apart")  # 0 apart where members share it

Scaled = record("Scaled", x=_BATCH, apart=int, scale=FEATURES, y=ROWS)
Adapted = record("Adapted", x=ROWS, scale=FEATURES, shift=FEATURES, y=ROWS, rectified=int)
ScaleSlopes = record("ScaleSlopes", dy=ROWS, x=_BATCH, apart=int, out=FEATURES)


def _scaled_columns(a, first, last):
    """``y = x ⊙ scale`` for some rows."""
    for row in range(first, last):
        begin = row * a.columns
        for j in range(a.columns):
            a.y[begin + j] = a.x[begin + j] * a.scale[j]


def _adapted(a, first, last):
    """``y = x ⊙ scale + shift`` for some rows, rectified if asked for."""
    zero = a.y.dtype.type(0)
    for row in range(first, last):
        begin = row * a.columns
        if a.rectified != 0:
            for j in range(a.columns):
                value = a.x[begin + j] * a.scale[j] + a.shift[j]
                a.y[begin + j] = zero if value < zero else value
        else:
            for j in range(a.columns):
                a.y[begin + j] = a.x[begin + j] * a.scale[j] + a.shift[j]


def _scale_slopes(a, first, last):
    """``out = Σₙ dy ⊙ x`` of some columns."""
    # Sums of a few rows first: rounding errors grow with the length of a sum.
    few, block = scratch(last - first, a.x.dtype.type(0)), np.uintp(32)
    for j in range(first, last):
        a.out[j] = 0
    for top in range(np.uintp(0), a.rows, block):
        for j in range(last - first):
            few[j] = 0
        for row in range(top, min(a.rows, top + block)):
            begin = row * a.columns + first
            for j in range(last - first):
                few[j] += a.dy[begin + j] * a.x[begin + j]
        for j in range(last - first):
            a.out[first + j] += few[j]
    release(few)


scaled_columns = by_rows(Scaled, _scaled_columns)
adapted = by_rows(Adapted, _adapted)
scale_slopes = by_columns(ScaleSlopes, _scale_slopes, fastmath={"contract"})
