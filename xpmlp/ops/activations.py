"""Elementwise activations: each a function and its backward, side by side.

``name(x) → y`` and ``name_backward(dy, x, y) → dx = dy · f′(x)``, all of one shape (looked at by
:func:`xpmlp.ops.arguments.checked`). A backward uses
whichever of x and y gives the derivative most cheaply; asking for their common namespace is also
what refuses arrays of two libraries. Source of the less common ones: LeakyReLU,
Maas et al. 2013; ELU, Clevert et al. 2016; GELU, Hendrycks and Gimpel 2016; SiLU, Elfwing et al.
2018; Softsign, Bergstra et al. 2009; SELU, Klambauer et al. 2017; CELU, Barron 2017; Mish, Misra
2019; Hardswish, Howard et al. 2019.
"""

from __future__ import annotations

import math

from ..backend import Array, array_namespace
from .dispatch import choose

__all__ = [
    "celu",
    "celu_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_backward",
    "hardswish",
    "hardswish_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "mish",
    "mish_backward",
    "relu",
    "relu_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "softsign",
    "softsign_backward",
    "tanh",
    "tanh_backward",
]
from .erfc import clip_to_tail, normal_cdf
from .recordable import clip

_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_GELU_CUBIC = 0.044715  # Hendrycks and Gimpel 2016, section 2
# Mean 0 and variance 1 are a fixed point with these: Klambauer et al. 2017, section 2.
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def relu(x: Array) -> Array:
    """``max(x, 0)``; NaN stays NaN."""
    return choose("relu", relu_reference, x)(x)


def relu_reference(x: Array) -> Array:
    """The definition."""
    xp = array_namespace(x)
    return xp.where(x < 0, xp.zeros_like(x), x)


def relu_backward(dy: Array, x: Array, y: Array) -> Array:
    """``dy`` where y > 0, else 0: the subgradient at 0 is 0."""
    return choose("relu_backward", relu_backward_reference, dy, x, y)(dy, x, y)


def relu_backward_reference(dy: Array, x: Array, y: Array) -> Array:
    """The definition."""
    xp = array_namespace(dy, y)
    return xp.where(y > 0, dy, xp.zeros_like(dy))


def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """x where x > 0, else ``slope · x``."""
    return array_namespace(x).where(x > 0, x, float(slope) * x)


def leaky_relu_backward(dy: Array, x: Array, y: Array, slope: float = 0.01) -> Array:
    """``dy`` where x > 0, else ``slope · dy``."""
    return array_namespace(dy, x).where(x > 0, dy, float(slope) * dy)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else ``alpha · (eˣ − 1)``."""
    xp = array_namespace(x)
    # The branch not taken must not overflow: exp only ever sees x ≤ 0.
    negative = float(alpha) * xp.expm1(xp.where(x > 0, xp.zeros_like(x), x))
    return xp.where(x > 0, x, negative)


def elu_backward(dy: Array, x: Array, y: Array, alpha: float = 1.0) -> Array:
    """``dy`` where x > 0, else ``dy · alpha · eˣ = dy · (y + alpha)``."""
    return array_namespace(dy, x, y).where(x > 0, dy, dy * (y + float(alpha)))


def celu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else ``alpha · (e^(x/alpha) − 1)``: its slope at 0 is 1 for any alpha > 0."""
    return float(alpha) * elu(x / float(alpha))


def celu_backward(dy: Array, x: Array, y: Array, alpha: float = 1.0) -> Array:
    """``dy`` where x > 0, else ``dy · e^(x/alpha) = dy · (y/alpha + 1)``."""
    return array_namespace(dy, x, y).where(x > 0, dy, dy * (y / float(alpha) + 1.0))


def selu(x: Array) -> Array:
    """``λ x`` where x > 0, else ``λ α (eˣ − 1)``, with λ ≈ 1.0507 and α ≈ 1.6733."""
    return SELU_SCALE * elu(x, SELU_ALPHA)


def selu_backward(dy: Array, x: Array, y: Array) -> Array:
    """``λ dy`` where x > 0, else ``dy · (y + λ α)``."""
    xp = array_namespace(dy, x, y)
    return dy * xp.where(x > 0, xp.full_like(y, SELU_SCALE), y + SELU_SCALE * SELU_ALPHA)


def hardswish(x: Array) -> Array:
    """``x · min(max(x + 3, 0), 6) / 6``."""
    return x * (clip(x + 3.0, 0.0, 6.0) / 6.0)


def hardswish_backward(dy: Array, x: Array, y: Array) -> Array:
    """0 where x ≤ −3, dy where x ≥ 3, else ``dy · (x/3 + ½)``."""
    xp = array_namespace(dy, x, y)
    inner = clip(x, -3.0, 3.0) / 3.0 + 0.5
    return dy * xp.where(x >= 3.0, xp.ones_like(x), xp.where(x <= -3.0, xp.zeros_like(x), inner))


