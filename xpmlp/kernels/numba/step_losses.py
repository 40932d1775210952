"""Instructions of a training step: losses and their gradients."""

from __future__ import annotations

import numpy as np

from . import gemm
from .softmax_cross_entropy import _rows, _scale_problems, _total
from .tape import element_share, instruction, integers, share, vector


@instruction
def check_labels(real):
    """1 + the first row with a wrong class number, or 0; fills each member's scale of rows."""

    def run(arguments, part, parts):
        (
            y, problems, members, rows, classes, weights, weighted, has_ignore, ignored, mean,
            scales,
        ) = integers(arguments, 11)  # fmt: skip
        labels = vector(y, problems * rows, np.int64(0))
        shares = vector(weights, classes if weighted else 0, real(0))
        factors = vector(scales, members, real(0))
        return 1 + _scale_problems(
            labels, shares, has_ignore != 0, ignored, classes, mean != 0, factors, members * rows
        )

    return run


@instruction
def cross_entropy(real):
    """Loss of each row and gradient of softmax cross-entropy with class numbers."""

    def run(arguments, part, parts):
        (
            x, y, y_batch, members, rows, classes, weights, weighted, has_ignore, ignored,
            scales, smoothings, z_loss, gradient, losses,
        ) = integers(arguments, 15)  # fmt: skip
        size = gemm.constants(real(0))[1]
        first, last = 0, rows
        first_member, last_member = 0, 1
        if members > 1:
            first_member, last_member = share(members, part, parts, 1)
        else:
            first, last = share(rows, part, parts, 64)
        count = last - first
        if count <= 0:
            return 0
        shares = vector(weights, classes if weighted else 0, real(0))
        factors = vector(scales, members, real(0))
        smoothing = vector(smoothings, members, np.float64(0))
        z = vector(z_loss, 1, np.float64(0))[0]
        for member in range(first_member, last_member):
            row = member * rows + first
            logits = vector(x + row * classes * size, count * classes, real(0))
            labels = vector(y + (member * y_batch + first) * 8, count, np.int64(0))
            slopes = vector(gradient + row * classes * size, count * classes, real(0))
            values = vector(losses + row * size, count, real(0))
            scale = factors[member : member + 1]
            _rows(
                logits, labels, shares, scale, smoothing[member], z, has_ignore != 0, ignored,
                slopes, values,
            )  # fmt: skip
        return 0

    return run


@instruction
def hits(real):
    """For each member: in how many rows the largest output, the first of equals, is the label's."""

    def run(arguments, part, parts):
        x, y, y_batch, members, rows, classes, out = integers(arguments, 7)
        size = gemm.constants(real(0))[1]
        first, last = share(members, part, parts, 1)
        counts = vector(out, members, np.int64(0))
        for member in range(first, last):
            labels = vector(y + member * y_batch * 8, rows, np.int64(0))
            count = 0
            for row in range(rows):
                at = (member * rows + row) * classes * size
                outputs = vector(x + at, classes, real(0))
                best = 0
                for c in range(1, classes):
                    best = c if outputs[c] > outputs[best] else best
                count += labels[row] == best
            counts[member] = count
        return 0

    return run


@instruction
def squared_error(real):
    """Each row's part of ``factor · Σ (y − t)²``, and the gradient ``2 factor (y − t)``."""

    def run(arguments, part, parts):
        y, t, t_batch, members, rows, columns, factor_at, gradient, losses = integers(arguments, 9)
        size = gemm.constants(real(0))[1]
        factor = real(vector(factor_at, 1, np.float64(0))[0])
        first, last = element_share(members, rows, part, parts)
        for row in range(first, last):
            member, own = row // rows, row % rows
            outputs = vector(y + row * columns * size, columns, real(0))
            targets = vector(t + (member * t_batch + own * columns) * size, columns, real(0))
            slopes = vector(gradient + row * columns * size, columns, real(0))
            total = real(0)
            for j in range(np.uintp(columns)):
                difference = outputs[j] - targets[j]
                total += difference * difference
                slopes[j] = real(2) * difference * factor
            vector(losses + row * size, 1, real(0))[0] = total * factor
        return 0

    return run


@instruction
def row_total(real):
    """Each member's loss from those of its rows."""

    def run(arguments, part, parts):
        losses, members, rows, out = integers(arguments, 4)
        size = gemm.constants(real(0))[1]
        first, last = share(members, part, parts, 1)
        totals = vector(out, members, real(0))
        for member in range(first, last):
            totals[member] = real(_total(vector(losses + member * rows * size, rows, real(0))))
        return 0

    return run
