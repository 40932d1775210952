"""Layers for populations whose members differ in width: narrow members, padded to the widest.

A unit that a member does not have is a unit whose weights in and out are 0. As long as it gives 0,
its gradients are 0 too, and every optimizer leaves it where it is. These layers see to the places
where a padded unit would be felt: activations with f(0) ≠ 0, and means over a row's features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..backend import Array, array_namespace, asarray
from ..choices import FloatName
from ..errors import ConfigError
from ..ops.shapes import per_feature, sum_wide, working_dtype
from .base import Layer
from .normalization import LayerNorm, RMSNorm


class Mask(Layer):
    """``y = x ⊙ mask``: the first ``widths[p]`` features of member p pass, all others are 0.

    Parameters
    ----------
    features : int
        D.
    widths : sequence of P ints
        How many features each member has, 1 … D.
    dtype : str

    Notes
    -----
    x (P, N, D). Holds no parameters.
    """

    def __init__(self, features: int, widths: Sequence[int], *, dtype: FloatName = "float32"):
        super().__init__()
        self.widths = check_widths("Mask", features, widths)
        self.population = len(self.widths)
        self.mask = asarray(_mask(features, self.widths), dtype)

    def describe(self) -> str:
        return f"widths={list(self.widths)}"

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (P, N, D) to the same shape."""
        self._saved = True
        return x * self.mask

    def backward(self, dy: Array) -> Array:
        """``dx = dy ⊙ mask``."""
        self._recall()
        return dy * self.mask


class MaskedLayerNorm(LayerNorm):
    """:class:`LayerNorm` over the first ``widths[p]`` features of member p; the others give 0.

    Parameters
    ----------
    features : int
        D.
    widths : sequence of P ints
        How many features each member has, 1 … D.
    eps : float
    dtype : str

    Notes
    -----
    x (P, N, D), 0 at the features that a member does not have.
    """

    def __init__(
        self,
        features: int,
        widths: Sequence[int],
        *,
        eps: float = 1e-5,
        dtype: FloatName = "float32",
    ):
        self.widths = check_widths("MaskedLayerNorm", features, widths)
        super().__init__(features, eps=eps, population=len(self.widths), dtype=dtype)
        self.mask = asarray(_mask(features, self.widths), dtype)
        self.counts = asarray(_counts(self.widths), "float64" if dtype == "float64" else "float32")

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (P, N, D) to the same shape."""
        self._check(x)
        xp = array_namespace(x, self.gamma)
        wide = xp.astype(x, working_dtype(xp, x), copy=False)
        mean = xp.sum(wide, axis=-1, keepdims=True) / self.counts
        centred = (wide - mean) * self.mask
        var = xp.sum(centred * centred, axis=-1, keepdims=True) / self.counts
        inv_std = 1.0 / xp.sqrt(var + self.eps)
        x_hat = centred * inv_std
        self._saved = x_hat, inv_std
        y = x_hat * per_feature(xp, self.gamma) + per_feature(xp, self.beta)
        return xp.astype(y, x.dtype, copy=False)

    def backward(self, dy: Array) -> Array:
        """dx, in x's shape; 0 at the features that a member does not have."""
        x_hat, inv_std = self._recall()
        xp = array_namespace(dy, x_hat)
        dy = dy * self.mask
        g = dy * per_feature(xp, self.gamma)
        mean = xp.sum(g, axis=-1, keepdims=True) / self.counts
        along = xp.sum(g * x_hat, axis=-1, keepdims=True) / self.counts
        dx = (g - mean - x_hat * along) * inv_std * self.mask
        dtype = self.gamma.dtype
        self.grads = {
            "gamma": xp.astype(sum_wide(xp, dy * x_hat, -2), dtype, copy=False),
            "beta": xp.astype(sum_wide(xp, dy, -2), dtype, copy=False),
        }
        return xp.astype(dx, dy.dtype, copy=False)


class MaskedRMSNorm(RMSNorm):
    """:class:`RMSNorm` over the first ``widths[p]`` features of member p.

    Parameters
    ----------
    features : int
        D.
    widths : sequence of P ints
        How many features each member has, 1 … D.
    eps : float
    dtype : str

    Notes
    -----
    x (P, N, D), 0 at the features that a member does not have.
    """

    def __init__(
        self,
        features: int,
        widths: Sequence[int],
        *,
        eps: float = 1e-6,
        dtype: FloatName = "float32",
    ):
        self.widths = check_widths("MaskedRMSNorm", features, widths)
        super().__init__(features, eps=eps, population=len(self.widths), dtype=dtype)
        self.mask = asarray(_mask(features, self.widths), dtype)
        self.counts = asarray(_counts(self.widths), "float64" if dtype == "float64" else "float32")

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (P, N, D) to the same shape."""
        self._check(x)
        xp = array_namespace(x, self.gamma)
        wide = xp.astype(x, working_dtype(xp, x), copy=False)
        squares = xp.sum(wide * wide, axis=-1, keepdims=True) / self.counts
        inv_rms = 1.0 / xp.sqrt(squares + self.eps)
        x_hat = wide * inv_rms
        self._saved = x_hat, inv_rms
        return xp.astype(x_hat * per_feature(xp, self.gamma), x.dtype, copy=False)

    def backward(self, dy: Array) -> Array:
        """dx, in x's shape; 0 at the features that a member does not have."""
        x_hat, inv_rms = self._recall()
        xp = array_namespace(dy, x_hat)
        dy = dy * self.mask
        g = dy * per_feature(xp, self.gamma)
        along = xp.sum(g * x_hat, axis=-1, keepdims=True) / self.counts
        dx = (g - x_hat * along) * inv_rms
        dgamma = sum_wide(xp, dy * x_hat, -2)
        self.grads = {"gamma": xp.astype(dgamma, self.gamma.dtype, copy=False)}
        return xp.astype(dx, dy.dtype, copy=False)


def check_widths(where: str, features: int, widths: Sequence[int]) -> tuple[int, ...]:
    """The widths as a tuple of ints in 1 … D."""
    numbers = tuple(int(width) for width in widths)
    whole = all(number == width for number, width in zip(numbers, widths, strict=True))
    if not whole or not numbers or min(numbers) < 1 or max(numbers) > features:
        raise ConfigError(
            f"`{where}`: expected one width in 1…{features} for each member, got {list(widths)}"
        )
    return numbers


def _mask(features: int, widths: tuple[int, ...]) -> np.ndarray:
    """(P, 1, D): 1 at the features that a member has, else 0."""
    return (np.arange(features) < np.asarray(widths)[:, None, None]).astype(np.float64)


def _counts(widths: tuple[int, ...]) -> np.ndarray:
    """(P, 1, 1): how many features a member has."""
    return np.asarray(widths, dtype=np.float64)[:, None, None]
