"""Penalties on weights, added to the loss: L1, squared L2, and the L2 norm.

``penalty.forward(params, names)`` gives the value and ``penalty.backward(params, names)`` the
gradients to add. ``names`` are the parameters it applies to: a model's ``weight_params``, which
leaves biases and scales out, unless the penalty was made with ``biases=True``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .backend import Array, array_namespace, asarray_like
from .errors import ShapeError
from .ops.shapes import per_member, working_dtype
from .options import Number


class Penalty:
    """Base of all penalties.

    Parameters
    ----------
    strength : float or P floats
        λ ≥ 0, for all or for each member of a population.
    biases : bool
        Whether biases and scales are penalised as well.
    """

    strength = Number("[0, inf)", each_member=True)

    def __init__(self, strength: float | Sequence[float] | np.ndarray, *, biases: bool = False):
        self.strength: Any = strength  # a float, or an array of float64
        self.biases = biases

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.strength})"

    def forward(
        self, params: Mapping[str, Array], names: Iterable[str], population: int | None = None
    ) -> Any:
        """``λ Σ r(W)`` over the parameters named, of shape () or (P,)."""
        total: Any = 0.0
        for name in self._names(params, names):
            W = params[name]
            xp, wide = array_namespace(W), _widened(W)
            value = self._value(wide, _axes(W, population))
            total = total + xp.astype(self._strength(wide, population) * value, W.dtype, copy=False)
        return total

    def backward(
        self, params: Mapping[str, Array], names: Iterable[str], population: int | None = None
    ) -> dict[str, Array]:
        """``λ dr/dW`` for each parameter named, of its shape."""
        gradients = {}
        for name in self._names(params, names):
            W = params[name]
            xp, wide = array_namespace(W), _widened(W)
            gradient = self._gradient(wide, _axes(W, population))
            gradient = per_member(self._strength(wide, population), W.ndim) * gradient
            gradients[name] = xp.astype(gradient, W.dtype, copy=False)
        return gradients

    def _strength(self, W: Array, population: int | None) -> Any:
        """λ: a number, or an array of shape (P,) of W's library, dtype and device."""
        strength = self.strength
        if not isinstance(strength, np.ndarray):
            return strength
        if strength.size != population:
            raise ShapeError(
                f"`{type(self).__name__}`: expected {population or 'one'} strengths, one for each "
                f"member, got {strength.size}"
            )
        return asarray_like(strength, W)

    def _names(self, params: Mapping[str, Array], names: Iterable[str]) -> Iterable[str]:
        return params if self.biases else names

    def _value(self, W: Array, axes: tuple[int, ...]) -> Array:
        raise NotImplementedError

    def _gradient(self, W: Array, axes: tuple[int, ...]) -> Array:
        raise NotImplementedError


class L1(Penalty):
    """``λ Σ |W|``; gradient ``λ sign(W)``, 0 at 0."""

    def _value(self, W: Array, axes: tuple[int, ...]) -> Array:
        xp = array_namespace(W)
        return xp.sum(xp.abs(W), axis=axes)

    def _gradient(self, W: Array, axes: tuple[int, ...]) -> Array:
        return array_namespace(W).sign(W)


class L2(Penalty):
    """``λ/2 Σ W²``; gradient ``λ W``. Texts that write ``λ Σ W²`` mean twice this λ."""

    def _value(self, W: Array, axes: tuple[int, ...]) -> Array:
        return 0.5 * array_namespace(W).sum(W * W, axis=axes)

    def _gradient(self, W: Array, axes: tuple[int, ...]) -> Array:
        return W


class L2Norm(Penalty):
    """``λ Σ ‖W‖``, the norm itself, not its square; gradient ``λ W/‖W‖``, 0 at W = 0."""

    def _value(self, W: Array, axes: tuple[int, ...]) -> Array:
        xp = array_namespace(W)
        return xp.sqrt(xp.sum(W * W, axis=axes))

    def _gradient(self, W: Array, axes: tuple[int, ...]) -> Array:
        xp = array_namespace(W)
        norm = xp.sqrt(xp.sum(W * W, axis=axes, keepdims=True))
        return W / xp.where(norm > 0, norm, xp.ones_like(norm))


def _widened(W: Array) -> Array:
    """W in the dtype to add up in."""
    xp = array_namespace(W)
    return xp.astype(W, working_dtype(xp, W), copy=False)


def _axes(W: Array, population: int | None) -> tuple[int, ...]:
    return tuple(range(0 if population is None else 1, W.ndim))
