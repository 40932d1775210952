"""Losses that are sums over elements: of numbers, and of yes/no questions."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..backend import Array, array_namespace, on_host
from ..errors import ShapeError
from ..ops.shapes import working_dtype
from ..ops.targets import check_shares
from ..options import Number
from .base import Loss, check_arrays

__all__ = ["MAE", "MSE", "BCEWithLogits", "HalfSSE", "Huber", "PoissonNLL"]


class _ElementwiseLoss(Loss):
    """A loss that is a sum or mean over elements of f(outputs, targets)."""

    answers = "numbers"

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs (…, N, M) and targets of the same shape, or without some leading axes."""
        where = type(self).__name__
        check_arrays(where, outputs, targets)
        shape, target_shape = tuple(outputs.shape), tuple(targets.shape)
        # Two axes at least: targets (N,) would pass for (M,) wherever N equals M.
        if target_shape != shape[len(shape) - len(target_shape) :] or len(target_shape) < 2:
            raise ShapeError(
                f"`{where}`: expected targets of the outputs' shape {shape}, got {target_shape}; "
                "a column vector of targets is y[:, None]"
            )
        if outputs.ndim < 2 or outputs.shape[-2] == 0:
            raise ShapeError(
                f"`{where}`: expected outputs of shape (…, N, M) with N ≥ 1, got {shape}"
            )
        xp, dtype = array_namespace(outputs, targets), outputs.dtype
        if on_host(targets):
            self.check_targets(targets, shape[-1])
        wide = working_dtype(xp, outputs)
        values, gradient = self.elements(
            xp.astype(outputs, wide, copy=False), xp.astype(targets, wide, copy=False)
        )
        if self.reduction != "none":
            values = xp.sum(values, axis=(-2, -1))
            count = outputs.shape[-2] * outputs.shape[-1] if self.reduction == "mean" else 1
            if count != 1:
                values, gradient = values / count, gradient / count
        self._gradient = xp.astype(gradient, dtype, copy=False)
        return xp.astype(values, dtype, copy=False)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        """f(y, t) and df/dy, elementwise."""
        raise NotImplementedError


class MSE(_ElementwiseLoss):
    """Mean squared error ``mean (y − t)²``; gradient ``2 (y − t) / (N M)``."""

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        difference = y - t
        return difference * difference, 2.0 * difference


class HalfSSE(_ElementwiseLoss):
    """Half the sum of squared errors ``½ Σ (y − t)²``; gradient ``y − t`` with no factor."""

    def __init__(self, reduction: str = "sum"):
        super().__init__(reduction)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        difference = y - t
        return 0.5 * difference * difference, difference


class MAE(_ElementwiseLoss):
    """Mean absolute error ``mean |y − t|``; gradient ``sign(y − t) / (N M)``, 0 where equal."""

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        xp = array_namespace(y)
        difference = y - t
        return xp.abs(difference), xp.sign(difference)


class Huber(_ElementwiseLoss):
    """``½ d²`` where ``|d| ≤ δ``, else ``δ (|d| − ½ δ)``, with ``d = y − t`` (Huber 1964).

    Parameters
    ----------
    delta : float
        δ, where the square turns into a line.
    reduction : {"mean", "sum", "none"}
    """

    delta: Any = Number("(0, inf)")

    def __init__(self, delta: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.delta = delta

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        xp = array_namespace(y)
        difference = y - t
        size = xp.abs(difference)
        inside = size <= self.delta
        values = xp.where(
            inside, 0.5 * difference * difference, self.delta * (size - 0.5 * self.delta)
        )
        return values, xp.where(inside, difference, self.delta * xp.sign(difference))


class BCEWithLogits(_ElementwiseLoss):
    """Binary cross-entropy of σ(y): ``mean [softplus(y) − t y]``; gradient ``(σ(y) − t)/(N M)``.

    Targets are probabilities in [0, 1]; hard labels are 0 and 1.
    """

    answers = "yes_no"

    def check_targets(self, targets: Array, classes: int) -> None:
        """Probabilities in [0, 1]."""
        check_shares("BCEWithLogits", targets, most=1.0)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        return ops.softplus(y) - t * y, ops.sigmoid(y) - t


class PoissonNLL(_ElementwiseLoss):
    """Negative log-likelihood of counts t with rates eʸ: ``mean [eʸ − t y]``; gradient
    ``(eʸ − t)/(N M)``.

    Without ``ln t!``, which no parameter changes. Targets are ≥ 0, and outputs logarithms of rates.
    """

    def check_targets(self, targets: Array, classes: int) -> None:
        """Counts, or rates, ≥ 0."""
        check_shares("PoissonNLL", targets)

    def numbers(self, outputs: Array) -> Array:
        """The rates."""
        return array_namespace(outputs).exp(outputs)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        rates = array_namespace(y).exp(y)
        return rates - t * y, rates - t
