"""One matrix product, or a batch of them, from register tiles: what other kernels are built of.

``C = f(A B + bias)``, ``C += A B``, or ``C = A B where gate > 0``, for A and B with any strides and
C with contiguous rows. Compiled code calls it like this::

    program = gemm.program(np.float32)  # Python: compiled, or read from numba's cache

    @njit
    def kernel(program, x, W, b, y):  # y = relu(x W + b), all C-contiguous
        N, D = x.shape
        M = W.shape[1]
        gemm.product(
            program, 1, N, M, D,  # how many products, rows, columns, depth
            address(x), 0, D, 1,  # A: address; strides of batch, row, column
            address(W), 0, M, 1,  # B: the same
            address(y), 0, M,  # C: address; strides of batch and row
            address(b), 0, 0, gemm.RELU,  # bias and its batch stride, gate, flags
        )

Strides count elements. The program is an address: calling through it keeps the microkernels out of
the machine code, and out of the compile time, of every kernel that multiplies matrices. It runs on
the calling thread, allocates nothing, and computes an element of C by the same operations in the
same order however rows, columns or batch are divided among calls.

How it works
------------
A *tile* of C, up to 12 rows by one to three vectors, stays in registers while it runs down the
depth; each step loads one row of B's panel and broadcasts one element of A for each row. Depth is
cut into blocks, so that B's panel stays in the first-level cache and a sum's rounding errors stay
those of a short sum; rows are cut so that A's block stays in the second. A panel is copied to the
stack first if B's columns are not contiguous (by in-register transposes where its rows are), or if
enough rows use it to pay for the copy.

Square matrices of 4, 8 and 16 have a program of their own, which handles several rows of C in one
vector and streams through the batch. Every way gives the same bits.

Measured on two cores of an EPYC 9005 (AVX-512), float32: a tile in the first-level cache runs at
260 GFLOP/s a core; products of 64³ reach 220, of 256³ and more 240 to 258.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from . import simd
from .simd import INT, prefetch, stack_buffer
from .sources import compiled
from .tiles import (
    ACCUMULATE,
    MOST_ROWS,
    PANEL,
    RELU,
    SQUARES,
    constants,
    copy_element,
    copy_row,
    squares,
    tile,
    transpose,
)

_ARGUMENTS = 19  # of the compiled driver
_PANEL_DEPTH = 128  # rows of B's panel that stay in the first-level cache
_PANEL_BYTES = _PANEL_DEPTH * PANEL * simd.target().bits // 8
_BLOCK_BYTES = 524_288  # of A and C: half of a usual second-level cache
_ROWS_TO_PACK = 48

_FETCH_BYTES = 131_072  # the largest other problem whose successor is asked for


@njit(inline="always")
def _pack(zero, b, b_row, b_col, depth, vectors, last, to):
    """Copy a panel of B to rows of whole vectors, padded with zeros."""
    lanes, size = constants(zero)
    width = vectors * lanes
    columns = width - lanes + last
    if b_col == 1:
        for k in range(depth):
            copy_row(zero, b + k * b_row * size, to + k * width * size, vectors, last)
    elif b_row == 1:
        for j in range(0, columns, lanes):
            high = min(lanes, columns - j)
            for k in range(0, depth, lanes):
                source = b + (j * b_col + k) * size
                target = to + (k * width + j) * size
                transpose(zero, source, b_col, target, width, high, min(lanes, depth - k))
    else:
        for k in range(depth):
            for j in range(columns):
                source = b + (k * b_row + j * b_col) * size
                copy_element(zero, source, to + (k * width + j) * size)


@njit(inline="always")
def _rows(zero, high, wide, inside, a, a_row, a_col, b, b_row, c, c_row, depth, bias, gate, flags):
    """One panel of C: tiles of nearly equal height, one below the other."""
    _, size = constants(zero)
    most = MOST_ROWS[wide]
    tiles = (high + most - 1) // most
    each, more = high // tiles, high % tiles
    for t in range(tiles):
        tall = each + 1 if t < more else each
        tile(
            zero, tall, wide, a, a_row, a_col, b, b_row, c, c_row, depth, inside, bias, gate, flags
        )
        a += tall * a_row * size
        c += tall * c_row * size
        if gate != 0:
            gate += tall * c_row * size


@njit(inline="always")
def _panels(
    zero,
    packed,
    high,
    columns,
    depth,
    a,
    a_row,
    a_col,
    b,
    b_row,
    b_col,
    c,
    c_row,
    bias,
    gate,
    flags,
):
    """One block of rows and of depth: panels of C, one beside the other."""
    lanes, size = constants(zero)
    vectors = (columns + lanes - 1) // lanes
    last = columns - (vectors - 1) * lanes
    while vectors > 0:
        # Two vectors across are best; three avoid one, which has too little to do for each load.
        wide = 3 if vectors % 2 == 1 and vectors > 1 else min(vectors, 2)
        inside = last if wide == vectors else lanes
        panel, panel_row = b, b_row
        if packed != 0:
            _pack(zero, b, b_row, b_col, depth, wide, inside, packed)
            panel, panel_row = packed, wide * lanes
        _rows(
            zero,
            high,
            wide,
            inside,
            a,
            a_row,
            a_col,
            panel,
            panel_row,
            c,
            c_row,
            depth,
            bias,
            gate,
            flags,
        )
        step = wide * lanes * size
        b += wide * lanes * b_col * size
        c += step
        if bias != 0:
            bias += step
        if gate != 0:
            gate += step
        vectors -= wide


def _driver(real):
    """The product for one element type, as plain numba code."""

    def product(
        count,
        rows,
        columns,
        depth,
        a,
        a_batch,
        a_row,
        a_col,
        b,
        b_batch,
        b_row,
        b_col,
        c,
        c_batch,
        c_row,
        bias,
        bias_batch,
        gate,
        flags,
    ):
        if rows <= 0 or columns <= 0:
            return
        zero = real(0)
        size = constants(zero)[1]
        packed = stack_buffer(_PANEL_BYTES)
        if b_col == 1 and rows < _ROWS_TO_PACK:
            packed = 0
        depth_blocks = max(1, (depth + _PANEL_DEPTH - 1) // _PANEL_DEPTH)
        block_depth = max(1, (depth + depth_blocks - 1) // depth_blocks)
        # As many rows as keep their block of A and of C in the second-level cache, which C leaves
        # and enters again with every block of depth; and enough to be worth packing B for.
        block_rows = max(_BLOCK_BYTES // ((block_depth + columns) * size), 2 * _ROWS_TO_PACK)
        row_blocks = (rows + block_rows - 1) // block_rows
        block_rows = (rows + row_blocks - 1) // row_blocks
        # The next problem's memory, while this one computes: its runs are too short for the CPU to
        # see them coming. Long ones it sees.
        fetch = (rows * depth + depth * columns + rows * columns) * size <= _FETCH_BYTES
        bias_step = bias_batch * size if bias != 0 else 0
        gate_step = c_batch * size if gate != 0 else 0
        gate_row = c_row if gate != 0 else 0
        while count > 0:
            if count > 1 and fetch:
                prefetch(a + a_batch * size, rows * depth * size, 0)
                prefetch(b + b_batch * size, columns * depth * size, 0)
                prefetch(c + c_batch * size, rows * columns * size, 1)
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
                        zero,
                        packed,
                        min(block_rows, rows - i),
                        columns,
                        min(block_depth, depth - k),
                        a + (i * a_row + k * a_col) * size,
                        a_row,
                        a_col,
                        b + k * b_row * size,
                        b_row,
                        b_col,
                        c + i * c_row * size,
                        c_row,
                        start,
                        only,
                        how,
                    )
                    k += block_depth
                    start = 0
                    how = flags | ACCUMULATE
                i += block_rows
            a += a_batch * size
            b += b_batch * size
            c += c_batch * size
            bias += bias_step
            gate += gate_step
            count -= 1

    return product


def _square_driver(real):
    """The same for dense squares of certain sizes, with neither bias nor gate nor flags."""

    def product(
        count, n, columns, depth, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col,
        c, c_batch, c_row, bias, bias_batch, gate, flags,
    ):  # fmt: skip
        if count > 0:
            squares(real(0), n, a_row == n, b_row == n, count, a, a_batch, b, b_batch, c, c_batch)

    return product


@cache
def program(dtype, square: bool = False) -> int:
    """The address of the compiled driver for float32 or float64, to give to :func:`product`.

    With ``square``, of the one for n × n matrices that :func:`are_dense`, C too.
    """
    signature = types.void(*[types.intp] * _ARGUMENTS)
    driver = (_square_driver if square else _driver)(np.dtype(dtype).type)
    _kept.append(compiled(driver, signature))
    return _kept[-1].address


def are_dense(dtype, n, a_row, a_col, b_row, b_col) -> bool:
    """Whether there is a program for n × n matrices whose rows or columns lie without gaps."""
    return {a_row, a_col} == {b_row, b_col} == {1, n} and n in _square_sizes(dtype)


@cache
def _square_sizes(dtype) -> list[int]:
    lanes = simd.target().bits // (8 * np.dtype(dtype).itemsize)
    return [n for n in SQUARES if n <= lanes]


_kept: list = []  # the machine code lives as long as these


@intrinsic
def product(
    typingctx,
    program,
    count,
    rows,
    columns,
    depth,
    a,
    a_batch,
    a_row,
    a_col,
    b,
    b_batch,
    b_row,
    b_col,
    c,
    c_batch,
    c_row,
    bias,
    bias_batch,
    gate,
    flags,
):
    """``C = A B`` for ``count`` problems, with the options at the top of this module.

    Parameters
    ----------
    program : int
        What the Python function ``program`` gave for the element type.
    count, rows, columns, depth : int
        How many products of (rows, depth) by (depth, columns).
    a, b, c, bias, gate : int
        Addresses. Without a bias or a gate: 0. The bias is one row; the gate has C's strides.
    a_batch, a_row, a_col, b_batch, b_row, b_col, c_batch, c_row, bias_batch : int
        Strides in elements; C's columns are contiguous.
    flags : int
        0, or ``ACCUMULATE``, ``RELU`` or both; with a bias and a gate, the order is
        ``gate(relu(sums + bias + C))``.
    """

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [INT] * _ARGUMENTS)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * (_ARGUMENTS + 1)), generate
