"""Instructions of a training step: penalties on weights, and clipping of gradients by their norm.

Sums go into ``sums`` first, one number for each row of each parameter, and only then together:
however rows are cut among threads, they are the same bits. A member's sums are ``stride`` apart
from the next one's, and a parameter's begin at ``place``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from . import gemm
from .softmax_cross_entropy import _total
from .step_activations import formula
from .step_products import TALL
from .tape import instruction, integers, row_share, share, vector

# A sum over a row may be reordered, so that it runs in the lanes of a vector; its terms are
# functions with options of their own, in which nothing is.
_SUMS = {"reassoc", "nsz"}


def _penalised(function: Callable) -> Callable[..., int]:
    """``h = g + λ r′(w)``, and the sum of r(w) of each row; ``function(w) -> (r, r′)``."""

    @partial(instruction, fastmath=_SUMS)
    def penalised(real):
        def run(arguments, part, parts):
            w, g, h, members, rows, columns, strengths, sums, stride, place = integers(
                arguments, 10
            )
            size = gemm.constants(real(0))[1]
            first_member, last_member, top, bottom = row_share(members, rows, part, parts, TALL)
            for member in range(first_member, last_member):
                strength = real(vector(strengths, members, np.float64(0))[member])
                for row in range(top, bottom):
                    at = (member * rows + row) * columns * size
                    weights = vector(w + at, columns, real(0))
                    slopes = vector(g + at, columns, real(0))
                    target = vector(h + at, columns, real(0))
                    total = real(0)
                    for j in range(np.uintp(columns)):
                        value, slope = function(weights[j])
                        total += value
                        target[j] = slopes[j] + strength * slope
                    vector(sums + (member * stride + place + row) * size, 1, real(0))[0] = total
            return 0

        return run

    return penalised


@formula
def _l1(w):
    return abs(w), type(w)(1) if w > 0 else (type(w)(-1) if w < 0 else w)


@formula
def _l2(w):
    return type(w)(0.5) * w * w, w


PENALTIES = {"l1": _penalised(_l1), "l2": _penalised(_l2)}


@instruction
def penalty_value(real):
    """``value ← value + λ Σ sums``."""

    def run(arguments, part, parts):
        sums, members, stride, strengths, values = integers(arguments, 5)
        size = gemm.constants(real(0))[1]
        first, last = share(members, part, parts, 1)
        strength, value = (
            vector(strengths, members, np.float64(0)),
            vector(values, members, real(0)),
        )
        for member in range(first, last):
            total = _total(vector(sums + member * stride * size, stride, real(0)))
            value[member] += real(strength[member] * total)
        return 0

    return run


@partial(instruction, fastmath=_SUMS)
def squares(real):
    """The norm of each row of a gradient; squares in double precision, which cannot overflow."""

    def run(arguments, part, parts):
        g, members, rows, columns, sums, stride, place = integers(arguments, 7)
        size = gemm.constants(real(0))[1]
        first_member, last_member, top, bottom = row_share(members, rows, part, parts, TALL)
        for member in range(first_member, last_member):
            for row in range(top, bottom):
                at = (member * rows + row) * columns * size
                slopes = vector(g + at, columns, real(0))
                total = 0.0
                for j in range(np.uintp(columns)):
                    total += np.float64(slopes[j]) * np.float64(slopes[j])
                norm = real(np.sqrt(total))
                vector(sums + (member * stride + place + row) * size, 1, real(0))[0] = norm
        return 0

    return run


@instruction
def clipping(real):
    """``min(1, bound / norm)`` as the last of each member's rates, weights' and others'."""

    def run(arguments, part, parts):
        sums, members, stride, bounds, of_weights, of_others, count = integers(arguments, 7)
        size = gemm.constants(real(0))[1]
        first, last = share(members, part, parts, 1)
        most = vector(bounds, members, np.float64(0))
        for member in range(first, last):
            norms, total = vector(sums + member * stride * size, stride, real(0)), 0.0
            for row in range(np.uintp(stride)):
                total += np.float64(norms[row]) * np.float64(norms[row])
            norm = np.sqrt(total)
            scale = most[member] / norm if norm > most[member] else 1.0
            end = (member * count + count - 1) * 8
            vector(of_weights + end, 1, np.float64(0))[0] = scale
            vector(of_others + end, 1, np.float64(0))[0] = scale
        return 0

    return run
