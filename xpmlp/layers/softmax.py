"""Softmax layers with their own Jacobians; training is better served by the fused loss."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..backend import Array
from ..options import Number
from .base import Layer


class Softmax(Layer):
    """``yᵢ = exp(xᵢ) / Σⱼ exp(xⱼ)`` along one axis; ``dx = y ⊙ (dy − Σⱼ dyⱼ yⱼ)``.

    Parameters
    ----------
    axis : int
        The axis of the classes: −1 for rows of samples, −2 for samples as columns.
    """

    axis: Any = Number(whole=True)

    def __init__(self, axis: int = -1):
        super().__init__()
        self.axis = axis

    def describe(self) -> str:
        return "" if self.axis == -1 else f"axis={self.axis}"

    def forward(self, x: Array, training: bool = False) -> Array:
        """Probabilities, in x's shape."""
        self._saved = y = ops.softmax(x, self.axis)
        return y

    def backward(self, dy: Array) -> Array:
        """The Jacobian applied to dy, in x's shape."""
        return ops.softmax_backward(dy, self._recall(), self.axis)


class LogSoftmax(Layer):
    """``yᵢ = xᵢ − ln Σⱼ exp(xⱼ)`` along one axis; ``dx = dy − exp(y) Σⱼ dyⱼ``.

    Parameters
    ----------
    axis : int
    """

    axis: Any = Number(whole=True)

    def __init__(self, axis: int = -1):
        super().__init__()
        self.axis = axis

    def describe(self) -> str:
        return "" if self.axis == -1 else f"axis={self.axis}"

    def forward(self, x: Array, training: bool = False) -> Array:
        """Log-probabilities, in x's shape."""
        self._saved = y = ops.log_softmax(x, self.axis)
        return y

    def backward(self, dy: Array) -> Array:
        """The Jacobian applied to dy, in x's shape."""
        return ops.log_softmax_backward(dy, self._recall(), self.axis)
