"""One matrix product, or a batch of them, from register tiles: what other kernels are built of.

``C = f(A B + bias)``, ``C += A B``, or ``C = A B where gate > 0``, for A and B with any strides and
C with contiguous rows. It is an instruction (see tape.py), whose shares are of the batch, of C's
rows or of its columns, and other compiled code calls it by its address::

    program = gemm.product(np.dtype("float32"))  # Python: compiled, or read from numba's cache

    @njit
    def kernel(program, x, W, b, y):  # y = relu(x W + b), all C-contiguous
        N, D = x.shape
        M = W.shape[1]
        left, right = Matrix(address(x), 0, D, 1), Matrix(address(W), 0, M, 1)
        result, bias = Matrix(address(y), 0, M, 1), Bias(address(b), 0)
        problem = Product(WHOLE, 1, N, M, D, left, right, result, bias, 0, gemm.RELU)
        call(program, stored(problem), 0, 1)

Strides count elements. Calling through an address keeps the microkernels out of the machine code,
and out of the compile time, of every kernel that multiplies matrices. A product allocates nothing,
and computes an element of C by the same operations in the same order however rows, columns or batch
are divided among calls.

How it works
------------
A *tile* of C, up to 12 rows by one to three vectors, stays in registers while it runs down the
depth; each step loads one row of B's panel and broadcasts one element of A for each row. Depth is
cut into blocks, so that B's panel stays in the first-level cache and a sum's rounding errors stay
those of a short sum; rows are cut so that A's block stays in the second. A panel is copied to the
stack first if B's columns are not contiguous (by in-register transposes where its rows are), or if
enough rows use it to pay for the copy; a block of A if enough columns use it. While the tiles of
one panel run, the next one is asked for.

Square matrices of 4, 8 and 16 have a program of their own, which handles several rows of C in one
vector and streams through the batch. Every way gives the same bits.

Measured on two cores of an EPYC 9005 (AVX-512), float32: a tile in the first-level cache runs at
260 GFLOP/s a core; products of 64³ reach 220, of 256³ and more 240 to 258.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from . import simd
from .packing import pack, per_word, words
from .records import ADDRESS, fields, fields_only
from .simd import constants, prefetch, stack_buffer
from .tape import instruction, share
from .tiles import (
    ACCUMULATE,
    MOST_ROWS,
    PANEL,
    RELU,
    SQUARES,
    squares,
    tile,
)


class Matrix(NamedTuple):
    """Where a matrix begins, and the distances in elements from one problem to the next, from row
    to row and from column to column."""

    start: int
    batch: int
    row: int
    col: int


class Bias(NamedTuple):
    """Where a row begins that is added to all, and how far the next problem's is."""

    start: int
    batch: int


class _End(NamedTuple):
    """What follows the sums of a tile: as in :data:`Product`."""

    bias: int
    gate: int
    flags: int


WHOLE, BATCH, ROWS, COLUMNS, ANY = range(5)
"""What the shares of a product cut: nothing, the first does all, or whatever is long enough."""

Product = fields_only(
    "Product", __name__, axis=int, count=int, rows=int, columns=int, depth=int, a=Matrix, b=Matrix,
    c=Matrix, bias=Bias, gate=ADDRESS, flags=int,
)  # fmt: skip
"""``count`` products of (rows, depth) by (depth, columns).

Starts, bias and gate are addresses; without a bias or a gate: 0. C's columns are contiguous, and
the gate is laid out like C. Flags are 0, ``ACCUMULATE``, ``RELU`` or both; with a bias and a gate,
the order is ``gate(relu(sums + bias + C))``.
"""

_LEAST_ROWS, _LEAST_COLUMNS = 24, 64  # for each share
TALL = 12
"""Rows are cut at multiples of a tile's height."""
_SHORT, _LONG, _LONG_DEPTH = 128, 256, 1024
"""Most rows of B's panel, which stays in the first-level cache: for short depths and from a long
one on, where C would enter and leave that cache too often."""
_PANEL_BYTES = _LONG * PANEL * simd.target().bits // 8
_BLOCK_BYTES = 524_288  # of A, copied or with C: half of a usual second-level cache
_ROWS_TO_PACK, _COLUMNS_TO_PACK = 48, 768  # that use a panel of B, or a block of A

_FETCH_BYTES = 131_072  # the largest other problem whose successor is asked for


@intrinsic
def _moved(typingctx, matrix, distance):
    """A matrix that begins so many bytes further on."""

    def generate(context, builder, signature, arguments):
        start = builder.add(builder.extract_value(arguments[0], 0), arguments[1])
        return builder.insert_value(arguments[0], start, 0)

    return matrix(matrix, types.intp), generate