def gelu(x: Array) -> Array:
    """``x · Φ(x)``, Φ the standard normal distribution function."""
    return x * normal_cdf(x)


def gelu_backward(dy: Array, x: Array, y: Array) -> Array:
    """``dy · (Φ(x) + x φ(x))``, φ the standard normal density."""
    xp = array_namespace(dy, x)
    c = clip_to_tail(x)
    density = xp.exp(-0.5 * c * c) / math.sqrt(2.0 * math.pi)
    return dy * (normal_cdf(x) + x * density)


def gelu_tanh(x: Array) -> Array:
    """``x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))``, the usual approximation of :func:`gelu`."""
    xp = array_namespace(x)
    c = clip_to_tail(x)
    return 0.5 * x * (1.0 + xp.tanh(_SQRT_2_OVER_PI * (c + _GELU_CUBIC * c * c * c)))


def gelu_tanh_backward(dy: Array, x: Array, y: Array) -> Array:
    """The derivative of that expression, times dy."""
    xp = array_namespace(dy, x)
    c = clip_to_tail(x)
    t = xp.tanh(_SQRT_2_OVER_PI * (c + _GELU_CUBIC * c * c * c))
    inner = _SQRT_2_OVER_PI * (1.0 + 3.0 * _GELU_CUBIC * c * c)
    return dy * (0.5 * (1.0 + t) + 0.5 * c * (1.0 - t * t) * inner)


def sigmoid(x: Array) -> Array:
    """``1 / (1 + e⁻ˣ)``, without overflow and with full relative precision on both sides."""
    xp = array_namespace(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, xp.ones_like(e)) / (1.0 + e)


def sigmoid_backward(dy: Array, x: Array, y: Array) -> Array:
    """``dy · y (1 − y)``."""
    array_namespace(dy, y)
    return dy * y * (1.0 - y)


def silu(x: Array) -> Array:
    """``x · σ(x)``."""
    return x * sigmoid(x)


def silu_backward(dy: Array, x: Array, y: Array) -> Array:
    """``dy · (σ + y (1 − σ))``."""
    array_namespace(dy, x, y)
    s = sigmoid(x)
    return dy * (s + y * (1.0 - s))


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return array_namespace(x).tanh(x)


def tanh_backward(dy: Array, x: Array, y: Array) -> Array:
    """``dy · (1 − y²)``."""
    array_namespace(dy, y)
    return dy * (1.0 - y * y)


def softplus(x: Array) -> Array:
    """``ln(1 + eˣ)``, without overflow."""
    xp = array_namespace(x)
    return xp.log1p(xp.exp(-xp.abs(x))) + xp.where(x < 0, xp.zeros_like(x), x)


def softplus_backward(dy: Array, x: Array, y: Array) -> Array:
    """``dy · σ(x)``."""
    array_namespace(dy, x)
    return dy * sigmoid(x)


def softsign(x: Array) -> Array:
    """``x / (1 + |x|)``."""
    return x / (1.0 + array_namespace(x).abs(x))


def softsign_backward(dy: Array, x: Array, y: Array) -> Array:
    """``dy · (1 − |y|)²``."""
    left = 1.0 - array_namespace(dy, x, y).abs(y)
    return dy * left * left


def mish(x: Array) -> Array:
    """``x · tanh(ln(1 + eˣ))``."""
    return x * _mish_gate(x)[0]


def mish_backward(dy: Array, x: Array, y: Array) -> Array:
    """``dy · (t + x (1 − t²) σ(x))`` with ``t = tanh(ln(1 + eˣ))``."""
    array_namespace(dy, x, y)
    t, left = _mish_gate(x)
    return dy * (t + x * left * sigmoid(x))


def _mish_gate(x: Array) -> tuple[Array, Array]:
    """``t = tanh(ln(1 + eˣ))`` and ``1 − t²``, from ``tanh u = (e²ᵘ − 1) / (e²ᵘ + 1)``.

    With ``e = e^−|x|`` and ``n = (1 + eˣ)² − 1`` they are ``n/(n + 2)`` and ``4 (n + 1)/(n + 2)²``;
    where x > 0, all is multiplied by e², so that nothing overflows or cancels.
    """
    xp = array_namespace(x)
    e = xp.exp(-xp.abs(x))
    square = e * e
    unit = xp.where(x < 0, xp.ones_like(e), square)
    n = xp.where(x < 0, square + 2.0 * e, 1.0 + 2.0 * e)
    total = n + 2.0 * unit
    return n / total, 4.0 * (n + unit) * unit / (total * total)


FUSABLE = {
    "relu": (relu, relu_backward),
    "tanh": (tanh, tanh_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
}
"""Activations that :func:`xpmlp.ops.linear` can apply: their derivative follows from y alone."""
