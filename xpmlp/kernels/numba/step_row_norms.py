"""Instructions of a training step: RMS norm, and norms of members of different widths.

A member's width is how many of its features it has; the others are 0 and stay so.
"""

from __future__ import annotations

import numpy as np

from . import gemm
from .normalization import layer_norm_backward_rows as ln_backward_rows
from .normalization import layer_norm_rows as ln_rows
from .row_sums import centred_sums, slope_sums
from .tape import instruction, integers, row_share, vector


@instruction
def rms_norm(real):
    """``y = γ x / √(Σ x² / width + ε)`` for each row; the inverse root is kept."""

    def run(arguments, part, parts):
        x, members, rows, columns, widths, gamma, options, y, inv_rms = integers(arguments, 9)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        eps = real(vector(options, 1, np.float64(0))[0])
        counts = vector(widths, members, np.int64(0))
        for member in range(first_member, last_member):
            scales = vector(gamma + member * columns * size, columns, real(0))
            inverses = vector(inv_rms + member * rows * size, rows, real(0))
            for row in range(first, last):
                at = (member * rows + row) * columns * size
                values = vector(x + at, columns, real(0))
                target = vector(y + at, columns, real(0))
                squares = centred_sums(real(0), x + at, columns)[1]
                inverse = real(1) / np.sqrt(squares / real(counts[member]) + eps)
                for j in range(np.uintp(columns)):
                    target[j] = values[j] * inverse * scales[j]
                inverses[row] = inverse
        return 0

    return run


@instruction
def rms_norm_backward(real):
    """``dx = (g − x̂ Σ g x̂ / width) / rms`` for each row, with ``g = γ dy`` inside the width."""

    def run(arguments, part, parts):
        dy, x, members, rows, columns, widths, gamma, inv_rms, dx = integers(arguments, 9)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        counts = vector(widths, members, np.int64(0))
        for member in range(first_member, last_member):
            width = counts[member]
            scales = vector(gamma + member * columns * size, width, real(0))
            inverses = vector(inv_rms + member * rows * size, rows, real(0))
            for row in range(first, last):
                at = (member * rows + row) * columns * size
                slopes = vector(dy + at, width, real(0))
                values = vector(x + at, width, real(0))
                target = vector(dx + at, columns, real(0))
                inverse = inverses[row]
                along = slope_sums(
                    real(0), dy + at, gamma + member * columns * size, x + at, width
                )[1]
                tilt = along / real(width) * inverse * inverse
                for j in range(np.uintp(width)):
                    target[j] = (slopes[j] * scales[j] - values[j] * tilt) * inverse
                target[width:] = 0
        return 0

    return run


@instruction
def masked(real):
    """``y = x ⊙ mask``, with one mask of the features for each member."""

    def run(arguments, part, parts):
        x, mask, y, members, rows, columns = integers(arguments, 6)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        for member in range(first_member, last_member):
            factors = vector(mask + member * columns * size, columns, real(0))
            for row in range(first, last):
                at = (member * rows + row) * columns * size
                source = vector(x + at, columns, real(0))
                target = vector(y + at, columns, real(0))
                for j in range(np.uintp(columns)):
                    target[j] = source[j] * factors[j]
        return 0

    return run


@instruction
def masked_layer_norm(real):
    """Layer norm of each row's first features; the others give β."""

    def run(arguments, part, parts):
        (
            x, members, rows, columns, widths, gamma, beta, options, y, mean, inv_std,
        ) = integers(arguments, 11)  # fmt: skip
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        eps = real(vector(options, 1, np.float64(0))[0])
        counts = vector(widths, members, np.int64(0))
        for member in range(first_member, last_member):
            width, c = counts[member], member * columns * size
            shifts = vector(beta + c, columns, real(0))
            for row in range(first, last):
                r = (member * rows + row) * size
                target = vector(y + r * columns, columns, real(0))
                ln_rows(
                    vector(x + r * columns, width, real(0)),
                    vector(gamma + c, width, real(0)), shifts, eps,
                    np.uintp(width), np.uintp(0), np.uintp(1), target,
                    vector(mean + r, 1, real(0)), vector(inv_std + r, 1, real(0)),
                )  # fmt: skip
                for j in range(width, columns):
                    target[j] = shifts[j]
        return 0

    return run


@instruction
def masked_layer_norm_backward(real):
    """dx of :func:`masked_layer_norm`, 0 outside of the width."""

    def run(arguments, part, parts):
        (
            dy, x, members, rows, columns, widths, gamma, mean, inv_std, dx,
        ) = integers(arguments, 10)  # fmt: skip
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        counts = vector(widths, members, np.int64(0))
        for member in range(first_member, last_member):
            width = counts[member]
            scales = vector(gamma + member * columns * size, width, real(0))
            for row in range(first, last):
                r = (member * rows + row) * size
                target = vector(dx + r * columns, columns, real(0))
                ln_backward_rows(
                    vector(dy + r * columns, width, real(0)),
                    vector(x + r * columns, width, real(0)), scales,
                    vector(mean + r, 1, real(0)), vector(inv_std + r, 1, real(0)),
                    np.uintp(width), np.uintp(0), np.uintp(1), target,
                )  # fmt: skip
                target[width:] = 0
        return 0

    return run
