"""What is done element by element to NumPy arrays: instructions, and the ops that launch them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .elementary import sigmoid, tanh
from .launching import launch
from .records import EACH_MEMBER, ROWS, by_elements, formula, record

InPlace = record("InPlace", x=ROWS)
Mapped = record("Mapped", x=ROWS, y=ROWS)
FromOutput = record("FromOutput", dy=ROWS, y=ROWS, dz=ROWS)
Gated = record("Gated", dy=ROWS, y=ROWS)
Multiplied = record("Multiplied", dy=ROWS, slopes=ROWS)
Scaled = record("Scaled", x=ROWS, factor=EACH_MEMBER)
Summed = record("Summed", a=ROWS, b=ROWS, y=ROWS)


def relu(x):
    """The kernel, with the signature and the results of the op."""
    y = np.empty(x.shape, x.dtype)
    given = Mapped.plain(1, 1, x.size, x, y)
    launch(positive(x.dtype), given)
    return y


def relu_backward(dy, x, y):
    """The kernel, with the signature and the results of the op."""
    dx = np.empty(dy.shape, dy.dtype)
    given = FromOutput.plain(1, 1, dy.size, dy, y, dx)
    launch(SLOPES["relu"](dy.dtype), given)
    return dx


# What works in place has one array only: of two, LLVM would ask whether they overlap, and go
# element by element where they do.


def _positive(a, first, last):
    """``y = max(x, 0)``."""
    zero = a.x.dtype.type(0)
    for i in range(first, last):
        a.y[i] = zero if a.x[i] < zero else a.x[i]


def _rectified(a, first, last):
    """``x ← max(x, 0)``."""
    zero = a.x.dtype.type(0)
    for i in range(first, last):
        a.x[i] = zero if a.x[i] < zero else a.x[i]  # NaN stays


def _gated(a, first, last):
    """``dy ← dy where y > 0``, else 0."""
    zero = a.y.dtype.type(0)
    for i in range(first, last):
        a.dy[i] = a.dy[i] if a.y[i] > zero else zero


def _multiplied(a, first, last):
    """``dy ← dy ⊙ slopes``: the backward of all activations."""
    for i in range(first, last):
        a.dy[i] *= a.slopes[i]


def _scaled(a, first, last):
    """``x ← factor x``, one factor for each member."""
    for i in range(first, last):
        a.x[i] *= a.factor


def _summed(a, first, last):
    """``y = a + b``."""
    for i in range(first, last):
        a.y[i] = a.a[i] + a.b[i]


def _copied(a, first, last):
    """``y = x``."""
    for i in range(first, last):
        a.y[i] = a.x[i]


positive = by_elements(Mapped, _positive)
rectified = by_elements(InPlace, _rectified)
gated = by_elements(Gated, _gated)
multiplied = by_elements(Multiplied, _multiplied)
scaled = by_elements(Scaled, _scaled)
summed = by_elements(Summed, _summed)
copied = by_elements(Mapped, _copied)


# --- For the fully connected map: activations whose slope can be had from their value -------------


def _values(function: Callable) -> Any:
    """``x ← f(x)``."""

    def values(a, first, last):
        for i in range(first, last):
            a.x[i] = function(a.x[i])

    return by_elements(InPlace, values, name=f"values of {function.__name__}")


def _slopes(function: Callable) -> Any:
    """``dz = dy f′``, of ``function(dy, y) -> dz``."""

    def slopes(a, first, last):
        for i in range(first, last):
            a.dz[i] = function(a.dy[i], a.y[i])

    return by_elements(FromOutput, slopes, name=f"slopes{function.__name__}")


@formula
def _of_relu(dy, y):
    return dy if y > 0 else type(dy)(0)


@formula
def _of_tanh(dy, y):
    return dy * ((type(y)(1) - y) * (type(y)(1) + y))


@formula
def _of_sigmoid(dy, y):
    return dy * y * (type(y)(1) - y)


VALUES = {"tanh": _values(tanh), "sigmoid": _values(sigmoid)}
SLOPES = {"relu": _slopes(_of_relu), "tanh": _slopes(_of_tanh), "sigmoid": _slopes(_of_sigmoid)}
