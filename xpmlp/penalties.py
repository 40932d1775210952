"""Penalties on weights, added to the loss: L1, squared L2, and the L2 norm.

``penalty.forward(params, names)`` gives the value and ``penalty.backward(params, names)`` the
gradients to add. ``names`` are the parameters it applies to: a model's ``weight_params``, which
leaves biases and scales out, unless the penalty was made with ``biases=True``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .backend import Array, array_namespace
from .ops.shapes import per_member


class Penalty:
    """Base of all penalties.

    Parameters
    ----------
    strength : float, or array of shape (P,)
        λ ≥ 0; an array gives each member of a population its own.
    biases : bool
        Whether biases and scales are penalised as well.
    """

    def __init__(self, strength: Any, *, biases: bool = False):
        self.strength = strength
        self.biases = biases

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.strength})"

    def forward(
        self, params: Mapping[str, Array], names: Iterable[str], population: int | None = None
    ) -> Any:
        """``λ Σ r(W)`` over the parameters named, of shape () or (P,)."""
        total: Any = 0.0
        for name in self._names(params, names):
            total = total + self._value(params[name], _axes(params[name], population))
        return self.strength * total

    def backward(
        self, params: Mapping[str, Array], names: Iterable[str], population: int | None = None
    ) -> dict[str, Array]:
        """``λ dr/dW`` for each parameter named, of its shape."""
        return {
            name: per_member(self.strength, params[name].ndim)
            * self._gradient(params[name], _axes(params[name], population))
            for name in self._names(params, names)
        }

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


def _axes(W: Array, population: int | None) -> tuple[int, ...]:
    return tuple(range(0 if population is None else 1, W.ndim))
