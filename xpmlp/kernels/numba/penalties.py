"""Instructions for penalties on weights, and for clipping of gradients by their norm.

Sums go into ``sums`` first, one number for each row of each parameter, and only then together:
however rows are cut among threads, they are the same bits. A member's sums are ``apart`` from the
next one's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .gemm import TALL
from .records import EACH_ROW, OUT, ROWS, Of, by_members, by_rows, formula, record
from .row_sums import total

# A sum over a row may be reordered, so that it runs in the lanes of a vector; its terms are
# functions with options of their own, in which nothing is.
_SUMS = {"reassoc", "nsz"}

_STRENGTH = Of(dtype="float64")
_OF_ROWS = Of("rows", apart="apart")
Penalised = record(
    "Penalised", w=ROWS, g=ROWS, h=ROWS, strength=_STRENGTH, sums=_OF_ROWS, apart=int
)
PenaltyValue = record("PenaltyValue", sums=EACH_ROW, strength=_STRENGTH, value=OUT)
Norms = record("Norms", g=ROWS, sums=_OF_ROWS, apart=int)
_RATES = Of("columns", dtype="float64")
Clipping = record(
    "Clipping", sums=EACH_ROW, bound=Of(dtype="float64"), of_weights=_RATES, of_others=_RATES
)


def _penalised(function: Callable) -> Any:
    """``h = g + λ r′(w)``, and the sum of r(w) of each row; ``function(w) -> (r, r′)``."""

    def penalised(a, first, last):
        real = a.w.dtype.type
        strength = real(a.strength)
        for row in range(first, last):
            begin, value_of_row = row * a.columns, real(0)
            for j in range(a.columns):
                value, slope = function(a.w[begin + j])
                value_of_row += value
                a.h[begin + j] = a.g[begin + j] + strength * slope
            a.sums[row] = value_of_row

    return by_rows(Penalised, penalised, unit=TALL, fastmath=_SUMS, name=function.__name__)


@formula
def _l1(w):
    return abs(w), type(w)(1) if w > 0 else (type(w)(-1) if w < 0 else w)


@formula
def _l2(w):
    return type(w)(0.5) * w * w, w


PENALTIES = {"l1": _penalised(_l1), "l2": _penalised(_l2)}


def _penalty_value(a, first, last):
    """``value ← value + λ Σ sums``."""
    a.value[0] += a.value.dtype.type(a.strength * total(a.sums))


def _norms(a, first, last):
    """The norm of each row of a gradient; squares in double precision, which cannot overflow."""
    for row in range(first, last):
        begin, squares = row * a.columns, 0.0
        for j in range(a.columns):
            squares += np.float64(a.g[begin + j]) * np.float64(a.g[begin + j])
        a.sums[row] = a.g.dtype.type(np.sqrt(squares))


def _clipping(a, first, last):
    """``min(1, bound / norm)`` as the last of each member's rates, weights' and others'."""
    squares = 0.0
    for row in range(a.rows):
        squares += np.float64(a.sums[row]) * np.float64(a.sums[row])
    norm = np.sqrt(squares)
    scale = a.bound / norm if norm > a.bound else 1.0
    a.of_weights[a.columns - np.uintp(1)] = scale
    a.of_others[a.columns - np.uintp(1)] = scale


penalty_value = by_members(PenaltyValue, _penalty_value)
norms = by_rows(Norms, _norms, unit=TALL, fastmath=_SUMS)
clipping = by_members(Clipping, _clipping)
