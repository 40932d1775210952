"""Parameters of networks in training: kept copies, and whether they are still numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, array_namespace, to_numpy
from ..layers.base import Layer


def copies_of(model: Layer) -> dict[str, Array]:
    """Copies of all parameters and state, where they are."""
    return {
        name: array_namespace(array).asarray(array, copy=True)
        for name, array in model._arrays().items()
    }


def finite_networks(model: Layer) -> np.ndarray:
    """Whether all parameters and running statistics are finite, of shape () or (P,)."""
    start = 0 if model.population is None else 1
    found: Any = True
    for array in model._arrays().values():
        xp = array_namespace(array)
        found = found & xp.all(xp.isfinite(array), axis=tuple(range(start, array.ndim)))
    return np.asarray(to_numpy(found) if hasattr(found, "dtype") else found)
