"""ReLU and its backward for NumPy arrays, each one vectorized pass."""

from __future__ import annotations

import numpy as np

from .sources import compiled


def relu(x):
    """The kernel, with the signature and the results of the op."""
    y = np.empty(x.shape, x.dtype)
    _relu(x.reshape(-1), y.reshape(-1))
    return y


def relu_backward(dy, x, y):
    """The kernel, with the signature and the results of the op."""
    dx = np.empty(dy.shape, dy.dtype)
    _relu_backward(dy.reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx


@compiled(nogil=True)
def _relu(x, y):
    zero = y.dtype.type(0)
    for i in range(np.uintp(x.size)):
        y[i] = zero if x[i] < zero else x[i]


@compiled(nogil=True)
def _relu_backward(dy, y, dx):
    zero = dx.dtype.type(0)
    for i in range(np.uintp(dy.size)):
        dx[i] = dy[i] if y[i] > zero else zero
