"""Instructions of a training step: softmax and its logarithm as layers of their own, by rows."""

from __future__ import annotations

import numpy as np

from . import gemm
from .elementary import exp_nonpositive, log_positive
from .row_sums import centred_sums, slope_sums
from .softmax_rows import exponentials, maximum
from .tape import instruction, integers, row_share, vector


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
                target = vector(y + at, columns, real(0))
                peak = maximum(x + at, columns, real(0))
                total = exponentials(x + at, columns, peak, y + at)
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
                along = slope_sums(real(0), dy + at, y + at, y + at, columns)[0]
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
                peak = maximum(x + at, columns, real(0))
                log_total = log_positive(exponentials(x + at, columns, peak, y + at))
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
                total = centred_sums(real(0), dy + at, columns)[0]
                for j in range(np.uintp(columns)):
                    target[j] = slopes[j] - exp_nonpositive(values[j]) * total
        return 0

    return run


SOFTMAXES = {
    "softmax": (softmax, softmax_backward),
    "log_softmax": (log_softmax, log_softmax_backward),
}
"""By the names of the ops: forward and backward."""
