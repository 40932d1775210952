"""Which rows go to which part: the same answer for the same seed, on every machine."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..random import permutation


def part_size(size: int | float, n: int, where: str) -> int:
    """How many of ``n`` rows a count or a fraction means; at least one row is left on each side.

    Parameters
    ----------
    size : int or float
        A count in 1…n-1, or a fraction strictly between 0 and 1 (rounded to the nearest count,
        and then moved into 1…n-1).
    n : int
        Rows to divide.
    where : str
        The argument's name, for messages.

    Raises
    ------
    ConfigError
        If ``size`` is outside of these, or fewer than two rows are to be divided.
    """
    if n < 2:
        raise ConfigError(f"`{where}`: expected at least 2 rows to divide, got {n}; add data")
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if whole and 1 <= size < n:
        return int(size)
    if isinstance(size, float | np.floating) and 0.0 < size < 1.0:
        return min(max(round(float(size) * n), 1), n - 1)
    raise ConfigError(
        f"`{where}`: expected a count in 1…{n - 1} or a fraction between 0 and 1, got {size!r}; "
        f"{n} rows are there to divide"
    )


def split_rows(
    n: int, held_out: int, *, seed: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows 0…n-1 into kept and held-out ones after a seeded shuffle.

    With ``labels`` the division is stratified: class c gives ``held_out · n_c / n`` rows, rounded
    by largest remainders so that the total is exact. A class of which one row exists keeps it on
    the kept side, unless nothing else is left to hold out.

    Parameters
    ----------
    n, held_out : int
        Rows in all, and how many to hold out, 1 ≤ held_out < n.
    seed : int
        Another seed, another division.
    labels : ndarray of int, shape (N,), optional
        Class of each row.

    Returns
    -------
    kept, held : ndarray of int64
        Row numbers, ``n - held_out`` and ``held_out`` of them, each in shuffled order.
    """
    order = permutation(n, seed=seed)
    if labels is None:
        return order[: n - held_out], order[n - held_out :]
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shuffled = places[order]
    takes = _allot(counts, held_out)
    by_class = np.argsort(shuffled, kind="stable")  # of each class the first ones are held out
    ranks = np.empty(n, dtype=np.int64)
    ranks[by_class] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    hold = ranks < takes[shuffled]
    return order[~hold], order[hold]


def split_groups(groups: np.ndarray, held_out: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows so that all rows of a group go to the same part.

    Whole groups, in a seeded order, are held out until there are ``held_out`` rows or more.

    Parameters
    ----------
    groups : ndarray of int, shape (N,)
        Group of each row.
    held_out : int
        Rows to hold out at least, unless only one group would be left.
    seed : int

    Returns
    -------
    kept, held : ndarray of int64
        Row numbers, in order.

    Raises
    ------
    ConfigError
        If there is only one group.
    """
    names, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ConfigError("`group`: expected at least two groups to divide, got one")
    order = permutation(len(names), seed=seed)
    before = np.cumsum(counts[order]) - counts[order]
    chosen = order[: max(1, min(len(names) - 1, int((before < held_out).sum())))]
    held = np.isin(places, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _allot(counts: np.ndarray, total: int) -> np.ndarray:
    """Share ``total`` among the classes in proportion to ``counts``, exactly."""
    exact = total * counts / counts.sum()
    takes = np.floor(exact).astype(np.int64)
    # Largest remainders first; ties go to the larger class, then to the lower label.
    ranks = np.lexsort((np.arange(len(counts)), -counts, -(exact - takes)))
    keep_one = np.maximum(counts - 1, 0)
    for limit in (keep_one, counts):  # leave one row of every class while there is another choice
        takes = np.minimum(takes, limit)
        while (left := total - takes.sum()) > 0 and np.any(takes < limit):
            open_ = ranks[takes[ranks] < limit[ranks]]
            each = left // len(open_)  # one after the other in turns, many turns at once
            if each:
                takes[open_] += np.minimum(limit[open_] - takes[open_], each)
            else:
                takes[open_[:left]] += 1
    return takes