@njit(inline="always")
def _pack_rows(zero, word, high, depth, a, to):
    """Copy a block of A, for each tile the elements of its rows side by side, column by column.

    Rows of a large matrix are often a multiple of 4096 bytes apart, and then fall into one set of
    the first-level cache. What comes back is the first tile, with the distance to the next one.
    """
    lanes, size = constants(zero)
    width = _packed_width(lanes)
    tiles, each, more = _heights(high, MOST_ROWS[2])
    start, apart = to, words(word, depth) * width
    for t in range(tiles):
        tall = each + 1 if t < more else each
        pack(zero, word, a.start, a.col, a.row, depth, tall, width, start)
        a = _moved(a, tall * a.row * size)
        start += apart * size
    return Matrix(to, apart, 1, width)


@njit(inline="always")
def _packed_width(lanes):
    """Elements in a column of a tile, padded to whole vectors."""
    return (MOST_ROWS[2] + lanes - 1) // lanes * lanes


@njit(inline="always")
def _heights(high, most):
    """Tiles of nearly equal height: how many, the least height, and how many have one row more."""
    tiles = (high + most - 1) // most
    return tiles, high // tiles, high % tiles


@njit(inline="always")
def _fetch(zero, b, depth, columns, part, parts):
    """Ask for a share of a panel of B: its pieces are too short for the CPU to see them coming."""
    _, size = constants(zero)
    if b.col == 1:
        for k in range(depth * part // parts, depth * (part + 1) // parts):
            prefetch(b.start + k * b.row * size, columns * size, 0)
    elif b.row == 1:
        for j in range(columns * part // parts, columns * (part + 1) // parts):
            prefetch(b.start + j * b.col * size, depth * size, 0)


@njit(inline="always")
def _rows(zero, word, high, wide, inside, depth, a, b, next_b, c, end):
    """One panel of C: tiles one below the other. A block of A is packed if its batch is not 0."""
    lanes, size = constants(zero)
    packed, gate, deep = a.batch != 0, end.gate, words(word, depth)
    tiles, each, more = _heights(high, MOST_ROWS[2 if packed else wide])
    for t in range(tiles):
        tall = each + 1 if t < more else each
        if packed:
            _fetch(zero, next_b, depth, wide * lanes, t, tiles)
        here = _End(end.bias, gate, end.flags)
        tile(zero, word, tall, wide, inside, deep, a, b, c, here)
        a = _moved(a, (a.batch if packed else tall * a.row) * size)
        c = _moved(c, tall * c.row * size)
        if gate != 0:
            gate += tall * c.row * size


@njit(inline="always")
def _panels(zero, word, for_a, for_b, high, columns, depth, a, b, c, end):
    """One block of rows and of depth: panels of C, one beside the other.

    ``for_a`` and ``for_b`` are where a block of A and a panel of B are copied to, or 0.
    """
    lanes, size = constants(zero)
    vectors = (columns + lanes - 1) // lanes
    last = columns - (vectors - 1) * lanes
    packed, bias, gate = for_a != 0, end.bias, end.gate
    if packed:
        a = _pack_rows(zero, word, high, depth, a, for_a)
    else:
        a = Matrix(a.start, 0, a.row, a.col)
    while vectors > 0:
        # Two vectors across are best, and what A is packed for; three avoid one, which has too
        # little to do for each load.
        wide = 3 if vectors % 2 == 1 and vectors > 1 and not packed else min(vectors, 2)
        inside = last if wide == vectors else lanes
        step = wide * lanes * size
        panel, next_b = b, _moved(b, step * b.col)
        if for_b != 0:
            across = (wide - 1) * lanes + inside
            pack(zero, word, b.start, b.row, b.col, depth, across, wide * lanes, for_b)
            panel = Matrix(for_b, 0, wide * lanes, 1)
        here = _End(bias, gate, end.flags)
        _rows(zero, word, high, wide, inside, depth, a, panel, next_b, c, here)
        b, c = next_b, _moved(c, step)
        if bias != 0:
            bias += step
        if gate != 0:
            gate += step
        vectors -= wide


@njit(inline="always")
def _axis(p, parts):
    """What so many shares cut."""
    if p.axis != ANY:
        return p.axis
    if p.count >= parts and p.c.batch != 0:  # what several problems add to, they cannot share
        return BATCH
    if p.rows >= parts * _LEAST_ROWS:
        return ROWS
    return COLUMNS if p.columns >= parts * _LEAST_COLUMNS else WHOLE


@njit(inline="always")
def _share(p, part, parts, lanes, size):
    """Of a product a share, whose start each operand has moved to."""
    count, rows, columns = p.count, p.rows, p.columns
    a, b, c, bias, gate = p.a, p.b, p.c, p.bias.start, p.gate
    if parts > 1:
        of_a, of_b, of_c, of_bias = 0, 0, 0, 0  # in elements, how far the share's begin
        axis = _axis(p, parts)
        if axis == BATCH:
            first, last = share(count, part, parts, 1)
            count = last - first
            of_a, of_b, of_c, of_bias = a.batch, b.batch, c.batch, p.bias.batch
        elif axis == ROWS:
            first, last = share(rows, part, parts, TALL)
            rows = last - first
            of_a, of_c = a.row, c.row
        elif axis == COLUMNS:
            first, last = share(columns, part, parts, lanes)
            columns = last - first
            of_b, of_c, of_bias = b.col, 1, 1
        else:
            first, rows = 0, rows if part == 0 else 0
        step = first * size
        a, b, c = _moved(a, step * of_a), _moved(b, step * of_b), _moved(c, step * of_c)
        if bias != 0:
            bias += step * of_bias
        if gate != 0:
            gate += step * of_c
    bias = Bias(bias, p.bias.batch)
    return Product(p.axis, count, rows, columns, p.depth, a, b, c, bias, gate, p.flags)


@instruction
def product(real):
    """``C = f(A B + bias)``, gated or accumulated if asked for."""
    return _product(real, real(0))


@instruction
def bfloat16_product(real):
    """The same for float32 matrices, with each factor rounded to bfloat16, and float32 sums."""
    return _product(real, np.int16(0))


def _product(real, word):
    def run(arguments, part, parts):
        zero = real(0)
        lanes, size = constants(zero)
        p = _share(fields(arguments, Product), part, parts, lanes, size)
        rows, columns, depth, flags = p.rows, p.columns, p.depth, p.flags
        if rows <= 0 or columns <= 0:
            return 0
        for_a, for_b = stack_buffer(_BLOCK_BYTES), stack_buffer(_PANEL_BYTES)
        each = per_word(word)
        if each == 1:  # pairs are in copies only
            if min(rows, depth) < _ROWS_TO_PACK or columns < _COLUMNS_TO_PACK:
                for_a = 0
            if p.b.col == 1 and rows < _ROWS_TO_PACK:
                for_b = 0
        most_depth = (_LONG if depth >= _LONG_DEPTH else _SHORT) * each
        depth_blocks = max(1, (depth + most_depth - 1) // most_depth)
        block_depth = max(1, (depth + depth_blocks - 1) // depth_blocks)
        block_depth += block_depth % each
        if for_a != 0:
            column = words(word, block_depth) * _packed_width(lanes) * size
            block_rows = _BLOCK_BYTES // column * MOST_ROWS[2]
        else:
            # As many rows as keep their block of A and of C in the second-level cache, which C
            # leaves and enters again with every block of depth; and enough to pack B for.
            block_rows = _BLOCK_BYTES // ((block_depth + columns) * size)
            block_rows = max(block_rows, 2 * _ROWS_TO_PACK)
        row_blocks = (rows + block_rows - 1) // block_rows
        block_rows = (rows + row_blocks - 1) // row_blocks
        # The next problem's memory, while this one computes: its runs are too short for the CPU to
        # see them coming. Long ones it sees.
        fetch = (rows * depth + depth * columns + rows * columns) * size <= _FETCH_BYTES
        a, b, c, bias, gate = p.a, p.b, p.c, p.bias.start, p.gate
        bias_step = p.bias.batch * size if bias != 0 else 0
        gate_step = c.batch * size if gate != 0 else 0
        gate_row = c.row if gate != 0 else 0
        for left in range(p.count, 0, -1):
            if left > 1 and fetch:
                prefetch(a.start + a.batch * size, rows * depth * size, 0)
                prefetch(b.start + b.batch * size, columns * depth * size, 0)
                prefetch(c.start + c.batch * size, rows * columns * size, 1)
            i = 0
            while i < rows:
                k = 0
                start, how = bias, flags
                # Once even for a depth of 0: C is then the bias, or zero.
                while k == 0 or k < depth:
                    only = gate + i * gate_row * size
                    if k + block_depth < depth:
                        only = 0
                        how &= ~RELU
                    _panels(
                        zero, word, for_a, for_b, min(block_rows, rows - i), columns,
                        min(block_depth, depth - k),
                        _moved(a, (i * a.row + k * a.col) * size), _moved(b, k * b.row * size),
                        _moved(c, i * c.row * size), _End(start, only, how),
                    )  # fmt: skip
                    k += block_depth
                    start = 0
                    how = flags | ACCUMULATE
                i += block_rows
            a, b = _moved(a, a.batch * size), _moved(b, b.batch * size)
            c = _moved(c, c.batch * size)
            bias += bias_step
            gate += gate_step
        return 0

    return run


@instruction
def square_product(real):
    """The same for dense squares of certain sizes, with neither bias nor gate nor flags."""

    def run(arguments, part, parts):
        zero = real(0)
        lanes, size = constants(zero)
        p = _share(fields(arguments, Product), part, parts, lanes, size)
        if p.count > 0:
            a_rows, b_rows = p.a.row == p.depth, p.b.row == p.depth
            squares(zero, p.depth, a_rows, b_rows, p.count, p.a, p.b, p.c)
        return 0

    return run


product.record = bfloat16_product.record = square_product.record = Product


def are_dense(dtype, n, a_row, a_col, b_row, b_col) -> bool:
    """Whether there is a program for n × n matrices whose rows or columns lie without gaps."""
    return {a_row, a_col} == {b_row, b_col} == {1, n} and n in _square_sizes(dtype)


@cache
def _square_sizes(dtype) -> list[int]:
    lanes = simd.target().bits // (8 * np.dtype(dtype).itemsize)
    return [n for n in SQUARES if n <= lanes]
