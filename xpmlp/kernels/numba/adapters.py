"""What the members of a population have of their own around a product that they share."""

from __future__ import annotations

from .records import FEATURES, ROWS, Of, by_rows, record

Scaled = record("Scaled", x=Of("rows", "columns", apart="apart"), apart=int, scale=FEATURES, y=ROWS)
"""x is 0 apart where members share it."""
Adapted = record("Adapted", x=ROWS, scale=FEATURES, shift=FEATURES, y=ROWS, rectified=int)


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


scaled_columns = by_rows(Scaled, _scaled_columns)
adapted = by_rows(Adapted, _adapted)
