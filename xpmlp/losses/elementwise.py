"""Losses that are sums over elements: of numbers, and of yes/no questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array, array_namespace, asarray_like, on_host
from ..choices import Reduction
from ..errors import ConfigError, ShapeError
from ..ops.recordable import sign
from ..ops.shapes import working_dtype
from ..ops.targets import check_shares
from ..options import Number
from .base import Loss, check_arrays, real_numbers

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
        count: Any = outputs.shape[-2] * outputs.shape[-1]
        kept = self.counted_elements(targets)
        if kept is not None:
            kept = xp.broadcast_to(kept, shape)
            values, gradient = (xp.where(kept, a, xp.zeros_like(a)) for a in (values, gradient))
            count = xp.sum(xp.astype(kept, wide), axis=(-2, -1))
            count = xp.where(count > 0, count, xp.ones_like(count))  # a batch of which none counts
        if self.reduction != "none":
            values = xp.sum(values, axis=(-2, -1))
        if self.reduction == "mean" and kept is not None:
            values, gradient = values / count, gradient / count[..., None, None]
        elif self.reduction == "mean" and count != 1:
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

    def __init__(self, reduction: Reduction = "sum"):
        super().__init__(reduction)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        difference = y - t
        return 0.5 * difference * difference, difference


class MAE(_ElementwiseLoss):
    """Mean absolute error ``mean |y − t|``; gradient ``sign(y − t) / (N M)``, 0 where equal."""

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        xp = array_namespace(y)
        difference = y - t
        return xp.abs(difference), sign(difference)


class Huber(_ElementwiseLoss):
    """``½ d²`` where ``|d| ≤ δ``, else ``δ (|d| − ½ δ)``, with ``d = y − t`` (Huber 1964).

    Parameters
    ----------
    delta : float
        δ, where the square turns into a line.
    reduction : {"mean", "sum", "none"}
    """

    delta: Any = Number("(0, inf)")

    def __init__(self, delta: float = 1.0, reduction: Reduction = "mean"):
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
        return values, xp.where(inside, difference, self.delta * sign(difference))


class BCEWithLogits(_ElementwiseLoss):
    """Binary cross-entropy of σ(y): ``mean [softplus(y) − t y]``; gradient ``(σ(y) − t)/(N M)``.

    Targets are probabilities in [0, 1]; hard labels are 0 and 1.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of elements that count.
    pos_weight : float or array_like, shape (M,), optional
        p: what a yes counts for, ``p t softplus(−y) + (1 − t) softplus(y)``, with the gradient
        ``(1 − t) σ(y) − p t σ(−y)``.
    ignore_index : float, optional
        The target, such as −1, of elements that count nothing: questions without an answer.
    """

    answers = "yes_no"
    ignore_index: Any = Number(optional=True)

    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        pos_weight: float | Sequence[float] | Array | None = None,
        ignore_index: float | None = None,
    ):
        super().__init__(reduction)
        self.pos_weight = pos_weight
        self.ignore_index = ignore_index

    @property
    def pos_weight(self) -> np.ndarray | None:
        """Of all questions, (), or of each, (M,), in float64."""
        return self._pos_weight

    @pos_weight.setter
    def pos_weight(self, weight: Any) -> None:
        self._pos_weight = None if weight is None else _pos_weight(weight)

    @property
    def weighs_rows(self) -> bool:
        return self.ignore_index is not None

    def counted_elements(self, targets: Array) -> Array | None:
        return None if self.ignore_index is None else targets != self.ignore_index

    def row_units(self, outputs: Array, targets: Array) -> Array | None:
        kept = self.counted_elements(targets)
        if kept is None:
            return None
        xp = array_namespace(outputs, targets)
        return xp.mean(xp.astype(kept, working_dtype(xp, outputs)), axis=-1)

    def check_targets(self, targets: Array, classes: int) -> None:
        """Probabilities in [0, 1], or ``ignore_index``."""
        kept = self.counted_elements(targets)
        if kept is not None:
            xp = array_namespace(targets)
            targets = xp.where(kept, targets, xp.zeros_like(targets))
        check_shares("BCEWithLogits", targets, most=1.0)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        if self._pos_weight is None:
            return ops.softplus(y) - t * y, ops.sigmoid(y) - t
        if self._pos_weight.ndim and self._pos_weight.shape[0] != y.shape[-1]:
            raise ShapeError(
                f"`BCEWithLogits`: expected pos_weight of shape ({y.shape[-1]},), one for each "
                f"output, or a number, got {self._pos_weight.shape}"
            )
        yes, no = asarray_like(self._pos_weight, y) * t, 1.0 - t
        values = yes * ops.softplus(-y) + no * ops.softplus(y)
        return values, no * ops.sigmoid(y) - yes * ops.sigmoid(-y)


def _pos_weight(weight: Any) -> np.ndarray:
    """A weight of yes, or one for each question, in float64, once it is known to be some."""
    try:
        numbers = real_numbers(weight)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if numbers.ndim > 1 or not numbers.size or not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise ConfigError(
            "`BCEWithLogits`: expected pos_weight as a number ≥ 0, or one for each output, (M,), "
            f"got {weight!r:.200}; rows without yes over rows with it is a usual choice"
        )
    return numbers


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
