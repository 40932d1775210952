"""The fully connected map on CuPy arrays: cuBLAS's products, one kernel for what follows them."""

from __future__ import annotations

import math
from typing import Any

from . import bias_activation
from .matmul import matmul


def linear(x: Any, W: Any, b: Any, activation: str | None, drop: tuple | None = None) -> Any:
    """The kernel, with the signature and the results of the op's reference.

    Parameters
    ----------
    drop : (rates, generator, step), optional
        Dropout of what comes out, in the same pass.
    """
    if x.ndim == 1:
        return linear(x[None, :], W, b, activation, drop)[..., 0, :]
    y = _rows_product(x, W)
    if b is None and activation is None and drop is None:
        return y
    return bias_activation.forward(y, b, activation, drop, in_place=True)


def linear_backward(
    dy: Any, x: Any, W: Any, y: Any, activation: str | None, input_grad: bool
) -> tuple[Any, Any, Any]:
    """The kernel, with the signature and the results of the op's reference."""
    return backward(dy, x, W, y, activation, None, (*W.shape[:-2], W.shape[-1]), input_grad)


def backward(
    dy: Any,
    x: Any,
    W: Any,
    y: Any,
    activation: str | None,
    drop: tuple | None,
    bias_shape: tuple[int, ...] | None,
    input_grad: bool,
) -> tuple[Any, Any, Any]:
    """dx, dW and db of :func:`linear`; db is None if ``bias_shape`` is.

    x may lack the population axis that W has: then all members share it. It has no further leading
    axes that W lacks, unless W has none at all.
    """
    if x.ndim == 1:
        rows = None if y is None else y[..., None, :]
        dx, dW, db = backward(
            dy[..., None, :], x[None, :], W, rows, activation, drop, bias_shape, input_grad
        )
        return (None if dx is None else dx[0, :]), dW, db
    if activation is None and drop is None and bias_shape is None:
        dz, db = dy, None
    else:
        y = dy if y is None else y
        dz, db = bias_activation.backward(dy, y, activation, drop, want_bias=bias_shape)
    dW = weight_gradient(x, dz, W)
    return (input_gradient(dz, x, W) if input_grad else None), dW, db


def weight_gradient(x: Any, dz: Any, W: Any) -> Any:
    """dW, from the gradient dz of the product."""
    if W.ndim == 2:  # every leading axis is only more rows
        return matmul(x.reshape(-1, x.shape[-1]).T, dz.reshape(-1, dz.shape[-1]))
    return matmul(x.swapaxes(-1, -2), dz)


def input_gradient(dz: Any, x: Any, W: Any) -> Any:
    """dx, of x's shape."""
    if W.ndim == 2:
        return matmul(dz.reshape(-1, dz.shape[-1]), W.T).reshape(x.shape)
    dx = matmul(dz, W.swapaxes(-1, -2))
    return dx.sum(axis=0) if x.ndim == 2 else dx


def _rows_product(x: Any, W: Any) -> Any:
    if W.ndim == 2 and x.ndim > 2:
        rows = matmul(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), W)
        return rows.reshape(*x.shape[:-1], W.shape[-1])
    return matmul(x, W)
