"""Sums over a row in an order of their own, written as LLVM code.

Numbers are added to as many partial sums as a vector has lanes, and these half by half. Were the
order left to the compiler ("reassoc"), serial and parallel code of one kernel might get different
ones, and different last bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import INT, POINTER, Vectors

Terms = list[tuple[ir.Value, ir.Value | None]]


@intrinsic
def centred_sums(typingctx, centre, x, size):
    """``Σ (x − c)`` and ``Σ (x − c)²`` of so many numbers at an address, of c's type."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[0]))
        centre, x = v.splat(arguments[0]), builder.inttoptr(arguments[1], POINTER)

        def terms(at: ir.Value, mask: ir.Value | None) -> Terms:
            away = builder.fsub(v.load(v.at(x, at), mask), centre)
            return [(away, None), (away, away)]

        return _sums(v, arguments[2], terms)

    return types.UniTuple(centre, 2)(centre, types.intp, types.intp), generate


@intrinsic
def slope_sums(typingctx, centre, dy, gamma, x, size):
    """``Σ g`` and ``Σ g (x − c)`` with ``g = dy γ``, of so many numbers at three addresses."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[0]))
        centre = v.splat(arguments[0])
        dy, gamma, x = (builder.inttoptr(address, POINTER) for address in arguments[1:4])

        def terms(at: ir.Value, mask: ir.Value | None) -> Terms:
            slope = builder.fmul(v.load(v.at(dy, at), mask), v.load(v.at(gamma, at), mask))
            return [(slope, None), (slope, builder.fsub(v.load(v.at(x, at), mask), centre))]

        return _sums(v, arguments[4], terms)

    return types.UniTuple(centre, 2)(centre, *(types.intp,) * 4), generate


def _sums(v: Vectors, size: ir.Value, terms: Callable[[ir.Value, ir.Value | None], Terms]):
    """The sums of the first terms, and of their products with the second where there are any."""
    builder = v.builder
    totals = [cgutils.alloca_once(builder, v.type) for _ in range(2)]
    for total in totals:
        builder.store(v.zero, total)

    def add(at: ir.Value, mask: ir.Value | None = None) -> None:
        for total, (term, factor) in zip(totals, terms(at, mask), strict=True):
            so_far = builder.load(total)
            more = (
                v.multiply_add(term, factor, so_far)
                if factor is not None
                else builder.fadd(term, so_far)
            )
            # Beyond the row there is 0 − c, and what is made of it.
            builder.store(more if mask is None else builder.select(mask, more, so_far), total)

    rest = builder.and_(size, INT(v.lanes - 1))
    whole = builder.sub(size, rest)
    with cgutils.for_range_slice(builder, INT(0), whole, INT(v.lanes), INT) as (at, _):
        add(at)
    with builder.if_then(builder.icmp_signed("!=", rest, INT(0))):
        add(whole, v.mask(rest))
    return cgutils.pack_array(builder, [v.sum(builder.load(total)) for total in totals])


@njit(nogil=True, fastmath={"reassoc"})
def total(numbers):
    """The sum of an array, in double precision."""
    found = 0.0
    for i in range(np.uintp(numbers.size)):
        found += numbers[i]
    return found
