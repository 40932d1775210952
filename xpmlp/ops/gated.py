"""Half of the features as gates of the other half, and a rectifier with a learned slope."""

from __future__ import annotations

from ..backend import Array, array_namespace
from ..errors import ShapeError
from .activations import sigmoid
from .shapes import check_floating, per_feature, sum_to_shape


def halves(where: str, x: Array) -> tuple[Array, Array]:
    """The first and the second half of the features of x (…, 2 M).

    Raises
    ------
    ShapeError
        If their number is odd, or there is no axis.
    """
    check_floating(where, "x", x)
    if x.ndim == 0 or x.shape[-1] % 2:
        raise ShapeError(
            f"`{where}`: expected x of shape (…, 2 M), an even number of features, got "
            f"{tuple(x.shape)}"
        )
    middle = x.shape[-1] // 2
    return x[..., :middle], x[..., middle:]


def glu(x: Array) -> Array:
    """``a ⊙ σ(b)`` of x = [a, b] (…, 2 M): (…, M). Source: Dauphin et al. 2017."""
    a, b = halves("glu", x)
    return a * sigmoid(b)


def glu_backward(dy: Array, x: Array) -> Array:
    """``[dy ⊙ σ(b), dy ⊙ a ⊙ σ(b) (1 − σ(b))]``, (…, 2 M)."""
    a, b = halves("glu_backward", x)
    gate = sigmoid(b)
    passed = dy * gate
    return array_namespace(dy, x).concat([passed, passed * a * (1.0 - gate)], axis=-1)


def swiglu(x: Array) -> Array:
    """``a σ(a) ⊙ b`` of x = [a, b] (…, 2 M): (…, M). Source: Shazeer 2020."""
    a, b = halves("swiglu", x)
    return a * sigmoid(a) * b


def swiglu_backward(dy: Array, x: Array) -> Array:
    """``[dy ⊙ b σ(a) (1 + a (1 − σ(a))), dy ⊙ a σ(a)]``, (…, 2 M)."""
    a, b = halves("swiglu_backward", x)
    gate = sigmoid(a)
    da = dy * b * gate * (1.0 + a * (1.0 - gate))
    return array_namespace(dy, x).concat([da, dy * a * gate], axis=-1)


def prelu(x: Array, slope: Array) -> Array:
    """``x`` where x > 0, else ``slope x``. Source: He et al. 2015.

    Parameters
    ----------
    x : array, shape (…, N, D)
    slope : array, shape (D,) or (P, D), or with 1 in place of D
    """
    check_floating("prelu", "x", x)
    if slope.shape[-1] not in (1, x.shape[-1]):
        raise ShapeError(
            f"`prelu`: expected x of shape (…, {slope.shape[-1]}), got {tuple(x.shape)}"
        )
    xp = array_namespace(x, slope)
    return xp.where(x > 0, x, per_feature(xp, slope) * x)


def prelu_backward(dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
    """dx, ``dy`` where x > 0, else ``slope dy``; and dslope, ``Σ dy x`` where x ≤ 0.

    The slope's is summed over every axis that it lacks, or has 1 of.
    """
    xp = array_namespace(dy, x, slope)
    own, positive = per_feature(xp, slope), x > 0
    below = xp.where(positive, xp.zeros_like(x), dy * x)
    dslope = xp.reshape(sum_to_shape(xp, below, tuple(own.shape)), slope.shape)
    return xp.where(positive, dy, own * dy), dslope
