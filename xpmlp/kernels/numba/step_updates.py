"""Instructions of a training step: the updates of one parameter (P, rows, columns), in place.

The rates of each member end with decay, shrink and clip; see update.py. Optimizers with fewer than
two slots give no address for m or v, and those are never read.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from . import gemm
from .step_products import TALL
from .tape import instruction, integers, share, vector
from .update import (
    adagrad_in_place,
    adam_in_place,
    momentum_in_place,
    rmsprop_in_place,
    sgd_in_place,
)


@njit(inline="always")
def _members(arguments, part, parts):
    """A share's members: all there are, or all of one."""
    members = integers(arguments, 9)[4]
    return share(members, part, parts, 1) if members > 1 else (0, 1)


@njit(inline="always")
def _state(zero, arguments, part, parts, member):
    """A member's w, g, m and v, where the share begins and ends in them, and its rates.

    Without a population it is cut where the product that made g was, by rows.
    """
    w, g, m, v, members, rows, columns, rates, count = integers(arguments, 9)
    top, bottom = share(rows, part, parts, TALL) if members == 1 else (0, rows)
    elements = rows * columns
    at = member * elements * gemm.constants(zero)[1]
    return (
        vector(w + at, elements, zero),
        vector(g + at, elements, zero),
        vector(m + at, elements, zero),
        vector(v + at, elements, zero),
        np.uintp(top * columns),
        np.uintp(bottom * columns),
        vector(rates + member * count * 8, count, np.float64(0)),
    )


@instruction
def sgd(real):
    def run(arguments, part, parts):
        first, last = _members(arguments, part, parts)
        for member in range(first, last):
            w, g, _m, _v, begin, end, r = _state(real(0), arguments, part, parts, member)
            sgd_in_place(w, g, begin, end, r[0], r[1], r[2], r[3])
        return 0

    return run


@instruction
def momentum(real):
    def run(arguments, part, parts):
        first, last = _members(arguments, part, parts)
        for member in range(first, last):
            w, g, m, _v, begin, end, r = _state(real(0), arguments, part, parts, member)
            momentum_in_place(w, g, m, begin, end, r[0], r[1], r[2] != 0, r[3], r[4], r[5])
        return 0

    return run


@instruction
def adagrad(real):
    def run(arguments, part, parts):
        first, last = _members(arguments, part, parts)
        for member in range(first, last):
            w, g, m, _v, begin, end, r = _state(real(0), arguments, part, parts, member)
            adagrad_in_place(w, g, m, begin, end, r[0], r[1], r[2], r[3], r[4])
        return 0

    return run


@instruction
def rmsprop(real):
    def run(arguments, part, parts):
        first, last = _members(arguments, part, parts)
        for member in range(first, last):
            w, g, m, _v, begin, end, r = _state(real(0), arguments, part, parts, member)
            rmsprop_in_place(w, g, m, begin, end, r[0], r[1], r[2], r[3], r[4], r[5])
        return 0

    return run


@instruction
def adam(real):
    def run(arguments, part, parts):
        first, last = _members(arguments, part, parts)
        for member in range(first, last):
            w, g, m, v, begin, end, r = _state(real(0), arguments, part, parts, member)
            adam_in_place(
                w, g, m, v, begin, end, r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8]
            )
        return 0

    return run
