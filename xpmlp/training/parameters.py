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
    shared, found = set(model.shared_params), True  # what is shared is every member's
    for name, array in model._arrays().items():
        xp, start = array_namespace(array), 0 if model.population is None or name in shared else 1
        found: Any = found & xp.all(xp.isfinite(array), axis=tuple(range(start, array.ndim)))
    return np.asarray(to_numpy(found) if hasattr(found, "dtype") else found)
