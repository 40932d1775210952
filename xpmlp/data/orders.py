"""Which rows each member of a population trains on, and in which order.

An order is a pure function of (seed, epoch), as :func:`xpmlp.random.permutation` is: the same on
every array library, and a member's order is the one it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from ..choices import Sampling
from ..errors import ConfigError, DataError
from ..ops.shapes import check_choice
from ..random import Generator, permutation, permutations

SAMPLINGS = get_args(Sampling)
_BOOTSTRAP_STREAM = 0xFFFF0002  # beside the one of permutations, above those of layers


class Orders:
    """Rows and orders of P members.

    Parameters
    ----------
    rows : sequence of P int arrays
        The row numbers that each member trains on; repeated rows are allowed. If their lengths
        differ, every epoch leaves out some rows of the longer ones, others each time, so that all
        members make the same steps.
    seeds : sequence of P ints
        Of each member's order.
    shuffle : bool
        Whether every epoch has another order; else rows come as given.

    Raises
    ------
    ConfigError
        If rows and seeds do not go together.
    DataError
        If a member has no rows.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        seeds: Sequence[int],
        *,
        shuffle: bool = True,
    ):
        if len(rows) != len(seeds) or not rows:
            raise ConfigError(
                f"`Orders`: expected rows and a seed for each member, got {len(rows)} and "
                f"{len(seeds)}"
            )
        self.rows = [np.asarray(own, dtype=np.int64) for own in rows]
        self.seeds = [int(seed) for seed in seeds]
        self.shuffle = shuffle
        self.length = min(own.size for own in self.rows)
        if self.length == 0:
            empty = [number for number, own in enumerate(self.rows) if own.size == 0]
            raise DataError(f"`Orders`: expected rows for each member, got none for {empty}")

    def epoch(self, number: int) -> np.ndarray:
        """Row numbers (P, length) of one epoch, in order."""
        if not self.shuffle:
            return np.stack([own[: self.length] for own in self.rows])
        keys = [(own.size, seed) for own, seed in zip(self.rows, self.seeds, strict=True)]
        sizes, seeds = zip(*dict.fromkeys(keys), strict=True)  # members may have one order
        orders = dict(zip(dict.fromkeys(keys), permutations(sizes, seeds, number), strict=True))
        places = zip(self.rows, keys, strict=True)
        return np.stack([own[orders[key][: self.length]] for own, key in places])

    def select(self, members: Sequence[int]) -> Orders:
        """The orders of some members; each epoch stays as long as it was."""
        chosen = Orders(
            [self.rows[number] for number in members],
            [self.seeds[number] for number in members],
            shuffle=self.shuffle,
        )
        chosen.length = self.length
        return chosen


def own_orders(n: int, seeds: Sequence[int]) -> Orders:
    """All n rows for each member, each in an order of its own."""
    rows = np.arange(n)
    return Orders([rows] * len(seeds), seeds)


def fold_orders(folds: Sequence[np.ndarray], n: int, seeds: Sequence[int]) -> Orders:
    """All of n rows but one fold for each member, in an order of its own.

    Parameters
    ----------
    folds : sequence of k int arrays
        Rows; member i leaves out those of fold ``i % k``.
    n : int
    seeds : sequence of P ints
    """
    every = np.arange(n)
    kept = [np.setdiff1d(every, fold) for fold in folds]
    rows = [kept[member % len(folds)] for member in range(len(seeds))]
    return Orders(rows, seeds)


def bootstrap_orders(n: int, seeds: Sequence[int]) -> Orders:
    """For each member n rows drawn with replacement, once, in an order of its own every epoch."""
    return Orders([bootstrap_rows(n, seed) for seed in seeds], seeds)


def bootstrap_rows(n: int, seed: int) -> np.ndarray:
    """n of n rows, drawn with replacement: a pure function of (n, seed), int64 (n,).

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    uniform = Generator(seed, _BOOTSTRAP_STREAM).uniform((n,))
    return (uniform * n).astype(np.int64)


def fold_rows(
    n: int, folds: int, *, seed: int = 0, labels: np.ndarray | None = None
) -> list[np.ndarray]:
    """Divide rows 0 … n−1 into k folds of equal size, give or take one row.

    Parameters
    ----------
    n, folds : int
        Rows, and k of 2 … n.
    seed : int
        Of the shuffle before the division.
    labels : ndarray of int, shape (N,), optional
        Class of each row: every class is then spread evenly over the folds.

    Returns
    -------
    list of k int64 arrays
        The rows of each fold, ascending; each row is in exactly one.

    Raises
    ------
    ConfigError
        If there are not 2 … n folds.
    """
    if not isinstance(folds, int | np.integer) or not 2 <= folds <= n:
        raise ConfigError(f"`folds`: expected a number in 2…{n}, got {folds!r}; try 5")
    order = permutation(n, seed=seed)
    if labels is not None:
        # One class after another: dealt out in turn, each spreads evenly, and so does the total.
        order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    return [np.sort(order[fold::folds]) for fold in range(folds)]


def group_folds(groups: np.ndarray, folds: int, *, seed: int = 0) -> list[np.ndarray]:
    """Divide rows into k folds of about equal size, all rows of a group in the same one.

    Parameters
    ----------
    groups : ndarray of int, shape (N,)
    folds : int
        k, at most; of fewer groups, as many as there are.
    seed : int

    Returns
    -------
    list of int64 arrays
        The rows of each fold, ascending.

    Raises
    ------
    ConfigError
        If there is only one group.
    """
    names, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ConfigError("`group`: expected at least two groups to divide, got one")
    order = permutation(len(names), seed=seed)
    order = order[np.argsort(-counts[order], kind="stable")]  # the largest first
    sizes = np.zeros(min(folds, len(names)), dtype=np.int64)
    fold_of = np.zeros(len(names), dtype=np.int64)
    for group in order:
        fold_of[group] = int(np.argmin(sizes))
        sizes[fold_of[group]] += counts[group]
    return [np.flatnonzero(fold_of[places] == fold) for fold in range(len(sizes))]


def orders_for(sampling: Sampling, n: int, seeds: Sequence[int]) -> Orders | None:
    """The orders that a name of :data:`SAMPLINGS` means; None for one shared order."""
    check_choice("orders", "sampling", sampling, SAMPLINGS)
    if sampling == "shared":
        return None
    return own_orders(n, seeds) if sampling == "own" else bootstrap_orders(n, seeds)
