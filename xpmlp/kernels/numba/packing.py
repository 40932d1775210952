"""Copies of parts of a matrix in the order in which a product's tiles read them, as LLVM code."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import simd
from .simd import INT, POINTER, Vectors


def _panel_function(module: ir.Module, element: ir.Type):
    """LLVM function that copies a panel of a matrix to rows of whole vectors.

    ``to[k·width + j] = from[k·row + j·col]`` for k < depth and j < columns; columns are padded with
    zeros to whole vectors, of which ``width`` holds as many or more.
    """
    name = f"xpmlp_panel_{element}"
    function = simd.private_function(module, name, [POINTER, INT, INT, INT, INT, INT, POINTER])
    if function is None:
        return module.globals[name]
    source, row, col, depth, columns, width, to = function.args
    builder = simd.AsWritten(function.append_basic_block("entry"))
    v = Vectors(builder, element)
    with builder.if_then(builder.icmp_signed("==", col, INT(1))):
        _copy_rows(builder, v, source, row, depth, columns, to, width)
        builder.ret_void()
    with builder.if_then(builder.icmp_signed("==", row, INT(1))):
        _copy_columns(builder, v, source, col, depth, columns, to, width)
        builder.ret_void()
    with cgutils.for_range(builder, depth) as k, cgutils.for_range(builder, columns) as j:
        here = v.at(source, builder.mul(k.index, row), builder.mul(j.index, col))
        there = v.at(to, builder.mul(k.index, width), j.index)
        builder.store(v.scalar(here), there).align = v.bytes
    builder.ret_void()
    return function


def _copy_rows(builder: ir.IRBuilder, v: Vectors, source, row, depth, columns, to, width) -> None:
    """Elements of a row are side by side: a vector at a time."""
    lanes = INT(v.lanes)
    whole = builder.mul(builder.udiv(builder.sub(columns, INT(1)), lanes), lanes)
    mask = v.mask(builder.sub(columns, whole))
    with cgutils.for_range(builder, depth) as k:
        here = v.at(source, builder.mul(k.index, row))
        there = v.at(to, builder.mul(k.index, width))
        with cgutils.for_range_slice(builder, INT(0), whole, lanes) as (j, _):
            v.store(v.load(v.at(here, j)), v.at(there, j))
        v.store(v.load(v.at(here, whole), mask), v.at(there, whole))


def _copy_columns(builder: ir.IRBuilder, v: Vectors, source, col, depth, columns, to, width):
    """Elements of a column are side by side: a transposed square at a time."""
    square, lanes = _transpose_function(builder.module, v.element), INT(v.lanes)
    with (
        cgutils.for_range_slice(builder, INT(0), columns, lanes) as (j, _),
        cgutils.for_range_slice(builder, INT(0), depth, lanes) as (k, _),
    ):
        here = v.at(source, builder.mul(j, col), k)
        there = v.at(to, builder.mul(k, width), j)
        high = _least(builder, lanes, builder.sub(columns, j))
        deep = _least(builder, lanes, builder.sub(depth, k))
        builder.call(square, [here, col, there, width, high, deep])


def _least(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _transpose_function(module: ir.Module, element: ir.Type):
    """LLVM function that copies a block, at most a vector wide and high, transposed and padded.

    ``to[j·to_row + i] = from[i·from_row + j]`` for i < rows, j < columns; 0 for the other i. Both
    are at most the number of lanes.
    """
    name = f"xpmlp_transpose_{element}"
    function = simd.private_function(module, name, [POINTER, INT, POINTER, INT, INT, INT])
    if function is None:
        return module.globals[name]
    source, source_row, to, to_row, rows, columns = function.args
    builder = simd.AsWritten(function.append_basic_block("entry"))
    v = Vectors(builder, element)
    whole, partial = builder.append_basic_block("whole"), builder.append_basic_block("partial")
    full = [builder.icmp_signed("==", count, INT(v.lanes)) for count in (rows, columns)]
    builder.cbranch(builder.and_(*full), whole, partial)

    builder.position_at_end(whole)
    block, row = [], source
    for _ in range(v.lanes):
        block.append(v.load(row))
        row = v.at(row, source_row)
    row = to
    for vector in v.transpose(block):
        v.store(vector, row)
        row = v.at(row, to_row)
    builder.ret_void()

    builder.position_at_end(partial)
    some, none = v.mask(columns), v.mask(INT(0))
    block, row = [], source
    for i in range(v.lanes):
        inside = builder.icmp_signed("<", INT(i), rows)
        block.append(v.load(row, builder.select(inside, some, none)))
        row = v.at(row, source_row)
    row = to
    for j, vector in enumerate(v.transpose(block)):
        with builder.if_then(builder.icmp_signed("<", INT(j), columns)):
            v.store(vector, row)
        row = v.at(row, to_row)
    builder.ret_void()
    return function


@intrinsic
def pack(typingctx, zero, source, row, col, depth, columns, width, to):
    """Copy a panel of a matrix (``columns`` > 0) to rows of whole vectors, padded with zeros.

    ``zero`` gives the element type; ``source`` and ``to`` are addresses, strides count elements.
    """

    def generate(context, builder, signature, arguments):
        source, *numbers, to = arguments[1:]
        function = _panel_function(builder.module, context.get_value_type(zero))
        source, to = (builder.inttoptr(value, POINTER) for value in (source, to))
        builder.call(function, [source, *numbers, to])
        return context.get_dummy_value()

    return types.void(zero, *[types.intp] * 7), generate
