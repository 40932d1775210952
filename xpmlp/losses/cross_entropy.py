"""Cross-entropy of a softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array, array_namespace, asarray_like, dtype_name, to_numpy
from ..errors import ConfigError
from ..ops.shapes import working_dtype
from ..ops.targets import check_classes, check_shares, is_class_numbers
from ..options import Number
from .base import Loss, check_arrays


class SoftmaxCrossEntropy(Loss):
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

    answers = "classes"
    label_smoothing: Any = Number("[0, 1]", each_member=True)
    ignore_index: Any = Number(whole=True, optional=True)
    z_loss: Any = Number("[0, inf)")

    def __init__(
        self,
        *,
        label_smoothing: float | Sequence[float] = 0.0,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | Array | None = None,
        z_loss: float = 0.0,
        reduction: str = "mean",
    ):
        super().__init__(reduction)
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.class_weights = class_weights
        self.z_loss = z_loss

    @property
    def class_weights(self) -> np.ndarray | None:
        """Of each class, (C,) in float64."""
        return self._class_weights

    @class_weights.setter
    def class_weights(self, weights: Any) -> None:
        self._class_weights = None if weights is None else _class_weights(weights)

    @property
    def weighs_rows(self) -> bool:
        return self._class_weights is not None or self.ignore_index is not None

    def counted(self, targets: Array) -> Array | None:
        if self.ignore_index is None:
            return None
        if dtype_name(targets.dtype) in ("int8", "uint8", "int16", "uint16"):
            xp = array_namespace(targets)  # wide enough for such as −100
            targets = xp.astype(targets, xp.int32)
        return targets != self.ignore_index

    def row_units(self, outputs: Array, targets: Array) -> Array | None:
        if not self.weighs_rows or "int" not in dtype_name(targets.dtype):
            return None
        xp = array_namespace(outputs, targets)
        dtype, counted = working_dtype(xp, outputs), self.counted(targets)
        if self._class_weights is None:
            return xp.astype(counted, dtype)
        weights = xp.astype(asarray_like(self._class_weights, outputs), dtype, copy=False)
        if counted is not None:
            targets = xp.where(counted, targets, xp.zeros_like(targets))
        rows = xp.reshape(xp.take(weights, xp.reshape(targets, (-1,)), axis=0), targets.shape)
        if counted is not None:
            rows = xp.where(counted, rows, xp.zeros_like(rows))
        return rows

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


def _class_weights(weights: Any) -> np.ndarray:
    """Weights in any of their forms as (C,) in float64, once they are known to be some."""
    where = "`SoftmaxCrossEntropy`: expected class_weights"
    if isinstance(weights, str):
        raise ConfigError(
            f"{where} as numbers, got {weights!r}; balanced ones are "
            "len(y) / (C * numpy.bincount(y, minlength=C))"
        )
    if isinstance(weights, Mapping):
        raise ConfigError(
            f"{where} in the order of the class numbers, got a dict of {list(weights)}; write "
            "[weights[number] for number in range(C)]"
        )
    try:
        numbers = to_numpy(weights) if hasattr(weights, "dtype") else np.asarray(weights)
        if numbers.dtype.kind not in "iuf":
            raise TypeError(f"{numbers.dtype} are no real numbers")
        numbers = numbers.astype(np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{where} as a list or array, got {weights!r}") from None
    fits = numbers.ndim == 1 and numbers.size > 0 and np.isfinite(numbers).all()
    if not fits or numbers.min() < 0.0 or numbers.max() == 0.0:
        raise ConfigError(
            f"{where} of shape (C,), finite, none below 0 and one above, got {weights!r}"
        )
    return numbers
