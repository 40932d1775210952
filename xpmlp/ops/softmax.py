"""Softmax and its logarithm, as functions of their own (the loss has a fused one)."""

from __future__ import annotations

from ..backend import Array, array_namespace


def softmax(x: Array, axis: int = -1) -> Array:
    """``yᵢ = exp(xᵢ − max x) / Σⱼ exp(xⱼ − max x)`` along one axis.

    Parameters
    ----------
    x : array, any shape
    axis : int

    Returns
    -------
    array of x's shape, positive, summing to 1 along the axis
    """
    xp = array_namespace(x)
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


def softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """``dx = y ⊙ (dy − Σⱼ dyⱼ yⱼ)``: the Jacobian ``diag(y) − y yᵀ`` applied to dy."""
    xp = array_namespace(dy, y)
    return y * (dy - xp.sum(dy * y, axis=axis, keepdims=True))


def log_softmax(x: Array, axis: int = -1) -> Array:
    """``yᵢ = xᵢ − max x − ln Σⱼ exp(xⱼ − max x)`` along one axis."""
    xp = array_namespace(x)
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def log_softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """``dx = dy − exp(y) Σⱼ dyⱼ``."""
    xp = array_namespace(dy, y)
    return dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True)
