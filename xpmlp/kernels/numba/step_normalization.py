"""Instructions of a training step: batch and layer normalization."""

from __future__ import annotations

import numpy as np
from numba import njit

from . import gemm
from .normalization import batch_norm_backward_rows as bn_backward_rows
from .normalization import batch_norm_parameter_columns as bn_parameter_columns
from .normalization import batch_statistics as bn_statistics
from .normalization import layer_norm_backward_rows as ln_backward_rows
from .normalization import layer_norm_parameter_columns as ln_parameter_columns
from .normalization import layer_norm_rows as ln_rows
from .normalization import normalize_rows
from .tape import instruction, integers, row_share, vector


@njit(inline="always")
def _borders(members, count, part, parts, unit):
    """:func:`row_share`, of rows or columns, unsigned as the kernels take them."""
    first_member, last_member, first, last = row_share(members, count, part, parts, unit)
    return first_member, last_member, np.uintp(first), np.uintp(last)


@instruction
def batch_statistics(real):
    """Each column's mean and variance; the running ones move towards them."""

    def run(arguments, part, parts):
        x, members, rows, columns, options, mean, var, old_mean, old_var = integers(arguments, 9)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = _borders(members, columns, part, parts, 16)
        _, keep, correction = vector(options, 3, np.float64(0))
        for member in range(first_member, last_member):
            c = member * columns * size
            means, spreads = vector(mean + c, columns, real(0)), vector(var + c, columns, real(0))
            batch = vector(x + rows * c, rows * columns, real(0))
            bn_statistics(batch, np.uintp(rows), np.uintp(columns), first, last, means, spreads)
            old_means = vector(old_mean + c, columns, real(0))
            old_spreads = vector(old_var + c, columns, real(0))
            for j in range(first, last):
                old_means[j] = real(keep) * old_means[j] + real(1.0 - keep) * means[j]
                spread = spreads[j] * real(correction)
                old_spreads[j] = real(keep) * old_spreads[j] + real(1.0 - keep) * spread
        return 0

    return run


@instruction
def batch_norm(real):
    """``y = γ x̂ + β`` with the statistics of :func:`batch_statistics`."""

    def run(arguments, part, parts):
        x, members, rows, columns, gamma, beta, options, mean, var, y = integers(arguments, 10)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = _borders(members, rows, part, parts, 1)
        eps = vector(options, 1, np.float64(0))[0]
        for member in range(first_member, last_member):
            begin, c = member * rows * columns * size, member * columns * size
            normalize_rows(
                vector(x + begin, rows * columns, real(0)),
                vector(gamma + c, columns, real(0)), vector(beta + c, columns, real(0)),
                vector(mean + c, columns, real(0)), vector(var + c, columns, real(0)),
                real(eps), np.uintp(columns), first, last,
                vector(y + begin, rows * columns, real(0)),
            )  # fmt: skip
        return 0

    return run


@instruction
def batch_norm_slopes(real):
    """dgamma and dbeta of batch norm."""

    def run(arguments, part, parts):
        (
            dy, x, members, rows, columns, options, mean, var, dgamma, dbeta,
        ) = integers(arguments, 10)  # fmt: skip
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = _borders(members, columns, part, parts, 16)
        eps = vector(options, 1, np.float64(0))[0]
        for member in range(first_member, last_member):
            begin, c = member * rows * columns * size, member * columns * size
            bn_parameter_columns(
                vector(dy + begin, rows * columns, real(0)),
                vector(x + begin, rows * columns, real(0)),
                vector(mean + c, columns, real(0)), vector(var + c, columns, real(0)), real(eps),
                np.uintp(rows), np.uintp(columns), first, last,
                vector(dgamma + c, columns, real(0)), vector(dbeta + c, columns, real(0)),
            )  # fmt: skip
        return 0

    return run


@instruction
def batch_norm_backward(real):
    """dx of batch norm, after :func:`batch_norm_slopes`."""

    def run(arguments, part, parts):
        (
            dy, x, members, rows, columns, gamma, options, mean, var, dgamma, dbeta, dx,
        ) = integers(arguments, 12)  # fmt: skip
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = _borders(members, rows, part, parts, 1)
        eps = vector(options, 1, np.float64(0))[0]
        for member in range(first_member, last_member):
            begin, c = member * rows * columns * size, member * columns * size
            bn_backward_rows(
                vector(dy + begin, rows * columns, real(0)),
                vector(x + begin, rows * columns, real(0)),
                vector(gamma + c, columns, real(0)), vector(mean + c, columns, real(0)),
                vector(var + c, columns, real(0)), real(eps),
                vector(dgamma + c, columns, real(0)), vector(dbeta + c, columns, real(0)),
                np.uintp(rows), np.uintp(columns), first, last,
                vector(dx + begin, rows * columns, real(0)),
            )  # fmt: skip
        return 0

    return run


@instruction
def layer_norm(real):
    """Layer norm of each row; mean and inv_std are kept for the backward."""

    def run(arguments, part, parts):
        x, members, rows, columns, gamma, beta, options, y, mean, inv_std = integers(arguments, 10)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = _borders(members, rows, part, parts, 1)
        eps = vector(options, 1, np.float64(0))[0]
        for member in range(first_member, last_member):
            begin, c, r = member * rows * columns * size, member * columns * size, member * rows
            ln_rows(
                vector(x + begin, rows * columns, real(0)),
                vector(gamma + c, columns, real(0)), vector(beta + c, columns, real(0)),
                real(eps), np.uintp(columns), first, last,
                vector(y + begin, rows * columns, real(0)),
                vector(mean + r * size, rows, real(0)), vector(inv_std + r * size, rows, real(0)),
            )  # fmt: skip
        return 0

    return run


@instruction
def layer_norm_slopes(real):
    """dgamma and dbeta of layer norm."""

    def run(arguments, part, parts):
        dy, x, members, rows, columns, mean, inv_std, dgamma, dbeta = integers(arguments, 9)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = _borders(members, columns, part, parts, 16)
        for member in range(first_member, last_member):
            begin, c, r = member * rows * columns * size, member * columns * size, member * rows
            ln_parameter_columns(
                vector(dy + begin, rows * columns, real(0)),
                vector(x + begin, rows * columns, real(0)),
                vector(mean + r * size, rows, real(0)), vector(inv_std + r * size, rows, real(0)),
                np.uintp(rows), np.uintp(columns), first, last,
                vector(dgamma + c, columns, real(0)), vector(dbeta + c, columns, real(0)),
            )  # fmt: skip
        return 0

    return run


@instruction
def layer_norm_backward(real):
    """dx of layer norm, after :func:`layer_norm_slopes`."""

    def run(arguments, part, parts):
        dy, x, members, rows, columns, gamma, mean, inv_std, dx = integers(arguments, 9)
        size = gemm.constants(real(0))[1]
        first_member, last_member, first, last = _borders(members, rows, part, parts, 1)
        for member in range(first_member, last_member):
            begin, c, r = member * rows * columns * size, member * columns * size, member * rows
            ln_backward_rows(
                vector(dy + begin, rows * columns, real(0)),
                vector(x + begin, rows * columns, real(0)),
                vector(gamma + c, columns, real(0)),
                vector(mean + r * size, rows, real(0)), vector(inv_std + r * size, rows, real(0)),
                np.uintp(columns), first, last, vector(dx + begin, rows * columns, real(0)),
            )  # fmt: skip
        return 0

    return run
