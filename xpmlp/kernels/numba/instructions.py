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
from .softmax_cross_entropy import _FEW_CLASSES as FEW_CLASSES
from .softmax_cross_entropy import _rows, _scale_rows, _tiles, _total
from .tape import instruction, integers, pointer, share, vector

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
            first, last = share(rows, part, parts, 12)
            rows = last - first
            a += first * a_row * size
            c += first * c_row * size
            if gate != 0:
                gate += first * c_row * size
        else:
            first, last = share(columns, part, parts, 32)
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


@instruction
def relu(real):
    """``y = max(x, 0)`` over members of ``size`` elements; y may be x."""

    def run(arguments, part, parts):
        x, y, members, elements = integers(arguments, 4)
        first, last = _elements(members, elements, part, parts)
        size, count = gemm.constants(real(0))[1], np.uintp(last - first)
        source = vector(x + first * size, last - first, real(0))
        target = vector(y + first * size, last - first, real(0))
        zero = real(0)
        for i in range(count):
            target[i] = source[i] if source[i] > zero or source[i] != source[i] else zero
        return 0

    return run


@instruction
def gated(real):
    """``dx = dy where y > 0``, else 0; dx may be dy."""

    def run(arguments, part, parts):
        dy, y, dx, members, elements = integers(arguments, 5)
        first, last = _elements(members, elements, part, parts)
        size, count = gemm.constants(real(0))[1], np.uintp(last - first)
        slopes = vector(dy + first * size, last - first, real(0))
        gates = vector(y + first * size, last - first, real(0))
        target = vector(dx + first * size, last - first, real(0))
        zero = real(0)
        for i in range(count):
            target[i] = slopes[i] if gates[i] > zero else zero
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
            scales, smoothings, z_loss, gradient, losses, tiled,
        ) = integers(arguments, 16)  # fmt: skip
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
            if tiled:
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
def sgd(real):
    """``w ← w − lr (g + λ w)``, in place, with one (lr, λ) for each member."""

    def run(arguments, part, parts):
        w, g, members, elements, hyper = integers(arguments, 5)
        size = gemm.constants(real(0))[1]
        first, last = _elements(members, elements, part, parts)
        rates = vector(hyper, 2 * members, real(0))
        while first < last:
            member = first // elements
            end = min(last, (member + 1) * elements)
            lr, decay = rates[2 * member], rates[2 * member + 1]
            weights = vector(w + first * size, end - first, real(0))
            slopes = vector(g + first * size, end - first, real(0))
            for i in range(np.uintp(end - first)):
                weights[i] -= lr * (slopes[i] + decay * weights[i])
            first = end
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
