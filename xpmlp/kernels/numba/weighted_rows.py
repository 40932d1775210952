"""Sums of a few weighted rows, and rows added to rows, written as LLVM code.

Rows are as wide as a layer: a few vectors. A compiled loop would ask before each one whether its
arrays overlap, and keep the sum in memory.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import INT, POINTER, Vectors

_ACROSS = 8  # vectors of a sum that stay in registers while it runs down the rows


@intrinsic
def sum_of_rows(typingctx, zero, start, base, offsets, weights, count, out, size, rectified):
    """``out = start + Σ weight · row``, rectified if that is not 0.

    All but the first are integers: addresses of ``start`` and ``out``, of what rows are ``offsets``
    (int64, in elements) from, of offsets and weights (of zero's type); how many rows, how wide.
    """

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(zero))
        start, base, offsets, weights, out = (
            builder.inttoptr(arguments[i], POINTER) for i in (1, 2, 3, 4, 6)
        )
        count, size = arguments[5], arguments[7]
        positive = builder.icmp_signed("!=", arguments[8], INT(0))

        def block(at: ir.Value, across: int, mask: ir.Value | None = None) -> None:
            places = [builder.add(at, INT(i * v.lanes)) for i in range(across)]
            sums = [cgutils.alloca_once(builder, v.type) for _ in places]
            for total, place in zip(sums, places, strict=True):
                builder.store(v.load(v.at(start, place), mask), total)
            with cgutils.for_range(builder, count) as loop:
                offset = builder.load(builder.gep(offsets, [loop.index], source_etype=INT), typ=INT)
                weight, row = v.splat(v.scalar(v.at(weights, loop.index))), v.at(base, offset)
                for total, place in zip(sums, places, strict=True):
                    more = v.load(v.at(row, place), mask)
                    builder.store(v.multiply_add(weight, more, builder.load(total)), total)
            for total, place in zip(sums, places, strict=True):
                value = builder.load(total)
                value = builder.select(positive, v.positive(value), value)
                v.store(value, v.at(out, place), mask)

        _by_blocks(v, size, block, _ACROSS)
        return context.get_dummy_value()

    return types.void(zero, *(types.intp,) * 8), generate


@intrinsic
def add_to_row(typingctx, weight, target, source, size):
    """``target += weight · source``: rows so wide, at two addresses."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(weight))
        target, source = (builder.inttoptr(each, POINTER) for each in arguments[1:3])
        factor = v.splat(arguments[0])

        def block(at: ir.Value, across: int, mask: ir.Value | None = None) -> None:
            to = v.at(target, at)
            more = v.load(v.at(source, at), mask)
            v.store(v.multiply_add(factor, more, v.load(to, mask)), to, mask)

        _by_blocks(v, arguments[3], block, 1)
        return context.get_dummy_value()

    return types.void(weight, *(types.intp,) * 3), generate


def _by_blocks(v: Vectors, size: ir.Value, block, across: int) -> None:
    """Whole blocks of so many vectors, then single ones, then what is left of one."""
    builder = v.builder
    rest = builder.and_(size, INT(v.lanes - 1))
    whole = builder.sub(size, rest)
    done = INT(0)
    if across > 1:
        wide = INT(across * v.lanes)
        done = builder.sub(whole, builder.urem(whole, wide))
        with cgutils.for_range_slice(builder, INT(0), done, wide, INT) as (at, _):
            block(at, across)
    with cgutils.for_range_slice(builder, done, whole, INT(v.lanes), INT) as (at, _):
        block(at, 1)
    with builder.if_then(builder.icmp_signed("!=", rest, INT(0))):
        block(whole, 1, v.mask(rest))
