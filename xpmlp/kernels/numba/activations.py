"""Instructions for activations, each written as one formula.

A formula gives the value and the slope at x, which mostly have their expensive part in common. The
forward keeps the slopes, so that every activation has the same backward: a product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .elementary import (
    exp_nonpositive,
    expm1_nonpositive,
    log1p_of_unit,
    normal,
    sigmoid,
    tanh,
)
from .records import NUMBER, ROWS, by_elements, formula, record

Activated = record("Activated", x=ROWS, y=ROWS, slopes=ROWS, constant=NUMBER)


def _activation(function: Callable) -> Any:
    """``y = f(x)`` and ``slopes = f′(x)``, of ``function(x, constant) -> (f, f′)``."""

    def forward(a, first, last):
        for i in range(first, last):
            a.y[i], a.slopes[i] = function(a.x[i], a.constant)

    return by_elements(Activated, forward, name=function.__name__)


@formula
def _tanh(x, c):
    y = tanh(x)
    return y, (type(y)(1) - y) * (type(y)(1) + y)


@formula
def _sigmoid(x, c):
    y = sigmoid(x)
    return y, y * (type(y)(1) - y)


@formula
def _silu(x, c):
    s = sigmoid(x)
    y = x * s
    return y, s + y * (type(y)(1) - s)


@formula
def _leaky_relu(x, slope):
    return (x, type(x)(1)) if x > 0 else (slope * x, slope)


@formula
def _elu(x, alpha):
    zero, one = type(x)(0), type(x)(1)
    y = alpha * expm1_nonpositive(zero if x > zero else x)
    return (x, one) if x > zero else (y, y + alpha)


@formula
def _celu(x, alpha):
    zero, one = type(x)(0), type(x)(1)
    y = expm1_nonpositive(zero if x > zero else x / alpha)
    return (x, one) if x > zero else (alpha * y, y + one)


@formula
def _selu(x, c):
    real = type(x)
    scale, alpha = real(1.0507009873554805), real(1.6732632423543772)
    y = scale * alpha * expm1_nonpositive(real(0) if x > real(0) else x)
    return (scale * x, scale) if x > real(0) else (y, y + scale * alpha)


@formula
def _hardswish(x, c):
    real = type(x)
    three, half = real(3), real(0.5)
    if x <= -three:
        return x * real(0), real(0)
    if x >= three:
        return x, real(1)
    return x * ((x + three) / real(6)), x / three + half


@formula
def _mish(x, c):
    # As in the op: t = n/(n + 2) and 1 − t² = 4 (n + 1)/(n + 2)², where x > 0 times e².
    real = type(x)
    one, two, e = real(1), real(2), exp_nonpositive(-abs(x))
    square = e * e
    low = x < real(0)
    n = square + two * e if low else one + two * e
    unit = one if low else square
    total = n + two * unit
    t = n / total
    left = real(4) * ((n + unit) * unit) / (total * total)
    s = (e if low else one) / (one + e)
    return x * t, t + x * left * s


@formula
def _gelu(x, c):
    distribution, density = normal(x)
    return x * distribution, distribution + x * density


@formula
def _gelu_tanh(x, c):
    # ½ (1 + tanh u) = σ(2u). Far out σ is 0 or 1; its argument must not overflow before that.
    real = type(x)
    near = real(40) if x > real(40) else (real(-40) if x < real(-40) else x)
    square = near * near
    s = sigmoid(real(1.5957691216057308) * near * (real(1) + real(0.044715) * square))
    inner = real(1.5957691216057308) * (real(1) + real(0.134145) * square)
    return x * s, s + near * s * (real(1) - s) * inner


@formula
def softplus(x, c):
    """ln(1 + eˣ) and σ(x)."""
    zero, one = type(x)(0), type(x)(1)
    e = exp_nonpositive(-abs(x))
    value = log1p_of_unit(e) + (zero if x < zero else x)
    return value, (e if x < zero else one) / (one + e)


@formula
def _softsign(x, c):
    one = type(x)(1)
    share = one / (one + abs(x))
    return x * share, share * share


ACTIVATIONS = {
    "tanh": _activation(_tanh),
    "sigmoid": _activation(_sigmoid),
    "silu": _activation(_silu),
    "leaky_relu": _activation(_leaky_relu),
    "elu": _activation(_elu),
    "gelu": _activation(_gelu),
    "gelu_tanh": _activation(_gelu_tanh),
    "softplus": _activation(softplus),
    "softsign": _activation(_softsign),
    "celu": _activation(_celu),
    "selu": _activation(_selu),
    "hardswish": _activation(_hardswish),
    "mish": _activation(_mish),
}
"""By the names of the ops."""
