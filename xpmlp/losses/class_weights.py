"""Losses of classes, some of which may count for more than others, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, asarray_like, dtype_name
from ..choices import Reduction
from ..errors import ConfigError
from ..ops.shapes import working_dtype
from ..options import Number
from .base import Loss, real_numbers


class ClassLoss(Loss):
    """Base of losses of class numbers.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        "mean" divides by the sum of what the rows count for.
    ignore_index : int, optional
        The class number of rows that count nothing.
    class_weights : array_like, shape (C,), optional
        What a row counts for, by its class.
    """

    answers = "classes"
    ignore_index: Any = Number(whole=True, optional=True)

    def __init__(
        self,
        reduction: Reduction = "mean",
        *,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | Array | None = None,
    ):
        super().__init__(reduction)
        self.ignore_index = ignore_index
        self.class_weights = class_weights

    @property
    def class_weights(self) -> np.ndarray | None:
        """Of each class, (C,) in float64."""
        return self._class_weights

    @class_weights.setter
    def class_weights(self, weights: Any) -> None:
        self._class_weights = (
            None if weights is None else _class_weights(type(self).__name__, weights)
        )

    @property
    def weighs_rows(self) -> bool:
        return self._class_weights is not None or self.ignore_index is not None

    def counted(self, targets: Array) -> Array | None:
        return None if self.ignore_index is None else _wide(targets) != self.ignore_index

    def row_units(self, outputs: Array, targets: Array) -> Array | None:
        if not self.weighs_rows or "int" not in dtype_name(targets.dtype):
            return None
        xp = array_namespace(outputs, targets)
        dtype, counted = working_dtype(xp, outputs), self.counted(targets)
        if self._class_weights is None:
            return xp.astype(counted, dtype)
        weights = xp.astype(asarray_like(self._class_weights, outputs), dtype, copy=False)
        targets = _wide(targets)
        if counted is not None:
            targets = xp.where(counted, targets, xp.zeros_like(targets))
        rows = xp.reshape(xp.take(weights, xp.reshape(targets, (-1,)), axis=0), targets.shape)
        if counted is not None:
            rows = xp.where(counted, rows, xp.zeros_like(rows))
        return rows


def _wide(targets: Array) -> Array:
    """Class numbers in which one such as −100 fits, and by which PyTorch takes rows."""
    if dtype_name(targets.dtype) not in ("int8", "uint8", "int16", "uint16"):
        return targets
    xp = array_namespace(targets)
    return xp.astype(targets, xp.int32)


def _class_weights(loss: str, weights: Any) -> np.ndarray:
    """Weights in any of their forms as (C,) in float64, once they are known to be some."""
    where = f"`{loss}`: expected class_weights"
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
        numbers = real_numbers(weights)
    except (TypeError, ValueError):
        raise ConfigError(f"{where} as a list or array, got {weights!r}") from None
    fits = numbers.ndim == 1 and numbers.size > 0 and np.isfinite(numbers).all()
    if not fits or numbers.min() < 0.0 or numbers.max() == 0.0:
        raise ConfigError(
            f"{where} of shape (C,), finite, none below 0 and one above, got {weights!r}"
        )
    return numbers
