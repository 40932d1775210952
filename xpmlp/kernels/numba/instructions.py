"""The instructions that a training step's tape is made of; see tape.py for how they are called.

Each is a factory that takes the element type and gives the function to compile. Arguments are
named where they are unpacked; ``members`` is P, and arrays of P problems follow one another at a
distance of ``…_batch`` elements (0 where all members share one).
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from . import gemm
from .dropout import CHUNK, drop_chunk
from .normalization import batch_norm_backward_rows as bn_backward_rows
from .normalization import batch_norm_parameter_columns as bn_parameter_columns
from .normalization import batch_statistics as bn_statistics
from .normalization import layer_norm_backward_rows as ln_backward_rows
from .normalization import layer_norm_parameter_columns as ln_parameter_columns
from .normalization import layer_norm_rows as ln_rows
from .normalization import normalize_rows
from .softmax_cross_entropy import _FEW_CLASSES, _rows, _scale_rows, _tiles, _total
from .tape import instruction, integers, pointer, share, vector
from .update import (
    adagrad_in_place,
    adam_in_place,
    momentum_in_place,
    rmsprop_in_place,
    sgd_in_place,
)

TALL = 12  # rows are cut at multiples of a tile's height
BATCH, ROWS, COLUMNS = range(3)  # what the shares of a product cut


@instruction
def product(real):
    """``C = f(A B + bias)``, gated or accumulated if asked for: :func:`gemm.product`, cut."""

    def run(arguments, part, parts):
        (
            program, axis, count, rows, columns, depth, a, a_batch, a_row, a_col,
            b, b_batch, b_row, b_col, c, c_batch, c_row, bias, bias_batch, gate, flags,
        ) = integers(arguments, 21)  # fmt: skip
        size = gemm.constants(real(0))[1]
        if axis == BATCH:
            first, last = share(count, part, parts, 1)
            count = last - first
            a += first * a_batch * size
            b += first * b_batch * size
            c += first * c_batch * size
            if bias != 0:
                bias += first * bias_batch * size
            if gate != 0:
                gate += first * c_batch * size
        elif axis == ROWS:
            first, last = share(rows, part, parts, TALL)
            rows = last - first
            a += first * a_row * size
            c += first * c_row * size
            if gate != 0:
                gate += first * c_row * size
        else:
            first, last = share(columns, part, parts, gemm.constants(real(0))[0])
            columns = last - first
            b += first * b_col * size
            c += first * size
            if bias != 0:
                bias += first * size
            if gate != 0:
                gate += first * size
        gemm.product(
            program, count, rows, columns, depth, a, a_batch, a_row, a_col,
            b, b_batch, b_row, b_col, c, c_batch, c_row, bias, bias_batch, gate, flags,
        )  # fmt: skip
        return 0

    return run


@instruction
def half_products(real):
    """``A B + bias`` in two terms, one for each half of the depth: ``c[0] + c[1]``.

    For a few rows by a large matrix. Cutting its rows would send all of B through every core's
    cache. This way a core meets the same half of it here, in its gradient and in its update.
    """

    def run(arguments, part, parts):
        (
            program, rows, columns, depth, a, a_row, b, b_row, c, bias,
        ) = integers(arguments, 10)  # fmt: skip
        size = gemm.constants(real(0))[1]
        for half in range(2):
            if parts > 1 and part % 2 != half:
                continue
            sharers = (parts + 1 - half) // 2 if parts > 1 else 1
            top, bottom = share(rows, part // 2, sharers, TALL)
            first, last = share(depth, half, 2, TALL)
            gemm.product(
                program, 1, bottom - top, columns, last - first,
                a + (top * a_row + first) * size, 0, a_row, 1, b + first * b_row * size, 0, b_row,
                1, c + (half * rows + top) * columns * size, 0, columns,
                bias if half == 0 else 0, 0, 0, 0,
            )  # fmt: skip
        return 0

    return run


@instruction
def joined_halves(real):
    """``y = c[0] + c[1]``, rectified if asked for."""

    def run(arguments, part, parts):
        c, elements, y, rectified = integers(arguments, 4)
        size = gemm.constants(real(0))[1]
        begin, end = share(elements, part, parts, 256)
        first = vector(c + begin * size, end - begin, real(0))
        second = vector(c + (elements + begin) * size, end - begin, real(0))
        target = vector(y + begin * size, end - begin, real(0))
        zero = real(0)
        if rectified != 0:
            for i in range(np.uintp(end - begin)):
                value = first[i] + second[i]
                target[i] = zero if value < zero else value
        else:
            for i in range(np.uintp(end - begin)):
                target[i] = first[i] + second[i]
        return 0

    return run


@instruction
def column_sums(real):
    """``out = Σₙ x`` for x (P, N, M): a bias's gradient."""

    def run(arguments, part, parts):
        x, batch, members, rows, columns, out = integers(arguments, 6)
        if members > 1:
            first_member, last_member = share(members, part, parts, 1)
            first, last = 0, columns
        else:
            first_member, last_member = 0, 1
            first, last = share(columns, part, parts, 16)
        size, width = gemm.constants(real(0))[1], last - first
        for member in range(first_member, last_member):
            total = vector(out + (member * columns + first) * size, width, real(0))
            total[:] = 0
            # Sums of a few rows first: rounding errors grow with the length of a sum.
            few = np.empty(width, total.dtype)
            for block in range(0, rows, 32):
                few[:] = 0
                for row in range(block, min(rows, block + 32)):
                    values = vector(
                        x + (member * batch + row * columns + first) * size, width, real(0)
                    )
                    for j in range(np.uintp(width)):
                        few[j] += values[j]
                for j in range(np.uintp(width)):
                    total[j] += few[j]
        return 0

    return run


