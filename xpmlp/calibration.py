"""How far probabilities can be relied on: calibration error, and temperature scaling.

A classifier is calibrated if, of all the times that it says 80 %, it is right 80 % of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import to_numpy
from .data.loader import as_array
from .errors import ConfigError, DataError, ShapeError
from .ops.targets import check_shares
from .options import Number

TEMPERATURE = Number("(0, inf)")
_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in bins of equal width.

    Attributes
    ----------
    edges : ndarray, shape (bins + 1,)
        Of the bins, from 0 to 1.
    counts : ndarray of int, shape (bins,)
        Rows whose largest probability falls into each bin.
    confidence, accuracy : ndarray, shape (bins,)
        The mean largest probability, and the share of rows that are right; NaN in empty bins.
    error : float
        The expected calibration error: ``Σ counts/N · |accuracy − confidence|``.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def reliability(probabilities: Any, targets: Any, bins: int = 15) -> Reliability:
    """Compare how sure a classifier is with how often it is right.

    Parameters
    ----------
    probabilities : array, shape (N, C)
    targets : array of ints, shape (N,)
    bins : int
        Of equal width, over the largest probability.

    Returns
    -------
    Reliability

    Raises
    ------
    ShapeError, DataError
        If the arrays do not go together, or do not hold probabilities and class numbers.
    ConfigError
        For less than one bin.

    Notes
    -----
    Sources: Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, "On calibration of modern neural
    networks".
    """
    if bins < 1:
        raise ConfigError(f"`reliability`: expected at least one bin, got {bins}")
    p, t = checked("reliability", probabilities, targets)
    sure, right = p.max(axis=1), p.argmax(axis=1) == t
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Half-open from below, so that a probability of exactly 1 is in the last bin.
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, weights=sure, minlength=bins) / counts
        accuracy = np.bincount(place, weights=right, minlength=bins) / counts
    filled = counts > 0
    gaps = np.abs(accuracy - confidence)[filled]
    error = float(np.sum(counts[filled] * gaps) / t.size)
    return Reliability(edges, counts, confidence, accuracy, error)


def expected_calibration_error(probabilities: Any, targets: Any, bins: int = 15) -> float:
    """How far confidence and accuracy are apart, on average: 0 is calibrated.

    Parameters, errors and sources as in :func:`reliability`.
    """
    return reliability(probabilities, targets, bins).error


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """``p^(1/T)``, normalized: T above 1 makes a classifier less sure, below 1 more.

    Parameters
    ----------
    probabilities : ndarray, shape (…, C)
    temperature : float > 0
        T; 1 changes nothing.

    Raises
    ------
    ConfigError
        For a temperature that is not a number above 0.
    DataError
        For what are no probabilities.
    """
    temperature = TEMPERATURE.check("temper", "temperature", temperature)
    probabilities = _numbers("temper", probabilities)
    if probabilities.dtype.kind != "f" or not probabilities.ndim or not probabilities.size:
        raise DataError(
            f"`temper`: expected probabilities, floats of shape (…, C), got {probabilities.dtype} "
            f"{probabilities.shape}"
        )
    check_shares("temper", probabilities, "probabilities")
    if temperature == 1.0:
        return probabilities
    scaled = _logarithm(probabilities) / float(temperature)
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(probabilities.dtype)


def fit_temperature(probabilities: Any, targets: Any) -> float:
    """The T at which :func:`temper` gives the smallest cross-entropy.

    Parameters
    ----------
    probabilities : array, shape (N, C)
        Of data that was not trained on.
    targets : array of ints, shape (N,)

    Returns
    -------
    float
        In [0.05, 20]: where every row is right, ever smaller temperatures would be ever better.

    Raises
    ------
    ShapeError, DataError
        As :func:`reliability`.

    Notes
    -----
    The cross-entropy is convex in 1/T, so its slope is followed to 0 by bisection. Source: Guo et
    al. 2017.
    """
    p, t = checked("fit_temperature", probabilities, targets)
    logs = _logarithm(p)
    true = logs[np.arange(t.size), t]

    def slope(inverse: float) -> float:
        scaled = logs * inverse
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        expected = np.sum(powers * logs, axis=1) / powers.sum(axis=1)
        return float(np.mean(expected - true))

    low, high = 1.0 / _TEMPERATURES[1], 1.0 / _TEMPERATURES[0]
    if slope(high) < 0.0:
        return _TEMPERATURES[0]
    if slope(low) > 0.0:
        return _TEMPERATURES[1]
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0.0 else (middle, high)
    return float(1.0 / np.sqrt(low * high))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """``−Σ p log p`` over the last axis, in nats; 0 log 0 counts as 0."""
    p = np.asarray(probabilities, dtype=np.float64)
    return -np.sum(p * _logarithm(p), axis=-1)


def _logarithm(probabilities: np.ndarray) -> np.ndarray:
    """log p in float64, bounded below, so that 0 log 0 is 0 and no row is without a gradient."""
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-300))


def _numbers(where: str, values: Any) -> np.ndarray:
    """Real numbers on the host."""
    try:
        array = as_array(values)
        array = array if isinstance(array, np.ndarray) else to_numpy(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"`{where}`: expected an array of numbers, got {error}") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"`{where}`: expected real numbers, got {array.dtype}")
    return array


def checked(where: str, probabilities: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both on the host, (N, C) in float64 and (N,), once they are known to go together."""
    p, t = _numbers(where, probabilities), _numbers(where, targets)
    p = p.astype(np.float64)
    if p.ndim != 2 or t.shape != p.shape[:1] or t.dtype.kind not in "iu" or 0 in p.shape:
        raise ShapeError(
            f"`{where}`: expected probabilities (N, C) and class numbers (N,), got {p.shape} and "
            f"{t.dtype} {t.shape}"
        )
    if not np.isfinite(p).all() or p.min() < 0.0 or np.abs(p.sum(axis=1) - 1.0).max() > 1e-3:
        raise DataError(
            f"`{where}`: expected rows of probabilities that sum to 1; apply a softmax to logits"
        )
    if t.min() < 0 or t.max() >= p.shape[1]:
        raise DataError(
            f"`{where}`: expected class numbers in 0…{p.shape[1] - 1}, got {t.min()}…{t.max()}"
        )
    return p, t
