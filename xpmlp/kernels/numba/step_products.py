"""Instructions of a training step: matrix products and what belongs to them.

Arguments are named where they are unpacked, here and in the other ``step_…`` files; ``members`` is
P, and arrays of P problems follow one another at a distance of ``…_batch`` elements (0 where all
members share one). See tape.py for how instructions are called.
"""

from __future__ import annotations

import numpy as np

from . import gemm
from .tape import instruction, integers, share, vector

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
