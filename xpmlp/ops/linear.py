"""The fully connected map ``y = f(x W + b)`` and its gradients."""

from __future__ import annotations

import math
from typing import Any

from ..backend import Array, array_namespace
from ..choices import FusableName
from ..errors import ShapeError
from .activations import FUSABLE
from .dispatch import choose
from .matmul import matmul
from .shapes import (
    check_choice,
    check_same_shape,
    leading_shape,
    per_feature,
    sum_to_shape,
    sum_wide,
    transpose,
)


def linear(
    x: Array, W: Array, b: Array | None = None, activation: FusableName | None = None
) -> Array:
    """``y = f(x @ W + b)``.

    Parameters
    ----------
    x : array, shape (…, N, D)
        With population weights, either (P, N, D), one batch a member, or (N, D), shared by all.
    W : array, shape (D, M) or (P, D, M)
    b : array, shape (M,) or (P, M), optional
    activation : {None, "relu", "tanh", "sigmoid"}
        f; those whose derivative can be had from y alone.

    Returns
    -------
    array, shape (…, N, M)

    Raises
    ------
    ShapeError
        If the shapes do not fit together.
    """
    _check_operands("linear", x, W)
    if b is not None:
        check_same_shape("linear", "b", b, (*W.shape[:-2], W.shape[-1]))
    check_choice("linear", "activation", activation, (None, *FUSABLE))
    leading_shape("linear", x, W)
    return choose("linear", reference, x, W, b, activation=activation)(x, W, b, activation)


def reference(x: Array, W: Array, b: Array | None, activation: FusableName | None) -> Array:
    """The definition."""
    xp = array_namespace(x, W) if b is None else array_namespace(x, W, b)
    if x.ndim == 1:
        return reference(x[None, :], W, b, activation)[..., 0, :]
    y = matmul(x, W)
    if b is not None:
        y = y + per_feature(xp, b)
    return y if activation is None else FUSABLE[activation][0](y)


def linear_backward(
    dy: Array,
    x: Array,
    W: Array,
    y: Array | None = None,
    activation: FusableName | None = None,
    *,
    input_grad: bool = True,
) -> tuple[Array | None, Array, Array]:
    """Gradients of :func:`linear`: with ``dz = dy ⊙ f′``,
    ``dx = dz Wᵀ``, ``dW = xᵀ dz``, ``db = Σₙ dz``.

    Parameters
    ----------
    dy : array, shape (…, N, M)
    x : array, shape (…, N, D)
    W : array, shape (D, M) or (P, D, M)
    y : array, shape (…, N, M)
        What :func:`linear` returned; only needed with an activation.
    activation : {None, "relu", "tanh", "sigmoid"}
    input_grad : bool
        Whether dx is wanted. A network's first layer saves a product without it.

    Returns
    -------
    dx : array of x's shape, or None
    dW : array of W's shape
        Summed over every axis along which W was shared.
    db : array, shape (M,) or (P, M)

    Raises
    ------
    ShapeError
        If x and W do not fit together, or dy, or y, has another shape than :func:`linear` gives
        for them.
    """
    where = "linear_backward"
    _check_operands(where, x, W)
    expected = (*leading_shape(where, x, W), *x.shape[-2:-1], W.shape[-1])
    check_same_shape(where, "dy", dy, expected)
    if activation is not None:
        check_choice(where, "activation", activation, tuple(FUSABLE))
        if y is None:
            raise ShapeError(
                f"`{where}`: expected y of shape {expected} for {activation}, got None"
            )
        check_same_shape(where, "y", y, expected)
    else:
        y = None
    options: dict[str, Any] = {"activation": activation, "input_grad": input_grad}
    return choose(where, reference_backward, dy, x, W, y, **options)(dy, x, W, y, **options)


def _check_operands(where: str, x: Array, W: Array) -> None:
    if x.ndim < 1 or W.ndim < 2 or x.shape[-1] != W.shape[-2]:
        raise ShapeError(
            f"`{where}`: expected x of shape (…, {W.shape[-2] if W.ndim > 1 else 'D'}) for W of "
            f"shape {tuple(W.shape)}, got {tuple(x.shape)}"
        )


def reference_backward(
    dy: Array, x: Array, W: Array, y: Array | None, activation: FusableName | None, input_grad: bool
) -> tuple[Array | None, Array, Array]:
    """The definition."""
    dz = dy if activation is None else FUSABLE[activation][1](dy, y, y)
    xp = array_namespace(dz, x, W)
    if x.ndim == 1:
        rows = dz[..., None, :], x[None, :], W, None, None
        dx, dW, db = reference_backward(*rows, input_grad)
        return (None if dx is None else dx[0, :]), dW, db
    if W.ndim == 2:
        # Every leading axis is only more rows: two plain products.
        count = math.prod(x.shape[:-1])
        rows = xp.reshape(dz, (count, dz.shape[-1]))
        dW = matmul(transpose(xp, xp.reshape(x, (count, x.shape[-1]))), rows)
        db = sum_wide(xp, rows, 0)
        dx = xp.reshape(matmul(rows, transpose(xp, W)), x.shape) if input_grad else None
        return dx, dW, db
    dW = sum_to_shape(xp, matmul(transpose(xp, x), dz), tuple(W.shape))
    db = sum_to_shape(xp, sum_wide(xp, dz, -2), (*W.shape[:-2], W.shape[-1]))
    dx = None
    if input_grad:
        dx = sum_to_shape(xp, matmul(dz, transpose(xp, W)), tuple(x.shape))
    return dx, dW, db
