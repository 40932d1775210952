"""Copies of parts of a matrix in the order in which a product's tiles read them, as LLVM code.

What they hold is *words*: an element each, or the bfloat16 numbers next to two float32 elements
whose products a sum takes one after the other. The argument ``word`` says by its type which: that
of the elements, or an int16 for pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import simd
from .simd import INT, POINTER, Vectors


def is_pair(word: types.Type) -> bool:
    """Whether that is the type which stands for pairs."""
    return word == types.int16


@intrinsic
def per_word(typingctx, word):
    """How many of a sum's factors a word holds."""

    def generate(context, builder, signature, arguments):
        return INT(2 if is_pair(word) else 1)

    return types.intp(word), generate


@intrinsic
def words(typingctx, word, depth):
    """How many words hold a sum's ``depth`` factors."""

    def generate(context, builder, signature, arguments):
        return _words(builder, arguments[1], is_pair(word))

    return types.intp(word, types.intp), generate


def _words(builder: ir.IRBuilder, depth: ir.Value, paired: bool) -> ir.Value:
    return builder.udiv(builder.add(depth, INT(1)), INT(2)) if paired else depth


def _panel_function(module: ir.Module, element: ir.Type, paired: bool):
    """LLVM function that copies a panel of a matrix to rows of whole vectors.

    ``to[k·width + j] = from[k·row + j·col]`` for k < depth and j < columns; columns are padded with
    zeros to whole vectors, of which ``width`` holds as many or more. With pairs,
    ``to[k·width + j]`` is made of ``from[2k·row + j·col]`` and ``from[(2k + 1)·row + j·col]``.
    """
    name = f"xpmlp_panel_{element}{'_pairs' if paired else ''}"
    function = simd.private_function(module, name, [POINTER, INT, INT, INT, INT, INT, POINTER])
    if function is None:
        return module.globals[name]
    source, row, col, depth, columns, width, to = function.args
    builder = simd.AsWritten(function.append_basic_block("entry"))
    v = Vectors(builder, element)
    with builder.if_then(builder.icmp_signed("==", col, INT(1))):
        _copy_rows(v, paired, source, row, depth, columns, to, width)
        builder.ret_void()
    with builder.if_then(builder.icmp_signed("==", row, INT(1))):
        _copy_columns(v, paired, source, col, depth, columns, to, width)
        builder.ret_void()
    one = v.mask(INT(1))
    with _each_word(builder, paired, depth) as word, cgutils.for_range(builder, columns) as j:
        here = v.at(source, builder.mul(word.first, row), builder.mul(j.index, col))
        there = v.at(to, builder.mul(word.index, width), j.index)
        v.store(_word(v, paired, here, row, word.has_second, one), there, one)
    builder.ret_void()
    return function


class _Word(NamedTuple):
    index: ir.Value
    first: ir.Value
    has_second: ir.Value


@contextmanager
def _each_word(builder: ir.IRBuilder, paired: bool, depth: ir.Value) -> Iterator[_Word]:
    with cgutils.for_range(builder, _words(builder, depth, paired)) as loop:
        first = builder.mul(loop.index, INT(2 if paired else 1))
        second = builder.add(first, INT(1))
        yield _Word(loop.index, first, builder.icmp_signed("<", second, depth))


def _word(v: Vectors, paired: bool, here, row, has_second, mask=None) -> ir.Value:
    """A vector of words, made of the elements here and, for pairs, of those a row further on."""
    first = v.load(here, mask)
    if not paired:
        return first
    if mask is None:
        mask = v.mask(INT(v.lanes))
    second = v.load(v.at(here, row), v.builder.select(has_second, mask, v.mask(INT(0))))
    return v.pairs(first, second)


def _copy_rows(v: Vectors, paired: bool, source, row, depth, columns, to, width) -> None:
    """Elements of a row are side by side: a vector at a time."""
    builder, lanes = v.builder, INT(v.lanes)
    whole = builder.mul(builder.udiv(builder.sub(columns, INT(1)), lanes), lanes)
    mask = v.mask(builder.sub(columns, whole))
    with _each_word(builder, paired, depth) as word:
        here = v.at(source, builder.mul(word.first, row))
        there = v.at(to, builder.mul(word.index, width))
        with cgutils.for_range_slice(builder, INT(0), whole, lanes) as (j, _):
            v.store(_word(v, paired, v.at(here, j), row, word.has_second), v.at(there, j))
        last = _word(v, paired, v.at(here, whole), row, word.has_second, mask)
        v.store(last, v.at(there, whole))


def _copy_columns(v: Vectors, paired: bool, source, col, depth, columns, to, width) -> None:
    """Elements of a column are side by side: a transposed square at a time."""
    builder, lanes = v.builder, INT(v.lanes)
    square = _transpose_function(builder.module, v.element, paired)
    with (
        cgutils.for_range_slice(builder, INT(0), columns, lanes) as (j, _),
        cgutils.for_range_slice(builder, INT(0), depth, lanes) as (k, _),
    ):
        here = v.at(source, builder.mul(j, col), k)
        there = v.at(to, builder.mul(_words(builder, k, paired), width), j)
        high = _least(builder, lanes, builder.sub(columns, j))
        deep = _least(builder, lanes, builder.sub(depth, k))
        builder.call(square, [here, col, there, width, high, deep])


def _least(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _transpose_function(module: ir.Module, element: ir.Type, paired: bool):
    """LLVM function that copies a block, at most a vector wide and high, transposed and padded.

    ``to[j·to_row + i] = from[i·from_row + j]`` for i < rows, j < columns; 0 for the other i. Both
    are at most the number of lanes. With pairs, row j of ``to`` holds what would be 2j and 2j + 1.
    """
    name = f"xpmlp_transpose_{element}{'_pairs' if paired else ''}"
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
    for vector in _joined(v, paired, v.transpose(block)):
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
    for j, vector in enumerate(_joined(v, paired, v.transpose(block))):
        with builder.if_then(builder.icmp_signed("<", INT(2 * j if paired else j), columns)):
            v.store(vector, row)
        row = v.at(row, to_row)
    builder.ret_void()
    return function


def _joined(v: Vectors, paired: bool, rows: list[ir.Value]) -> list[ir.Value]:
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return [v.pairs(*pair) for pair in pairs] if paired else rows


@intrinsic
def pack(typingctx, zero, word, source, row, col, depth, columns, width, to):
    """Copy a panel of a matrix (``columns`` > 0) to rows of whole vectors of words, padded with
    zeros.

    ``zero`` gives the element type; ``source`` and ``to`` are addresses, strides count elements.
    """

    def generate(context, builder, signature, arguments):
        source, *numbers, to = arguments[2:]
        element = context.get_value_type(zero)
        function = _panel_function(builder.module, element, is_pair(word))
        source, to = (builder.inttoptr(value, POINTER) for value in (source, to))
        builder.call(function, [source, *numbers, to])
        return context.get_dummy_value()

    return types.void(zero, word, *[types.intp] * 7), generate
