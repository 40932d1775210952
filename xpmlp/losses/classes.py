"""Losses of class numbers beside cross-entropy: log-likelihood and hinge."""

from __future__ import annotations

from typing import Any

import array_api_compat

from ..backend import Array, array_namespace, dtype_name, on_host
from ..errors import DTypeError, ShapeError
from ..ops.shapes import working_dtype
from ..ops.targets import check_classes
from ..options import Number
from .base import Loss, check_arrays


class NLL(Loss):
    """Negative log-likelihood ``−mean log p[target]`` of log-probabilities (…, N, C).

    Follows a LogSoftmax layer. SoftmaxCrossEntropy does both in one pass.
    """

    answers = "classes"

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs: log-probabilities (…, N, C); targets: class numbers (…, N)."""
        onehot, outputs, dtype = self._prepare(outputs, targets)
        xp = array_namespace(outputs)
        # where, not a product: 0 · log 0 would be NaN.
        picked = xp.where(onehot, outputs, xp.zeros_like(outputs))
        return self._reduce_rows(-xp.sum(picked, axis=-1), -xp.astype(onehot, outputs.dtype), dtype)

    def check_targets(self, targets: Array, classes: int) -> None:
        """Class numbers in 0 … C−1."""
        check_classes(type(self).__name__, targets, classes)

    def _prepare(self, outputs: Array, targets: Array) -> tuple[Array, Array, Any]:
        """Each row's class as a boolean, the outputs to compute with, and the dtype to give."""
        onehot = _one_hot(type(self).__name__, outputs, targets)
        if on_host(targets):
            self.check_targets(targets, outputs.shape[-1])
        xp = array_namespace(outputs)
        wide = working_dtype(xp, outputs)
        return onehot, xp.astype(outputs, wide, copy=False), outputs.dtype

    def _reduce_rows(self, rows: Array, gradient: Array, dtype: Any) -> Array:
        xp = array_namespace(rows)
        if self.reduction == "mean":
            gradient, rows = gradient / rows.shape[-1], xp.mean(rows, axis=-1)
        elif self.reduction == "sum":
            rows = xp.sum(rows, axis=-1)
        self._gradient = xp.astype(gradient, dtype, copy=False)
        return xp.astype(rows, dtype, copy=False)


class MulticlassHinge(NLL):
    """``mean Σ_{c ≠ t} max(0, s_c − s_t + margin)`` (Weston and Watkins 1999; CS231n's SVM loss).

    Parameters
    ----------
    margin : float
    reduction : {"mean", "sum", "none"}
    """

    margin: Any = Number()

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
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
        return self._reduce_rows(xp.sum(margins * violated, axis=-1), gradient, dtype)


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
