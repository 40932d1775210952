"""Softmax and its logarithm, as functions of their own (the loss has a fused one)."""

from __future__ import annotations

from ..backend import Array, array_namespace
from .shapes import working_dtype


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
    wide = xp.astype(x, working_dtype(xp, x), copy=False)
    e = xp.exp(wide - xp.max(wide, axis=axis, keepdims=True))
    return xp.astype(e / xp.sum(e, axis=axis, keepdims=True), x.dtype, copy=False)


def softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """``dx = y ⊙ (dy − Σⱼ dyⱼ yⱼ)``: the Jacobian ``diag(y) − y yᵀ`` applied to dy."""
    xp = array_namespace(dy, y)
    total = xp.sum(dy * y, axis=axis, keepdims=True, dtype=working_dtype(xp, y))
    return xp.astype(y * (dy - total), y.dtype, copy=False)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """``yᵢ = xᵢ − max x − ln Σⱼ exp(xⱼ − max x)`` along one axis."""
    xp = array_namespace(x)
    wide = xp.astype(x, working_dtype(xp, x), copy=False)
    shifted = wide - xp.max(wide, axis=axis, keepdims=True)
    y = shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))
    return xp.astype(y, x.dtype, copy=False)


def log_softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """``dx = dy − exp(y) Σⱼ dyⱼ``."""
    xp = array_namespace(dy, y)
    total = xp.sum(dy, axis=axis, keepdims=True, dtype=working_dtype(xp, y))
    return xp.astype(dy - xp.exp(y) * total, y.dtype, copy=False)
