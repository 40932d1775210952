"""Squares of numbers transposed in registers: rows become columns without a scalar in between."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from . import simd
from .simd import INT, POINTER, Vectors, address


@intrinsic
def lanes(typingctx, like):
    """How many numbers of like's type fill a vector: the side of a square."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(
            types.uintp, simd.lanes_of(context.get_value_type(signature.args[0]))
        )

    return types.uintp(like), generate


@intrinsic
def transpose_square(
    typingctx, like, source, source_row, rows, columns, target, target_row, kept_rows, kept_columns
):
    """Read up to a square of numbers at an address and write it transposed at another.

    ``rows`` rows of ``columns`` numbers are read, at distances of ``source_row`` numbers; what the
    square has beyond them is 0. Of the result ``kept_rows`` rows of ``kept_columns`` are written.
    """

    def generate(context, builder, signature, arguments):
        element = context.get_value_type(signature.args[0])
        function = _square_function(builder.module, element)
        source, target = (builder.inttoptr(arguments[i], POINTER) for i in (1, 5))
        builder.call(function, [source, *arguments[2:5], target, *arguments[6:9]])
        return context.get_dummy_value()

    return types.void(like, *(types.intp,) * 8), generate


def _square_function(module: ir.Module, element: ir.Type) -> ir.Function:
    name = f"xpmlp_transpose_{element}"
    kinds = [POINTER, INT, INT, INT, POINTER, INT, INT, INT]
    function = simd.private_function(module, name, kinds)
    if function is None:
        return module.globals[name]
    source, source_row, rows, columns, target, target_row, kept_rows, kept_columns = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(builder, element)
    nothing = v.mask(INT(0))

    def mask_of(row: int, count: ir.Value, mask: ir.Value) -> ir.Value:
        return builder.select(builder.icmp_signed("<", INT(row), count), mask, nothing)

    read, loaded = v.mask(columns), []
    for row in range(v.lanes):
        loaded.append(v.load(source, mask_of(row, rows, read)))
        source = v.at(source, source_row)
    write = v.mask(kept_columns)
    for row, vector in enumerate(v.transpose(loaded)):
        v.store(vector, target, mask_of(row, kept_rows, write))
        target = v.at(target, target_row)
    builder.ret_void()
    return function


@njit(inline="always")
def transpose_in(x, begin, rows, columns, tile, width):
    """Rows of ``columns`` numbers, from ``x[begin]`` on, into columns of a tile.

    The tile's rows are ``width`` wide, a multiple of a vector; from ``rows`` on they become 0.
    """
    zero, size = x.dtype.type(0), x.itemsize
    side, source, target = np.intp(lanes(zero)), address(x) + begin * size, address(tile)
    for r in range(0, width, side):
        for c in range(0, columns, side):
            transpose_square(
                zero, source + (r * columns + c) * size, columns, rows - r, columns - c,
                target + (c * width + r) * size, width, columns - c, side,
            )  # fmt: skip


@njit(inline="always")
def transpose_out(tile, width, rows, columns, y, begin):
    """The way back: columns of a tile into rows of ``columns`` numbers, from ``y[begin]`` on."""
    zero, size = y.dtype.type(0), y.itemsize
    side, source, target = np.intp(lanes(zero)), address(tile), address(y) + begin * size
    for r in range(0, rows, side):
        for c in range(0, columns, side):
            transpose_square(
                zero, source + (c * width + r) * size, width, columns - c, side,
                target + (r * columns + c) * size, columns, rows - r, columns - c,
            )  # fmt: skip