# What works in place has one array only: of two, LLVM would ask whether they overlap, and go
# element by element where they do.


@instruction
def rectified(real):
    """``x ← max(x, 0)``."""

    def run(arguments, part, parts):
        x, members, elements = integers(arguments, 3)
        first, last = _elements(members, elements, part, parts)
        values = vector(x + first * gemm.constants(real(0))[1], last - first, real(0))
        zero = real(0)
        for i in range(np.uintp(last - first)):
            values[i] = zero if values[i] < zero else values[i]  # NaN stays
        return 0

    return run


@instruction
def gated(real):
    """``dy ← dy where y > 0``, else 0."""

    def run(arguments, part, parts):
        dy, y, members, elements = integers(arguments, 4)
        first, last = _elements(members, elements, part, parts)
        size = gemm.constants(real(0))[1]
        slopes = vector(dy + first * size, last - first, real(0))
        gates = vector(y + first * size, last - first, real(0))
        zero = real(0)
        for i in range(np.uintp(last - first)):
            slopes[i] = slopes[i] if gates[i] > zero else zero
        return 0

    return run


@njit(inline="always")
def _elements(members, elements, part, parts):
    """A share of P·elements, cut between members if there are several."""
    unit = elements if members > 1 else 256
    return share(members * elements, part, parts, unit)


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
        return 1 + _scale_rows(
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
            if classes <= _FEW_CLASSES and smoothing[member] == 0:
                _tiles(
                    logits, labels, shares, scale, smoothing[member], z, has_ignore != 0, ignored,
                    slopes, values,
                )  # fmt: skip
            else:
                _rows(
                    logits, labels, shares, scale, smoothing[member], z, has_ignore != 0, ignored,
                    slopes, values,
                )  # fmt: skip
        return 0

    return run


@instruction
def squared_error(real):
    """Each row's part of ``factor · Σ (y − t)²``, and the gradient ``2 factor (y − t)``."""

    def run(arguments, part, parts):
        y, t, t_batch, members, rows, columns, factor_at, gradient, losses = integers(arguments, 9)
        size = gemm.constants(real(0))[1]
        factor = real(vector(factor_at, 1, np.float64(0))[0])
        first, last = _elements(members, rows, part, parts)
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


@instruction
def dropout(real):
    """``y = x ⊙ keep / (1 − p)`` with the mask of step ``counter[0]`` of stream ``counter[1]``."""

    def run(arguments, part, parts):
        x, y, members, elements, seeds, counter, thresholds, scales = integers(arguments, 8)
        chunks = (elements + CHUNK - 1) // CHUNK
        first, last = share(members * chunks, part, parts, chunks if members > 1 else 1)
        source = vector(x, members * elements, real(0))
        target = vector(y, members * elements, real(0))
        keys = carray(pointer(seeds, np.uint32(0)), (members, 2))
        when = vector(counter, 2, np.uint32(0))
        limits = vector(thresholds, members, np.uint32(0))
        factors = vector(scales, members, real(0))
        for task in range(first, last):
            drop_chunk(
                source, target, elements, keys, when[0], when[1], limits, factors,
                task // chunks, task % chunks,
            )  # fmt: skip
        return 0

    return run


@instruction
def scaled(real):
    """``x ← factor x``, one factor for each member."""

    def run(arguments, part, parts):
        x, members, elements, factor = integers(arguments, 4)
        first, last = _elements(members, elements, part, parts)
        size = gemm.constants(real(0))[1]
        factors = vector(factor, members, real(0))
        values = vector(x + first * size, last - first, real(0))
        if members == 1:
            scale = factors[0]
            for i in range(np.uintp(last - first)):
                values[i] *= scale
        else:
            for i in range(last - first):
                values[i] *= factors[(first + i) // elements]
        return 0

    return run


# --- Normalization --------------------------------------------------------------------------------


@njit(inline="always")
def _borders(members, count, part, parts, unit):
    """A share of the members, or of one member's columns or rows: members, then first and last."""
    if members > 1:
        first_member, last_member = share(members, part, parts, 1)
        return first_member, last_member, np.uintp(0), np.uintp(count)
    first, last = share(count, part, parts, unit)
    return 0, 1, np.uintp(first), np.uintp(last)


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


# --- Updates --------------------------------------------------------------------------------------


def _update(step):
    """An instruction that updates one parameter (P, rows, columns), in place, by a rule.

    The rates of each member end with decay and shrink; see update.py.
    """

    def factory(real):
        def run(arguments, part, parts):
            w, g, m, v, members, rows, columns, rates, count = integers(arguments, 9)
            size, elements = gemm.constants(real(0))[1], rows * columns
            first_member, last_member, top, bottom = 0, 1, 0, rows
            if members > 1:
                first_member, last_member = share(members, part, parts, 1)
            else:
                top, bottom = share(rows, part, parts, TALL)
            for member in range(first_member, last_member):
                begin = member * elements * size
                # Optimizers with fewer than two slots leave m or v out: those are never read.
                weights = vector(w + begin, elements, real(0))
                slopes = vector(g + begin, elements, real(0))
                first = vector(m + begin, elements, real(0))
                second = vector(v + begin, elements, real(0))
                own = vector(rates + member * count * 8, count, np.float64(0))
                begin, end = np.uintp(top * columns), np.uintp(bottom * columns)
                step(weights, slopes, first, second, begin, end, own)
            return 0

        return run

    return instruction(factory)


@njit(inline="always")
def _sgd(w, g, m, v, begin, end, r):
    sgd_in_place(w, g, begin, end, r[0], r[1], r[2])


@njit(inline="always")
def _momentum(w, g, m, v, begin, end, r):
    momentum_in_place(w, g, m, begin, end, r[0], r[1], r[2] != 0, r[3], r[4])


@njit(inline="always")
def _adagrad(w, g, m, v, begin, end, r):
    adagrad_in_place(w, g, m, begin, end, r[0], r[1], r[2], r[3])


@njit(inline="always")
def _rmsprop(w, g, m, v, begin, end, r):
    rmsprop_in_place(w, g, m, begin, end, r[0], r[1], r[2], r[3], r[4])


@njit(inline="always")
def _adam(w, g, m, v, begin, end, r):
    adam_in_place(w, g, m, v, begin, end, r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7])


sgd, momentum, adagrad, rmsprop, adam = (
    _update(step) for step in (_sgd, _momentum, _adagrad, _rmsprop, _adam)
)
