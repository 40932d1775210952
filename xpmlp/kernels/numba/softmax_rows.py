"""Passes over rows of logits, written as LLVM code: maxima, exponentials with their sums, scaling.

LLVM's own vector loops end in a loop of single elements, which a row of 100 classes spends most of
its time in. Here the end of a row is one vector under a mask.

Rows follow one another in memory; all arguments but the first, which is there for its type, are
addresses and sizes. Each row has one number in ``peaks``, ``totals`` and ``factors``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from . import simd
from .simd import INT, LINE, POINTER, Vectors, address, stack_buffer
from .tape import vector

_BLOCK = 32  # vectors in a partial sum: rounding errors grow with the length of a sum


@intrinsic
def row_maxima(typingctx, like, x, rows, columns, peaks):
    """``peaks[i]`` = the largest number of row i of x; a NaN may be passed over."""
    return _call(like, _write_maxima, "aiia")


@intrinsic
def row_exponentials(typingctx, like, x, rows, columns, peaks, y, y_row, totals):
    """``y = e^(x − peak)``, and ``totals[i]``, the sum of row i. No x may be above its peak.

    Rows of y start at distances of ``y_row`` elements, and take at least a vector if that is not
    the number of columns.
    """
    return _call(like, _write_exponentials, "aiiaaia")


@intrinsic
def scale_rows(typingctx, like, x, x_row, rows, columns, factors, y):
    """``y = factors[i] · x`` in row i; rows of x start at distances of ``x_row``. y may be x."""
    return _call(like, _write_scaling, "aiiiaa")


# Numba does not see that the calls in these two write to memory, and may move a parallel loop past
# what reads from there. What they return it sees.


@njit(inline="always")
def maximum(x, columns, zero):
    """The largest of so many numbers at an address."""
    found = stack_buffer(LINE)
    row_maxima(zero, x, 1, columns, found)
    return vector(found, 1, zero)[0]


@njit(inline="always")
def exponentials(x, columns, peak, to):
    """``e^(x − peak)`` of so many numbers at an address, written to another; gives their sum."""
    known, found = vector(stack_buffer(LINE), 1, peak), stack_buffer(LINE)
    known[0] = peak
    row_exponentials(peak, x, 1, columns, address(known), to, columns, found)
    return vector(found, 1, peak)[0]


def _call(like: types.Type, write: Callable, kinds: str) -> tuple:
    """The signature of an intrinsic, and a call of the LLVM function that ``write`` makes."""

    def generate(context, builder, signature, arguments):
        element = context.get_value_type(like)
        function = write(builder.module, element, [POINTER if k == "a" else INT for k in kinds])
        given = [
            builder.inttoptr(argument, POINTER) if kind == "a" else argument
            for argument, kind in zip(arguments[1:], kinds, strict=True)
        ]
        builder.call(function, given)
        return context.get_dummy_value()

    return types.void(like, *(types.intp,) * len(kinds)), generate


def _write_maxima(module: ir.Module, element: ir.Type, kinds: list[ir.Type]) -> ir.Function:
    name = f"xpmlp_row_maxima_{element}"
    function = simd.private_function(module, name, kinds)
    if function is None:
        return module.globals[name]
    x, rows, columns, peaks = function.args
    builder = simd.AsWritten(function.append_basic_block("entry"))
    v = Vectors(builder, element)
    lowest = v.constant(-math.inf)
    most = cgutils.alloca_once(builder, v.type)
    with cgutils.for_range(builder, rows) as loop:
        row = v.at(x, builder.mul(loop.index, columns))
        builder.store(lowest, most)

        def larger(at: ir.Value, mask: ir.Value | None = None) -> None:
            value, so_far = v.load(v.at(row, at), mask, lowest), builder.load(most)
            is_larger = builder.fcmp_ordered(">", value, so_far)
            builder.store(builder.select(is_larger, value, so_far), most)

        with _whole_vectors(builder, v, columns, larger) as last:
            _each(builder, v, INT(0), last, larger)
            larger(last)
        builder.store(v.largest(builder.load(most)), v.at(peaks, loop.index))
    builder.ret_void()
    return function


def _write_exponentials(module: ir.Module, element: ir.Type, kinds: list[ir.Type]) -> ir.Function:
    name = f"xpmlp_row_exponentials_{element}"
    function = simd.private_function(module, name, kinds)
    if function is None:
        return module.globals[name]
    x, rows, columns, peaks, y, y_row, totals = function.args
    builder = simd.AsWritten(function.append_basic_block("entry"))
    v = Vectors(builder, element)
    total, some = (cgutils.alloca_once(builder, v.type) for _ in range(2))
    ahead = builder.mul(rows, columns)
    with cgutils.for_range(builder, rows) as loop:
        source = v.at(x, builder.mul(loop.index, columns))
        target = v.at(y, builder.mul(loop.index, y_row))
        peak = v.splat(v.scalar(v.at(peaks, loop.index)))
        builder.store(v.zero, total)

        def exponentials(at: ir.Value, mask: ir.Value | None = None) -> ir.Value:
            if mask is None:  # the next block's, while this one computes
                simd.emit_prefetch(builder, v.at(source, at, ahead), 0)
                simd.emit_prefetch(builder, v.at(target, at, ahead), 1)
            value = v.load(v.at(source, at), mask)
            value = exp_nonpositive(v, builder.fsub(value, peak))
            v.store(value, v.at(target, at), mask)
            return value

        def add(value: ir.Value, to: ir.Value, mask: ir.Value | None = None) -> None:
            value = value if mask is None else builder.select(mask, value, v.zero)
            builder.store(builder.fadd(builder.load(to), value), to)

        def short(at: ir.Value, mask: ir.Value) -> None:
            add(exponentials(at, mask), total, mask)

        with _whole_vectors(builder, v, columns, short) as last:
            block = INT(_BLOCK * v.lanes)
            with cgutils.for_range_slice(builder, INT(0), last, block, INT) as (left, _):
                right = builder.add(left, block)
                right = builder.select(builder.icmp_signed("<", right, last), right, last)
                builder.store(v.zero, some)
                _each(builder, v, left, right, lambda at: add(exponentials(at), some))
                add(builder.load(some), total)
            counted = builder.and_(builder.sub(INT(0), columns), INT(v.lanes - 1))
            add(exponentials(last), total, builder.not_(v.mask(counted)))
        builder.store(v.sum(builder.load(total)), v.at(totals, loop.index))
    builder.ret_void()
    return function


def _write_scaling(module: ir.Module, element: ir.Type, kinds: list[ir.Type]) -> ir.Function:
    name = f"xpmlp_scale_rows_{element}"
    function = simd.private_function(module, name, kinds)
    if function is None:
        return module.globals[name]
    x, x_row, rows, columns, factors, y = function.args
    builder = simd.AsWritten(function.append_basic_block("entry"))
    v = Vectors(builder, element)
    with cgutils.for_range(builder, rows) as loop:
        source = v.at(x, builder.mul(loop.index, x_row))
        target = v.at(y, builder.mul(loop.index, columns))
        factor = v.splat(v.scalar(v.at(factors, loop.index)))

        def scaled(at: ir.Value, mask: ir.Value | None = None) -> ir.Value:
            return builder.fmul(v.load(v.at(source, at), mask), factor)

        def scale(at: ir.Value, mask: ir.Value | None = None) -> None:
            v.store(scaled(at, mask), v.at(target, at), mask)

        with _whole_vectors(builder, v, columns, scale) as last:
            end = scaled(last)  # before some of it is scaled in place
            _each(builder, v, INT(0), last, scale)
            v.store(end, v.at(target, last))
    builder.ret_void()
    return function


@contextmanager
def _whole_vectors(
    builder: ir.IRBuilder,
    v: Vectors,
    columns: ir.Value,
    short: Callable[[ir.Value, ir.Value], None],
) -> Iterator[ir.Value]:
    """Inside: code for rows of at least a vector, given where the last of them starts.

    That one may overlap the one before, which costs less than a mask does: a load that touches
    what a masked store may have written waits for it. A row shorter than a vector goes through
    ``short(0, mask)``.
    """
    last = builder.sub(columns, INT(v.lanes))
    with builder.if_else(builder.icmp_signed(">=", last, INT(0))) as (then, otherwise):
        with then:
            yield last
        with otherwise:
            short(INT(0), v.mask(columns))


def _each(
    builder: ir.IRBuilder,
    v: Vectors,
    begin: ir.Value,
    end: ir.Value,
    body: Callable[[ir.Value], None],
) -> None:
    """``body(first element)`` for each vector that starts before the end."""
    with cgutils.for_range_slice(builder, begin, end, INT(v.lanes), INT) as (at, _):
        body(at)


def exp_nonpositive(v: Vectors, x: ir.Value) -> ir.Value:
    """``e^x`` of a vector of numbers ≤ 0, NaN for NaN; below the normal numbers it becomes 0.

    As in elementary.py: ``x = n ln 2 + f``, Taylor's series for ``e^f``, times ``2ⁿ``. Errors stay
    below 2 units in the last place.
    """
    builder = v.builder
    if v.bytes == 4:
        digits, bias, degree, least = 23, 127, 7, -88.0
        high, low = 0.693359375, -2.12194440054690583e-4
    else:
        digits, bias, degree, least = 52, 1023, 13, -709.0
        high, low = 6.93145751953125e-1, 1.42860682030941723212e-6
    # The least is where n = −bias, and 2ⁿ becomes 0. NaN stays.
    below = builder.fcmp_ordered("<", x, v.constant(least))
    x = builder.select(below, v.constant(least), x)
    # Added to so large a number, x / ln 2 is rounded to an integer. The sum's lowest bits are
    # n + bias, which moved to the exponent's place are 2ⁿ.
    large = v.constant(1.5 * 2.0**digits + bias)
    rounded = v.multiply_add(x, v.constant(1.0 / math.log(2.0)), large)
    n = builder.fsub(rounded, large)
    f = v.multiply_add(n, v.constant(-high), x)
    f = v.multiply_add(n, v.constant(-low), f)
    # Pairs of terms first (Estrin 1960), for a short chain of operations that wait for one another.
    square = builder.fmul(f, f)
    terms = [v.constant(1.0 / math.factorial(k)) for k in range(2, degree + 1)]
    pairs = [v.multiply_add(b, f, a) for a, b in zip(terms[::2], terms[1::2], strict=True)]
    p = pairs.pop()
    while pairs:
        p = v.multiply_add(p, square, pairs.pop())
    p = v.multiply_add(p, square, f)
    integers = ir.VectorType(ir.IntType(8 * v.bytes), v.lanes)
    places = ir.Constant(integers, [digits] * v.lanes)
    power = builder.bitcast(builder.shl(builder.bitcast(rounded, integers), places), v.type)
    return v.multiply_add(p, power, power)
