"""Instructions of a training step: softmax and its logarithm as layers of their own, by rows."""

from __future__ import annotations

import numpy as np
from numba import njit

from . import gemm
from .elementary import exp_nonpositive, from_ordered_bits, log_positive, ordered_bits
from .step_row_norms import row_share
from .tape import instruction, integers, vector

# Sums run in as many partial sums as vectors have lanes; what that would harm is outside of these.
_SUMS = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}


@njit(**_SUMS)
def _exponentials(x, peak, out):
    """``exp(x − peak)``, and their sum."""
    total = x.dtype.type(0)
    for j in range(np.uintp(x.size)):
        e = exp_nonpositive(x[j] - peak)
        out[j] = e
        total += e
    return total


@njit(**_SUMS)
def _product(a, b):
    total = a.dtype.type(0)
    for j in range(np.uintp(a.size)):
        total += a[j] * b[j]
    return total


@njit(**_SUMS)
def _sum(a):
    total = a.dtype.type(0)
    for j in range(np.uintp(a.size)):
        total += a[j]
    return total


@njit(error_model="numpy")
def _largest(x):
    largest = ordered_bits(x[0])
    for j in range(np.uintp(x.size)):
        bits = ordered_bits(x[j])
        largest = bits if bits > largest else largest
    return from_ordered_bits(largest, x[0])


@instruction
def softmax(real):
    """``y = exp(x) / Σ exp(x)`` of each row."""

    def run(arguments, part, parts):
        x, y, members, rows, columns = integers(arguments, 5)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        for member in range(first_member, last_member):
            for row in range(first, last):
                at = (member * rows + row) * columns * size
                values, target = vector(x + at, columns, real(0)), vector(y + at, columns, real(0))
                total = _exponentials(values, _largest(values), target)
                for j in range(np.uintp(columns)):
                    target[j] /= total
        return 0

    return run


@instruction
def softmax_backward(real):
    """``dx = y ⊙ (dy − Σ dy y)`` of each row."""

    def run(arguments, part, parts):
        dy, y, dx, members, rows, columns = integers(arguments, 6)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        for member in range(first_member, last_member):
            for row in range(first, last):
                at = (member * rows + row) * columns * size
                slopes = vector(dy + at, columns, real(0))
                values, target = vector(y + at, columns, real(0)), vector(dx + at, columns, real(0))
                along = _product(slopes, values)
                for j in range(np.uintp(columns)):
                    target[j] = values[j] * (slopes[j] - along)
        return 0

    return run


@instruction
def log_softmax(real):
    """``y = x − ln Σ exp(x)`` of each row."""

    def run(arguments, part, parts):
        x, y, members, rows, columns = integers(arguments, 5)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        for member in range(first_member, last_member):
            for row in range(first, last):
                at = (member * rows + row) * columns * size
                values, target = vector(x + at, columns, real(0)), vector(y + at, columns, real(0))
                peak = _largest(values)
                log_total = log_positive(_exponentials(values, peak, target))
                for j in range(np.uintp(columns)):
                    target[j] = (values[j] - peak) - log_total
        return 0

    return run


@instruction
def log_softmax_backward(real):
    """``dx = dy − exp(y) Σ dy`` of each row."""

    def run(arguments, part, parts):
        dy, y, dx, members, rows, columns = integers(arguments, 6)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        for member in range(first_member, last_member):
            for row in range(first, last):
                at = (member * rows + row) * columns * size
                slopes = vector(dy + at, columns, real(0))
                values, target = vector(y + at, columns, real(0)), vector(dx + at, columns, real(0))
                total = _sum(slopes)
                for j in range(np.uintp(columns)):
                    target[j] = slopes[j] - exp_nonpositive(values[j]) * total
        return 0

    return run


SOFTMAXES = {
    "softmax": (softmax, softmax_backward),
    "log_softmax": (log_softmax, log_softmax_backward),
}
"""By the names of the ops: forward and backward."""
