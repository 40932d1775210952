"""Rows of a batch that count for more than others, in any loss."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ..backend import Array, array_namespace
from ..errors import ConfigError
from ..ops.shapes import working_dtype
from ..ops.targets import check_weight

if TYPE_CHECKING:
    from .base import Loss


def weigh(loss: Loss, outputs: Array, targets: Array, weight: Array) -> tuple[Array, Array]:
    """The weighted loss and its gradient, from the loss of each row; see :meth:`Loss.weighted`."""
    where = f"{type(loss).__name__}.weighted"
    check_weight(where, weight, tuple(outputs.shape[:-1]))
    rowwise: Any = copy.copy(loss)
    rowwise.reduction = "none"
    values, gradient = rowwise.forward(outputs, targets), rowwise.backward()
    shape = tuple(outputs.shape)
    if tuple(values.shape) not in (shape, shape[:-1]):
        raise ConfigError(
            f"`{where}`: expected a loss of each row or element where reduction is 'none', got "
            f"shape {tuple(values.shape)}; weights need a loss that knows this reduction"
        )
    xp, dtype = array_namespace(outputs, targets, weight), outputs.dtype
    wide = working_dtype(xp, outputs)
    each = xp.astype(weight, wide, copy=False)
    each_element = values.ndim == outputs.ndim
    values = xp.astype(values, wide, copy=False)
    values = _scaled(xp, values, xp.expand_dims(each, axis=-1) if each_element else each)
    if loss.reduction != "none":
        values = xp.sum(values, axis=(-2, -1) if each_element else -1)
        if loss.reduction == "mean":
            units = loss.units(outputs, targets, weight) * (shape[-1] if each_element else 1)
            units = xp.where(units > 0, units, xp.ones_like(units))  # a batch of weight 0
            values, each = values / units, each / xp.expand_dims(units, axis=-1)
    gradient = xp.astype(gradient, wide, copy=False)
    gradient = _scaled(xp, gradient, xp.expand_dims(each, axis=-1))
    return xp.astype(values, dtype, copy=False), xp.astype(gradient, dtype, copy=False)


def _scaled(xp: Any, values: Array, weight: Array) -> Array:
    """Values times weights; 0 times what is not finite is 0."""
    return xp.where(weight == 0, xp.zeros_like(values), values) * weight
