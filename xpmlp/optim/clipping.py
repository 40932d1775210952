"""Gradients made no longer than a bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, asarray_like
from ..errors import ConfigError
from ..ops.shapes import per_member, working_dtype
from ..options import Number
from .base import Hyper

MAX_NORM = Number("(0, inf)", each_member=True)


def clip_by_global_norm(
    grads: Mapping[str, Array], max_norm: Hyper, population: int | None = None
) -> dict[str, Array]:
    """Scale all gradients by ``min(1, max_norm / ‖g‖)``, ‖g‖ the norm of all of them together.

    Parameters
    ----------
    grads : mapping of str to array
    max_norm : float > 0, or P of them
    population : int, optional
        With P given, each member's gradients (leading axis) are clipped by their own norm.

    Returns
    -------
    dict of str to array
        No value is read on the host, so nothing waits for the device.
    """
    if not isinstance(grads, Mapping):
        raise ConfigError(f"`clip_by_global_norm`: expected gradients by name, got {grads!r:.200}")
    limit = np.asarray(MAX_NORM.check("clip_by_global_norm", "max_norm", max_norm))
    if limit.shape not in ((), (population,)):
        raise ConfigError(
            "`clip_by_global_norm`: expected max_norm finite and > 0, one number or one for each "
            f"member, got {max_norm!r}"
        )
    if not grads:
        return {}
    first = next(iter(grads.values()))
    xp, start = array_namespace(first), 0 if population is None else 1
    wide = {name: xp.astype(g, working_dtype(xp, g), copy=False) for name, g in grads.items()}
    # In units of the largest one: squares of what float32 holds may be beyond it.
    largest: Any = 0.0
    for g in wide.values():
        most = xp.max(xp.abs(g), axis=tuple(range(start, g.ndim)))
        largest = xp.maximum(most, xp.zeros_like(most) + largest)
    unit = xp.where(largest > 0.0, largest, xp.ones_like(largest))
    squares: Any = 0.0
    for g in wide.values():
        g = g / per_member(unit, g.ndim)
        squares = squares + xp.sum(g * g, axis=tuple(range(start, g.ndim)))
    norm = unit * xp.sqrt(squares)
    # A plain number stays one: as an array it would have to travel to the device at each step.
    bound = float(limit) if limit.ndim == 0 else asarray_like(limit, norm)
    scale = bound / xp.where(norm > bound, norm, xp.ones_like(norm) * bound)
    return {
        name: xp.astype(g * per_member(scale, g.ndim), grads[name].dtype, copy=False)
        for name, g in wide.items()
    }
