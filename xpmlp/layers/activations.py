"""Elementwise activation layers, over :mod:`xpmlp.ops.activations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from .. import ops
from ..backend import Array, array_namespace
from ..ops.shapes import check_choice, check_same_shape
from ..options import Number
from .base import Layer

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "Hardswish",
    "LeakyReLU",
    "Log",
    "Mish",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
]


class Activation(Layer):
    """An elementwise function; a subclass names it by its ``op`` in :mod:`xpmlp.ops`.

    One that is no op of the project's gives ``function`` and ``function_backward`` instead
    (``dy, x, y → dx``).
    """

    op: str = ""
    function: ClassVar[Callable[..., Array]]
    function_backward: ClassVar[Callable[..., Array]]

    def forward(self, x: Array, training: bool = False) -> Array:
        """f(x), in x's shape."""
        function = getattr(ops, self.op) if self.op else type(self).function
        y = function(x, **self.options())
        self._saved = x, y
        return y

    def backward(self, dy: Array) -> Array:
        """``dy ⊙ f′(x)``."""
        x, y = self._recall()
        check_same_shape(f"{type(self).__name__}.backward", "dy", dy, x.shape)
        own = type(self).function_backward if not self.op else getattr(ops, f"{self.op}_backward")
        return own(dy, x, y, **self.options())

    def options(self) -> dict[str, float]:
        """The function's constants, by name."""
        return {}

    def describe(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.options().items())


class ReLU(Activation):
    """``max(x, 0)``; its subgradient at 0 is 0."""

    op = "relu"


class LeakyReLU(Activation):
    """x where x > 0, else ``slope · x`` (Maas et al. 2013)."""

    op = "leaky_relu"
    slope: Any = Number()

    def __init__(self, slope: float = 0.01):
        super().__init__()
        self.slope = slope

    def options(self) -> dict[str, float]:
        return {"slope": self.slope}


class ELU(Activation):
    """x where x > 0, else ``alpha (eˣ − 1)`` (Clevert et al. 2016)."""

    op = "elu"
    alpha: Any = Number()

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha

    def options(self) -> dict[str, float]:
        return {"alpha": self.alpha}


class GELU(Activation):
    """``x Φ(x)``, exactly or by the usual tanh expression (Hendrycks and Gimpel 2016).

    Parameters
    ----------
    approximate : {"none", "tanh"}
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none"):
        super().__init__()
        check_choice("GELU", "approximate", approximate, ("none", "tanh"))
        self.approximate = approximate

    @property
    def op(self) -> str:
        """Which of the two."""
        return "gelu" if self.approximate == "none" else "gelu_tanh"

    def describe(self) -> str:
        return "" if self.approximate == "none" else "approximate='tanh'"


class SiLU(Activation):
    """``x σ(x)``, also called swish (Elfwing et al. 2018)."""

    op = "silu"


class Tanh(Activation):
    """Hyperbolic tangent."""

    op = "tanh"


class Sigmoid(Activation):
    """``1 / (1 + e⁻ˣ)``."""

    op = "sigmoid"


class Softplus(Activation):
    """``ln(1 + eˣ)``."""

    op = "softplus"


class Softsign(Activation):
    """``x / (1 + |x|)``: bounded like tanh, but slower towards its ends (Bergstra et al. 2009)."""

    op = "softsign"


class SELU(Activation):
    """``λ x`` where x > 0, else ``λ α (eˣ − 1)``: keeps mean 0 and variance 1.

    For weights that start with ``init="lecun_normal"``; λ ≈ 1.0507, α ≈ 1.6733 (Klambauer et al.
    2017).
    """

    op = "selu"


class CELU(Activation):
    """x where x > 0, else ``alpha (e^(x/alpha) − 1)``, of slope 1 at 0 (Barron 2017)."""

    op = "celu"
    alpha: Any = Number("(0, inf)")

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha

    def options(self) -> dict[str, float]:
        return {"alpha": self.alpha}


class Mish(Activation):
    """``x tanh(ln(1 + eˣ))`` (Misra 2019)."""

    op = "mish"


class Hardswish(Activation):
    """``x min(max(x + 3, 0), 6) / 6``: like SiLU, without an exponential (Howard et al. 2019)."""

    op = "hardswish"


ACTIVATIONS: dict[str, type[Activation]] = {kind().op: kind for kind in Activation.__subclasses__()}
"""The activations by name, as networks, files and command lines have them."""


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
