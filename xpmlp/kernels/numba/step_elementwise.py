"""Instructions of a training step: activations and dropout, element by element."""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from . import gemm
from .dropout import CHUNK, drop_chunk
from .elementary import sigmoid, tanh
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


# --- Activations: y = f(x), and dy ← dy f′ --------------------------------------------------------


@njit(inline="always")
def _forward_vectors(zero, arguments, part, parts):
    """A share of x and of y, and the layer's constant."""
    x, y, members, elements, constant = integers(arguments, 5)
    first, last = element_share(members, elements, part, parts)
    at, count = first * gemm.constants(zero)[1], last - first
    c = vector(constant, 1, np.float64(0))[0]
    return vector(x + at, count, zero), vector(y + at, count, zero), c


@njit(inline="always")
def _backward_vectors(zero, arguments, part, parts):
    """A share of dy, of x and of y, and the layer's constant."""
    dy, x, y, members, elements, constant = integers(arguments, 6)
    first, last = element_share(members, elements, part, parts)
    at, count = first * gemm.constants(zero)[1], last - first
    c = vector(constant, 1, np.float64(0))[0]
    return vector(dy + at, count, zero), vector(x + at, count, zero), vector(y + at, count, zero), c


@instruction
def tanh_forward(real):
    def run(arguments, part, parts):
        x, y, _c = _forward_vectors(real(0), arguments, part, parts)
        for i in range(np.uintp(x.size)):
            y[i] = tanh(x[i])
        return 0

    return run


@instruction
def tanh_backward(real):
    def run(arguments, part, parts):
        dy, x, y, _c = _backward_vectors(real(0), arguments, part, parts)
        for i in range(np.uintp(x.size)):
            dy[i] *= (real(1) - y[i]) * (real(1) + y[i])
        return 0

    return run


@instruction
def sigmoid_forward(real):
    def run(arguments, part, parts):
        x, y, _c = _forward_vectors(real(0), arguments, part, parts)
        for i in range(np.uintp(x.size)):
            y[i] = sigmoid(x[i])
        return 0

    return run


@instruction
def sigmoid_backward(real):
    def run(arguments, part, parts):
        dy, x, y, _c = _backward_vectors(real(0), arguments, part, parts)
        for i in range(np.uintp(x.size)):
            dy[i] *= y[i] * (real(1) - y[i])
        return 0

    return run


@instruction
def silu_forward(real):
    def run(arguments, part, parts):
        x, y, _c = _forward_vectors(real(0), arguments, part, parts)
        for i in range(np.uintp(x.size)):
            y[i] = x[i] * sigmoid(x[i])
        return 0

    return run


@instruction
def silu_backward(real):
    def run(arguments, part, parts):
        dy, x, y, _c = _backward_vectors(real(0), arguments, part, parts)
        for i in range(np.uintp(x.size)):
            s = sigmoid(x[i])
            dy[i] *= s + y[i] * (real(1) - s)
        return 0

    return run


@instruction
def leaky_relu_forward(real):
    def run(arguments, part, parts):
        x, y, c = _forward_vectors(real(0), arguments, part, parts)
        for i in range(np.uintp(x.size)):
            y[i] = x[i] if x[i] > 0 else real(c) * x[i]
        return 0

    return run


@instruction
def leaky_relu_backward(real):
    def run(arguments, part, parts):
        dy, x, _y, c = _backward_vectors(real(0), arguments, part, parts)
        for i in range(np.uintp(x.size)):
            dy[i] *= real(1) if x[i] > 0 else real(c)
        return 0

    return run


# By the names of the layers: forward and backward.
ACTIVATIONS = {
    "tanh": (tanh_forward, tanh_backward),
    "sigmoid": (sigmoid_forward, sigmoid_backward),
    "silu": (silu_forward, silu_backward),
    "leaky_relu": (leaky_relu_forward, leaky_relu_backward),
}
