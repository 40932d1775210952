"""Cross-entropy of a softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array, asarray_like
from ..choices import Reduction
from ..ops.targets import check_classes, check_shares, is_class_numbers
from ..options import Number
from .base import check_arrays
from .class_weights import ClassLoss


class SoftmaxCrossEntropy(ClassLoss):
    """Cross-entropy of softmax(logits); see :func:`xpmlp.ops.softmax_cross_entropy`.

    Parameters
    ----------
    label_smoothing : float or sequence of P floats
    ignore_index : int, optional
    class_weights : array_like, shape (C,), optional
    z_loss : float
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ConfigError
        For options out of range.
    """

    label_smoothing: Any = Number("[0, 1]", each_member=True)
    z_loss: Any = Number("[0, inf)")

    def __init__(
        self,
        *,
        label_smoothing: float | Sequence[float] = 0.0,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | Array | None = None,
        z_loss: float = 0.0,
        reduction: Reduction = "mean",
    ):
        super().__init__(reduction, ignore_index=ignore_index, class_weights=class_weights)
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss

    def describe(self) -> str:
        none = np.ndim(self.label_smoothing) == 0 and self.label_smoothing == 0.0
        smoothing = "" if none else f"label_smoothing={self.label_smoothing}"
        return ", ".join(part for part in (smoothing, super().describe()) if part)

    def check_targets(self, targets: Array, classes: int) -> None:
        """Class numbers in 0 … C−1 or ``ignore_index``, or probabilities ≥ 0."""
        if is_class_numbers(targets):
            check_classes("SoftmaxCrossEntropy", targets, classes, self.ignore_index)
        else:
            check_shares("SoftmaxCrossEntropy", targets)

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs: logits (…, N, C); targets: class numbers (…, N) or probabilities (…, N, C)."""
        check_arrays("SoftmaxCrossEntropy", outputs, targets)
        smoothing, weights = self.label_smoothing, self.class_weights
        loss, self._gradient = ops.softmax_cross_entropy(
            outputs,
            targets,
            label_smoothing=asarray_like(smoothing, outputs) if np.ndim(smoothing) else smoothing,
            ignore_index=self.ignore_index,
            class_weights=None if weights is None else asarray_like(weights, outputs),
            z_loss=self.z_loss,
            reduction=self.reduction,
        )
        return loss
