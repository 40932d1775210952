"""Numbers that mean something by themselves: 0 for none, 99 for unknown, a limit that is met."""

from __future__ import annotations

import numpy as np

MOST = 32
_LEAST = 5  # rows with a value, for its targets to tell anything
_NEAR = 30  # rows on each side that it is compared with, at least
_CERTAIN = 3.5  # standard errors that its targets are away from theirs


def telling_values(values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Values whose targets differ from those of the rows next to them, as a curve would not show.

    Parameters
    ----------
    values : ndarray, shape (N,)
    targets : ndarray, shape (N, M)
        Of numbers, or 1 for a row's class and 0 for the others.

    Returns
    -------
    ndarray, shape (at most MOST,)
        Ascending; the surest, if there are more.

    Notes
    -----
    With n rows of a value whose targets have the mean m, and k rows around it with the mean r,
    ``z = |m − r| / √(s² (1/n + 1/k))``, s² the variance of all of these, is compared with 3.5
    (Welch's test, with one variance). Both sides count, so that a step between two values is none.
    """
    order = np.argsort(values, kind="stable")
    sums, squares = (_running(part) for part in (targets[order], targets[order] ** 2))
    distinct, start, n = np.unique(values[order], return_index=True, return_counts=True)
    stop, reach = start + n, np.maximum(_NEAR, n)
    low, high = np.maximum(0, start - reach), np.minimum(len(values), stop + reach)
    k = high - low - n
    known = (n >= _LEAST) & (k >= _LEAST)
    if not known.any():
        return np.zeros(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        own, both = sums[stop] - sums[start], sums[high] - sums[low]
        apart = np.abs(own / n[:, None] - (both - own) / k[:, None])
        mean = both / (n + k)[:, None]
        variance = (squares[high] - squares[low]) / (n + k)[:, None] - mean**2
        least = 1e-3 * targets.var(axis=0)  # of few rows, the variance may be 0 by chance
        error = np.sqrt(np.maximum(variance, least) * (1.0 / n + 1.0 / k)[:, None])
        z = np.where(known[:, None] & (error > 0), apart / error, 0.0).max(axis=1)
    surest = np.argsort(-z, kind="stable")[:MOST]
    return np.sort(distinct[surest[z[surest] > _CERTAIN]])


def _running(values: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums
