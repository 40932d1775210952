"""Instructions of a training step: what it does element by element, but for activations."""

from __future__ import annotations

import numpy as np
from numba import carray

from . import gemm
from .dropout import CHUNK, drop_chunk
from .tape import element_share, instruction, integers, pointer, share, vector

# What works in place has one array only: of two, LLVM would ask whether they overlap, and go
# element by element where they do.


@instruction
def rectified(real):
    """``x ← max(x, 0)``."""

    def run(arguments, part, parts):
        x, members, elements = integers(arguments, 3)
        first, last = element_share(members, elements, part, parts)
        values = vector(x + first * gemm.constants(real(0))[1], last - first, real(0))
        zero = real(0)
        for i in range(np.uintp(last - first)):
            values[i] = zero if values[i] < zero else values[i]  # NaN stays
        return 0

    return run


@instruction
def gated(real):
    """``dy ← dy where y > 0``, else 0."""

    def run(arguments, part, parts):
        dy, y, members, elements = integers(arguments, 4)
        first, last = element_share(members, elements, part, parts)
        size = gemm.constants(real(0))[1]
        slopes = vector(dy + first * size, last - first, real(0))
        gates = vector(y + first * size, last - first, real(0))
        zero = real(0)
        for i in range(np.uintp(last - first)):
            slopes[i] = slopes[i] if gates[i] > zero else zero
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
        first, last = element_share(members, elements, part, parts)
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


@instruction
def multiplied(real):
    """``dy ← dy ⊙ slopes``: the backward of all activations."""

    def run(arguments, part, parts):
        dy, slopes, members, elements = integers(arguments, 4)
        first, last = element_share(members, elements, part, parts)
        size = gemm.constants(real(0))[1]
        target = vector(dy + first * size, last - first, real(0))
        factors = vector(slopes + first * size, last - first, real(0))
        for i in range(np.uintp(last - first)):
            target[i] *= factors[i]
        return 0

    return run


@instruction
def summed(real):
    """``y = a + b``."""

    def run(arguments, part, parts):
        a, b, y, members, elements = integers(arguments, 5)
        first, last = element_share(members, elements, part, parts)
        size = gemm.constants(real(0))[1]
        one = vector(a + first * size, last - first, real(0))
        other = vector(b + first * size, last - first, real(0))
        target = vector(y + first * size, last - first, real(0))
        for i in range(np.uintp(last - first)):
            target[i] = one[i] + other[i]
        return 0

    return run


@instruction
def copied(real):
    """``y = x``."""

    def run(arguments, part, parts):
        x, y, members, elements = integers(arguments, 4)
        first, last = element_share(members, elements, part, parts)
        size = gemm.constants(real(0))[1]
        source = vector(x + first * size, last - first, real(0))
        target = vector(y + first * size, last - first, real(0))
        for i in range(np.uintp(last - first)):
            target[i] = source[i]
        return 0

    return run
