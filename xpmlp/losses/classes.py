"""Losses of classes beside cross-entropy: log-likelihood, divergence and hinge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat

from ..backend import Array, array_namespace, dtype_name, on_host
from ..choices import Reduction
from ..errors import DTypeError, ShapeError
from ..ops.shapes import working_dtype
from ..ops.targets import check_classes, check_shares
from ..options import Number
from .base import check_arrays
from .class_weights import ClassLoss


class _RowLoss(ClassLoss):
    """A loss that is a sum or mean over rows."""

    def _reduce_rows(
        self, rows: Array, gradient: Array, dtype: Any, units: Array | None = None
    ) -> Array:
        """The loss, of the rows' losses and the gradients of those, and what the rows count for."""
        xp = array_namespace(rows)
        if units is not None:
            nothing = units == 0  # 0 times what is not finite is 0
            rows = xp.where(nothing, xp.zeros_like(rows), rows) * units
            units = xp.broadcast_to(units, rows.shape)
            gradient = gradient * xp.expand_dims(units, axis=-1)
        if self.reduction == "mean" and units is not None:
            total = xp.sum(units, axis=-1)
            total = xp.where(total > 0, total, xp.ones_like(total))  # a batch of which none counts
            gradient = gradient / total[..., None, None]
            rows = xp.sum(rows, axis=-1) / total
        elif self.reduction == "mean":
            gradient, rows = gradient / rows.shape[-1], xp.mean(rows, axis=-1)
        elif self.reduction == "sum":
            rows = xp.sum(rows, axis=-1)
        self._gradient = xp.astype(gradient, dtype, copy=False)
        return xp.astype(rows, dtype, copy=False)


class NLL(_RowLoss):
    """Negative log-likelihood ``−mean log p[target]`` of log-probabilities (…, N, C).

    Follows a LogSoftmax layer. SoftmaxCrossEntropy does both in one pass.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    ignore_index : int, optional
        The class number of rows that count nothing.
    class_weights : array_like, shape (C,), optional
        What a row counts for, by its class; the mean is over these.
    """

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs: log-probabilities (…, N, C); targets: class numbers (…, N)."""
        onehot, outputs, dtype = self._prepare(outputs, targets)
        xp = array_namespace(outputs)
        # where, not a product: 0 · log 0 would be NaN.
        picked = xp.where(onehot, outputs, xp.zeros_like(outputs))
        rows, gradient = -xp.sum(picked, axis=-1), -xp.astype(onehot, outputs.dtype)
        return self._reduce_rows(rows, gradient, dtype, self.row_units(outputs, targets))

    def check_targets(self, targets: Array, classes: int) -> None:
        """Class numbers in 0 … C−1, or ``ignore_index``."""
        check_classes(type(self).__name__, targets, classes, self.ignore_index)

    def _prepare(self, outputs: Array, targets: Array) -> tuple[Array, Array, Any]:
        """Each row's class as a boolean, the outputs to compute with, and the dtype to give."""
        onehot, weights = _one_hot(type(self).__name__, outputs, targets), self._class_weights
        if weights is not None and weights.shape != tuple(outputs.shape[-1:]):
            raise ShapeError(
                f"`{type(self).__name__}`: expected class_weights of shape "
                f"({outputs.shape[-1]},), got {weights.shape}"
            )
        if on_host(targets):
            self.check_targets(targets, outputs.shape[-1])
        xp = array_namespace(outputs)
        wide = working_dtype(xp, outputs)
        return onehot, xp.astype(outputs, wide, copy=False), outputs.dtype


