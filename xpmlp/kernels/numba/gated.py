"""Instructions of gates and of a rectifier with learned slopes; both keep their slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .elementary import sigmoid
from .records import ROWS, Of, by_rows, formula, record

_HALVES = Of(2, "rows", "columns")
Gate = record("Gate", x=_HALVES, y=ROWS, slopes=_HALVES)
"""A row of x is the two halves after one another; columns are those of one."""
GateBackward = record("GateBackward", dy=ROWS, dx=_HALVES)
LearnedSlope = record(
    "LearnedSlope", x=ROWS, each=int, a=Of("each"), y=ROWS, slopes=ROWS, below=ROWS
)
"""``each`` is how many slopes a member has: one for each column, or one for all."""


def _gate(function: Callable) -> Any:
    """``y = f(a, b)`` and its slopes in both halves, of ``function(a, b) -> (f, ∂f/∂a, ∂f/∂b)``."""

    def forward(a, first, last):
        for row in range(first, last):
            begin = row * a.columns
            for j in range(a.columns):
                one = begin + begin + j
                other = one + a.columns
                a.y[begin + j], a.slopes[one], a.slopes[other] = function(a.x[one], a.x[other])

    return by_rows(Gate, forward, name=function.__name__)


@formula
def _glu(a, b):
    s = sigmoid(b)
    y = a * s
    return y, s, y * (type(y)(1) - s)


@formula
def _swiglu(a, b):
    s = sigmoid(a)
    y = a * s
    return y * b, b * (s + y * (type(y)(1) - s)), y


def _gate_backward(a, first, last):
    """``dx ← dx ⊙ dy`` in both halves: dx is the slopes before."""
    for row in range(first, last):
        begin = row * a.columns
        for j in range(a.columns):
            one = begin + begin + j
            a.dx[one] *= a.dy[begin + j]
            a.dx[one + a.columns] *= a.dy[begin + j]


def _prelu(a, first, last):
    """``y = s x`` with ``s = 1 where x > 0, else a``; what of x is multiplied by a is ``below``."""
    zero, one = a.x.dtype.type(0), a.x.dtype.type(1)
    for row in range(first, last):
        begin = row * a.columns
        for j in range(a.columns):
            x, slope = a.x[begin + j], a.a[np.uintp(0) if a.each == np.uintp(1) else j]
            a.slopes[begin + j] = one if x > zero else slope
            a.below[begin + j] = zero if x > zero else x
            a.y[begin + j] = x if x > zero else slope * x


GATES = {"glu": _gate(_glu), "swiglu": _gate(_swiglu)}
"""By the names of the ops."""
gate_backward = by_rows(GateBackward, _gate_backward)
prelu = by_rows(LearnedSlope, _prelu)
