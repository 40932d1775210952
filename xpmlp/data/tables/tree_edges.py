"""Where a small regression tree cuts one column of numbers."""

from __future__ import annotations

import heapq

import numpy as np

_LEAST_GAIN = 1e-6  # of the variance a row, below which a cut is not worth an edge
_CERTAIN = 12.0  # a cut's gain over the variance inside of its parts, which noise seldom reaches


def tree_edges(
    values: np.ndarray, targets: np.ndarray, leaves: int, least: int, tried: int = 1
) -> np.ndarray:
    """Thresholds of a tree that is grown best cut first, ascending.

    Parameters
    ----------
    values : ndarray, shape (N,)
    targets : ndarray, shape (N, M)
        Of standardized numbers, or 1 for a row's class and 0 for the others; for these, the
        variance is Gini's impurity.
    leaves : int
        At most.
    least : int
        Rows that each leaf has, at least.
    tried : int
        Leaves that there may be for any gain; beyond these, cuts must be certain.

    Returns
    -------
    ndarray, shape (at most leaves − 1,)

    Notes
    -----
    A leaf of n rows whose targets sum to S has squared errors ``Σ t² − |S|²/n``, so that a cut into
    L and R gains ``|S_L|²/n_L + |S_R|²/n_R − |S|²/n``. With sums over the sorted rows, all cuts of
    a leaf are one expression. A cut is certain if its gain is 12 times the variance inside of the
    two parts: of a cut at a given place in noise, that quotient is χ² with one degree of freedom
    (for one target), and the best place's is seldom above 12. Source: Breiman, Friedman, Olshen and
    Stone 1984.
    """
    order = np.argsort(values, kind="stable")
    values = values[order]
    sums = np.zeros((len(values) + 1, targets.shape[1]))
    np.cumsum(targets[order], axis=0, out=sums[1:])
    squares = np.append(0.0, np.cumsum((targets[order] ** 2).sum(axis=1)))
    between = values[1:] > values[:-1]  # a cut behind row k is possible
    cuts: list[float] = []
    waiting: list[tuple[float, int, int, int, bool]] = []

    def look(start: int, stop: int) -> None:
        """Note the best cut of the leaf of rows start … stop − 1, if there is one."""
        if stop - start < 2 * least:
            return
        places = np.arange(start + least, stop - least + 1)
        places = places[between[places - 1]]
        if not len(places):
            return
        left, right = sums[places] - sums[start], sums[stop] - sums[places]
        gains = (left**2).sum(axis=1) / (places - start)
        gains += (right**2).sum(axis=1) / (stop - places)
        best = int(np.argmax(gains))
        gain = gains[best] - ((sums[stop] - sums[start]) ** 2).sum() / (stop - start)
        if gain > _LEAST_GAIN * len(values):
            inside = (squares[stop] - squares[start] - gains[best]) / (stop - start)
            certain = bool(gain > _CERTAIN * inside)
            heapq.heappush(waiting, (-gain, start, int(places[best]), stop, certain))

    look(0, len(values))
    while waiting and len(cuts) < leaves - 1:
        _, start, cut, stop, certain = heapq.heappop(waiting)
        if len(cuts) >= tried - 1 and not certain:
            continue
        cuts.append(float(values[cut - 1] / 2 + values[cut] / 2))
        look(start, cut)
        look(cut, stop)
    return np.sort(np.asarray(cuts))