class MulticlassHinge(NLL):
    """``mean Σ_{c ≠ t} max(0, s_c − s_t + margin)`` (Weston and Watkins 1999; CS231n's SVM loss).

    Parameters
    ----------
    margin : float
    reduction : {"mean", "sum", "none"}
    ignore_index, class_weights : optional
        As of :class:`NLL`.
    """

    margin: Any = Number()

    def __init__(
        self,
        margin: float = 1.0,
        reduction: Reduction = "mean",
        *,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | Array | None = None,
    ):
        super().__init__(reduction, ignore_index=ignore_index, class_weights=class_weights)
        self.margin = margin

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs: scores (…, N, C); targets: class numbers (…, N)."""
        onehot, outputs, dtype = self._prepare(outputs, targets)
        xp = array_namespace(outputs)
        zero = xp.zeros_like(outputs)
        true_score = xp.sum(xp.where(onehot, outputs, zero), axis=-1, keepdims=True)
        margins = xp.where(onehot, zero, outputs - true_score + self.margin)
        violated = xp.astype(margins > 0, outputs.dtype)
        count = xp.sum(violated, axis=-1, keepdims=True)
        gradient = violated - xp.where(onehot, count, zero)
        rows, units = xp.sum(margins * violated, axis=-1), self.row_units(outputs, targets)
        return self._reduce_rows(rows, gradient, dtype, units)


class KLDivergence(_RowLoss):
    """Kullback–Leibler divergence ``mean Σ_c t_c (ln t_c − y_c)``; gradient ``−t / N``.

    Of log-probabilities y from probabilities t, such as those of a larger network (Hinton, Vinyals
    and Dean 2015). The mean is over rows, as the divergence is defined: torch's ``"batchmean"``.
    ``0 ln 0`` is 0.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        "none" leaves a divergence for each row.
    """

    def __init__(self, reduction: Reduction = "mean"):
        super().__init__(reduction)

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs: log-probabilities (…, N, C); targets: probabilities of their shape."""
        where = type(self).__name__
        check_arrays(where, outputs, targets)
        shape = tuple(outputs.shape)
        if len(shape) < 2 or tuple(targets.shape) not in (shape, shape[-2:]) or 0 in shape:
            raise ShapeError(
                f"`{where}`: expected targets of the outputs' shape {shape}, (…, N, C) with N ≥ 1, "
                f"got {tuple(targets.shape)}; class numbers go with NLL"
            )
        if on_host(targets):
            self.check_targets(targets, shape[-1])
        xp = array_namespace(outputs, targets)
        wide = working_dtype(xp, outputs)
        y, t = xp.astype(outputs, wide, copy=False), xp.astype(targets, wide, copy=False)
        t = xp.broadcast_to(t, shape)
        some = t > 0
        one, nothing = xp.ones_like(t), xp.zeros_like(t)
        # Before the product: 0 · ∞ would be NaN.
        values = t * (xp.log(xp.where(some, t, one)) - xp.where(some, y, nothing))
        return self._reduce_rows(xp.sum(values, axis=-1), -t, outputs.dtype)

    def check_targets(self, targets: Array, classes: int) -> None:
        """Probabilities ≥ 0."""
        check_shares(type(self).__name__, targets)


def _one_hot(where: str, outputs: Array, targets: Array) -> Array:
    """Booleans (…, N, C) that mark each row's class."""
    check_arrays(where, outputs, targets)
    if "int" not in dtype_name(targets.dtype):
        raise DTypeError(
            f"`{where}`: expected targets of integers (class numbers), got "
            f"{dtype_name(targets.dtype)}; class numbers are y.astype('int64')"
        )
    shape = tuple(outputs.shape)
    if len(shape) < 2 or tuple(targets.shape) not in (shape[:-1], shape[-2:-1]) or 0 in shape:
        raise ShapeError(
            f"`{where}`: expected outputs (…, N, C) and targets (…, N), N ≥ 1, got {shape} and "
            f"{tuple(targets.shape)}"
        )
    xp = array_namespace(outputs, targets)
    numbers = xp.arange(shape[-1], device=array_api_compat.device(outputs))
    targets = xp.astype(targets, numbers.dtype, copy=False)
    return xp.broadcast_to(xp.expand_dims(targets, axis=-1) == numbers, shape)
