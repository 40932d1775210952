"""Inputs and targets of usual size inside of an estimator, their own units outside.

What an estimator trains is a network between scaled inputs and scaled targets. Both scales come
from the moments of the rows seen so far; when these change, the outermost layers are rewritten so
that the network still computes the same function (as in [1]_).

.. [1] van Hasselt, Guez, Hessel, Mnih, Silver: Learning values across many orders of magnitude.
   NeurIPS 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.sparsefuncs import mean_variance_axis, min_max_axis

from ..backend import asarray, to_numpy
from ..data import Normalization
from ..data.sparse_rows import is_sparse
from ..layers import Linear
from ..models import FullyConnectedNet
from .network import linear_layers

USUAL_SIZE = (0.5, 10.0)
"""Largest magnitudes that an input may have to be taken as it is."""
USUAL_SPREAD = 0.1
"""The least standard deviation that it must then have, as a share of its mean."""
EQUAL_TARGETS = 1e-6
"""The spread, as a share of the mean, given to targets that are all equal: close to none, so that
they are predicted to a millionth of themselves."""
_ROWS = 4096  # of weighted moments at a time


@dataclass(frozen=True)
class Moments:
    """Count, mean, variance and largest magnitude of each column of the rows seen so far."""

    count: float
    mean: np.ndarray
    variance: np.ndarray
    largest: np.ndarray

    @classmethod
    def of(cls, values: Any, weights: np.ndarray | None = None) -> Moments:
        """Those of an array (N, M) or a sparse matrix, whose rows may have weights (N,)."""
        if is_sparse(values):
            return cls._of_sparse(values, weights)
        low, high = values.min(axis=0), values.max(axis=0)
        count = float(len(values) if weights is None else weights.sum())
        if weights is None or weights.min() == weights.max():
            norm = Normalization.fit(values)
            mean, variance = norm.mean, norm.std**2
        else:
            mean = _weighted_mean(values, weights, lambda rows: rows)
            mean = np.where(low == high, low, mean)
            variance = _weighted_mean(values, weights, lambda rows: (rows - mean) ** 2)
        variance = np.where(low == high, 0.0, variance)
        return cls(count, mean, variance, np.maximum(np.abs(low), np.abs(high)))

    @classmethod
    def _of_sparse(cls, values: Any, weights: np.ndarray | None) -> Moments:
        wide = values.astype(np.float64)
        found: Any = mean_variance_axis(wide, axis=0, weights=weights)
        bounds: Any = min_max_axis(wide, axis=0)
        (mean, variance), (low, high) = found, bounds
        count = float(values.shape[0] if weights is None else weights.sum())
        mean, variance = np.where(low == high, low, mean), np.where(low == high, 0.0, variance)
        return cls(count, mean, variance, np.maximum(np.abs(low), np.abs(high)))

    def joined(self, more: Moments) -> Moments:
        """Those of both sets of rows (Chan, Golub, LeVeque 1983)."""
        count = self.count + more.count
        share = more.count / count
        apart = more.mean - self.mean
        variance = (1 - share) * self.variance + share * (more.variance + (1 - share) * apart**2)
        return Moments(
            count, self.mean + share * apart, variance, np.maximum(self.largest, more.largest)
        )

    def of_targets(self) -> Normalization:
        """To mean 0 and standard deviation 1, or to all but no spread where values are equal."""
        size = np.where(self.mean == 0.0, 1.0, np.abs(self.mean))
        return Normalization(self.mean, self._spread(EQUAL_TARGETS * size))

    def _spread(self, if_equal: np.ndarray | float) -> np.ndarray:
        # What rounding alone may leave of equal values is no spread.
        rounding = 4.0 * np.finfo(np.float64).eps * np.abs(self.mean)
        std = np.sqrt(self.variance)
        return np.where(std > rounding, std, if_equal)

    def of_inputs(self) -> Normalization:
        """To mean 0 and standard deviation 1 where a column is of unusual size.

        A column of equal values becomes 0.
        """
        low, high = USUAL_SIZE
        usual = (self.largest >= low) & (self.largest <= high)
        usual &= np.sqrt(self.variance) >= USUAL_SPREAD * np.abs(self.mean)
        std = self._spread(1.0)
        return Normalization(np.where(usual, 0.0, self.mean), np.where(usual, 1.0, std))


def _weighted_mean(
    values: np.ndarray, weights: np.ndarray, of: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """``Σ w f(row) / Σ w`` in float64, some rows after others."""
    total = np.zeros(values.shape[1])
    for begin in range(0, len(values), _ROWS):
        part = slice(begin, begin + _ROWS)
        total += weights[part] @ of(values[part].astype(np.float64))
    return total / weights.sum()


def no_scaling(columns: int) -> Normalization:
    """What leaves everything as it is."""
    return Normalization(np.zeros(columns), np.ones(columns))


def change_scaling(
    network: FullyConnectedNet,
    inputs: tuple[Normalization, Normalization],
    targets: tuple[Normalization, Normalization],
) -> None:
    """Rewrite a network's outermost layers for other scalings, so that it means the same.

    Parameters
    ----------
    network : FullyConnectedNet
    inputs, targets : (before, after)
        What its inputs were and will be scaled by, and its outputs scaled back by.

    Notes
    -----
    With ``x = s z + m`` of the inputs, ``W z + b = (s'/s) W z' + b + W (m' − m)/s``; with
    ``y = s z + m`` of the outputs, ``z' = (s/s') z + (m − m')/s'``. In float64.
    """
    linear = linear_layers(network)
    before, after = inputs
    if not _same(before, after):
        W, b = _parameters(linear[0])
        shift = (after.mean - before.mean) / before.std
        _assign(linear[0], W * (after.std / before.std)[:, None], b + shift @ W)
    before, after = targets
    if not _same(before, after):
        W, b = _parameters(linear[-1])
        ratio = before.std / after.std
        _assign(linear[-1], W * ratio, b * ratio + (before.mean - after.mean) / after.std)


def _same(one: Normalization, other: Normalization) -> bool:
    return np.array_equal(one.mean, other.mean) and np.array_equal(one.std, other.std)


def _parameters(layer: Linear) -> tuple[np.ndarray, np.ndarray]:
    return to_numpy(layer.W).astype(np.float64), to_numpy(layer.b).astype(np.float64)


def _assign(layer: Linear, W: np.ndarray, b: np.ndarray) -> None:
    dtype = to_numpy(layer.W).dtype.name
    layer.W, layer.b = asarray(W, dtype), asarray(b, dtype)
