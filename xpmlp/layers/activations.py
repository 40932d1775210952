"""Elementwise activation layers, over :mod:`xpmlp.ops.activations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from .. import ops
from ..backend import Array, array_namespace
from ..ops.shapes import check_choice, check_same_shape
from ..options import Number
from .base import Layer


class Activation(Layer):
    """An elementwise function; a subclass names it and its backward (``dy, x, y → dx``)."""

    function: ClassVar[Callable[..., Array]]
    function_backward: ClassVar[Callable[..., Array]]

    def forward(self, x: Array, training: bool = False) -> Array:
        """f(x), in x's shape."""
        y = type(self).function(x, **self.options())
        self._saved = x, y
        return y

    def backward(self, dy: Array) -> Array:
        """``dy ⊙ f′(x)``."""
        x, y = self._recall()
        check_same_shape(f"{type(self).__name__}.backward", "dy", dy, x.shape)
        return type(self).function_backward(dy, x, y, **self.options())

    def options(self) -> dict[str, float]:
        """The function's constants, by name."""
        return {}

    def describe(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.options().items())


class ReLU(Activation):
    """``max(x, 0)``; its subgradient at 0 is 0."""

    function = staticmethod(ops.relu)
    function_backward = staticmethod(ops.relu_backward)


class LeakyReLU(Activation):
    """x where x > 0, else ``slope · x`` (Maas et al. 2013)."""

    function = staticmethod(ops.leaky_relu)
    function_backward = staticmethod(ops.leaky_relu_backward)

    slope: Any = Number()

    def __init__(self, slope: float = 0.01):
        super().__init__()
        self.slope = slope

    def options(self) -> dict[str, float]:
        return {"slope": self.slope}


class ELU(Activation):
    """x where x > 0, else ``alpha (eˣ − 1)`` (Clevert et al. 2016)."""

    function = staticmethod(ops.elu)
    function_backward = staticmethod(ops.elu_backward)

    alpha: Any = Number()

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha

    def options(self) -> dict[str, float]:
        return {"alpha": self.alpha}


class GELU(Layer):
    """``x Φ(x)``, exactly or by the usual tanh expression (Hendrycks and Gimpel 2016).

    Parameters
    ----------
    approximate : {"none", "tanh"}
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        check_choice("GELU", "approximate", approximate, ("none", "tanh"))
        self.approximate = approximate

    def describe(self) -> str:
        return "" if self.approximate == "none" else "approximate='tanh'"

    def forward(self, x: Array, training: bool = False) -> Array:
        """f(x), in x's shape."""
        y = ops.gelu(x) if self.approximate == "none" else ops.gelu_tanh(x)
        self._saved = x, y
        return y

    def backward(self, dy: Array) -> Array:
        """``dy ⊙ f′(x)``."""
        x, y = self._recall()
        backward = ops.gelu_backward if self.approximate == "none" else ops.gelu_tanh_backward
        return backward(dy, x, y)


class SiLU(Activation):
    """``x σ(x)``, also called swish (Elfwing et al. 2018)."""

    function = staticmethod(ops.silu)
    function_backward = staticmethod(ops.silu_backward)


class Tanh(Activation):
    """Hyperbolic tangent."""

    function = staticmethod(ops.tanh)
    function_backward = staticmethod(ops.tanh_backward)


class Sigmoid(Activation):
    """``1 / (1 + e⁻ˣ)``."""

    function = staticmethod(ops.sigmoid)
    function_backward = staticmethod(ops.sigmoid_backward)


class Softplus(Activation):
    """``ln(1 + eˣ)``."""

    function = staticmethod(ops.softplus)
    function_backward = staticmethod(ops.softplus_backward)


class Log(Layer):
    """``ln(x + eps)``; the small eps keeps the logarithm of a vanished probability finite.

    Parameters
    ----------
    eps : float
        0 for the plain logarithm.
    """

    eps: Any = Number("[0, inf)")

    def __init__(self, eps: float = 0.0):
        super().__init__()
        self.eps = eps

    def describe(self) -> str:
        return f"eps={self.eps}" if self.eps else ""

    def forward(self, x: Array, training: bool = False) -> Array:
        """ln(x + eps), in x's shape."""
        self._saved = x
        return array_namespace(x).log(x + self.eps)

    def backward(self, dy: Array) -> Array:
        """``dy / (x + eps)``."""
        return dy / (self._recall() + self.eps)
