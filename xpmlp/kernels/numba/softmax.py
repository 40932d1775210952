"""Instructions for softmax and its logarithm as layers of their own, by rows."""

from __future__ import annotations

from .elementary import exp_nonpositive, log_positive
from .records import ROWS, by_rows, record
from .row_sums import centred_sums, slope_sums
from .simd import address
from .softmax_rows import exponentials, maximum

Forward = record("Forward", x=ROWS, y=ROWS)
Backward = record("Backward", dy=ROWS, y=ROWS, dx=ROWS)


def _softmax(a, first, last):
    """``y = exp(x) / Σ exp(x)`` of each row."""
    for row in range(first, last):
        begin = row * a.columns
        at = begin * a.x.itemsize
        peak = maximum(address(a.x) + at, a.columns, a.x.dtype.type(0))
        total = exponentials(address(a.x) + at, a.columns, peak, address(a.y) + at)
        for j in range(a.columns):
            a.y[begin + j] /= total


def _softmax_backward(a, first, last):
    """``dx = y ⊙ (dy − Σ dy y)`` of each row."""
    for row in range(first, last):
        begin = row * a.columns
        at = begin * a.y.itemsize
        dy, y = address(a.dy) + at, address(a.y) + at
        along = slope_sums(a.y.dtype.type(0), dy, y, y, a.columns)[0]
        for j in range(a.columns):
            a.dx[begin + j] = a.y[begin + j] * (a.dy[begin + j] - along)


def _log_softmax(a, first, last):
    """``y = x − ln Σ exp(x)`` of each row."""
    for row in range(first, last):
        begin = row * a.columns
        at = begin * a.x.itemsize
        peak = maximum(address(a.x) + at, a.columns, a.x.dtype.type(0))
        total = exponentials(address(a.x) + at, a.columns, peak, address(a.y) + at)
        log_total = log_positive(total)
        for j in range(a.columns):
            a.y[begin + j] = (a.x[begin + j] - peak) - log_total


def _log_softmax_backward(a, first, last):
    """``dx = dy − exp(y) Σ dy`` of each row."""
    for row in range(first, last):
        begin = row * a.columns
        start = address(a.dy) + begin * a.y.itemsize
        total = centred_sums(a.y.dtype.type(0), start, a.columns)[0]
        for j in range(a.columns):
            a.dx[begin + j] = a.dy[begin + j] - exp_nonpositive(a.y[begin + j]) * total


SOFTMAXES = {
    "softmax": (by_rows(Forward, _softmax), by_rows(Backward, _softmax_backward)),
    "log_softmax": (by_rows(Forward, _log_softmax), by_rows(Backward, _log_softmax_backward)),
}
"""By the names of the ops: forward and backward."""
