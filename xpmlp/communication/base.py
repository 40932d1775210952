"""Ranks: what all communicators can do, and the share of a batch that a rank has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import array_namespace, to_numpy
from ..errors import ConfigError

STATISTICS = ("global", "rank")
ROWS_APART = 4
"""Shares of a batch begin at multiples of so many rows: a mask's random words come in fours."""


class Communicator:
    """Ranks that work in step.

    Parameters
    ----------
    rank : int
        This process's number, from 0.
    size : int
        How many there are.
    statistics : {"global", "rank"}
        What batch normalization standardises by: mean and variance of all ranks' rows together, as
        one process would, or those of each rank's own rows, which saves sums between ranks.

    Notes
    -----
    Every rank must make the same calls in the same order; a rank that stays away leaves the others
    waiting. All must get the same bits from a sum.
    """

    def __init__(self, rank: int, size: int, statistics: str = "global"):
        if statistics not in STATISTICS:
            raise ConfigError(
                f"`{type(self).__name__}`: expected statistics to be one of "
                f"{', '.join(STATISTICS)}, got {statistics!r}"
            )
        self.rank, self.size, self.statistics = rank, size, statistics

    def allreduce(self, buffer: np.ndarray) -> None:
        """Put the sum over all ranks, element by element, in the place of a contiguous array."""
        raise NotImplementedError

    def allreduce_each(self, buffers: Sequence[Any]) -> None:
        """The same of several arrays, at once where that is faster."""
        for buffer in buffers:
            self.allreduce(buffer)

    def takes(self, array: Any) -> bool:
        """Whether ``allreduce`` sums such an array where it is: those of NumPy, by default."""
        return isinstance(array, np.ndarray)

    def zeros(self, size: int, dtype: Any) -> np.ndarray | None:
        """An array that is summed faster than others, if there is any such memory."""
        return None

    def broadcast(self, value: Any, root: int = 0) -> Any:
        """What rank ``root`` gives, on every rank."""
        raise NotImplementedError

    def abort(self) -> None:
        """End all ranks at once, if this one cannot go on."""

    def gather(self, values: Any) -> np.ndarray:
        """Numbers of one shape (…) from each rank, as (size, …) in float64; on every rank alike."""
        own = np.asarray(values, np.float64)
        everyone = np.zeros((self.size, *own.shape))
        everyone[self.rank] = own
        self.allreduce(everyone)
        return everyone

    def first(self, function: Callable[[], Any]) -> Any:
        """What a function gives on rank 0, which alone calls it, on every rank; or its error."""
        found: Any = None
        if self.rank == 0:
            try:
                found = True, function()
            except Exception as error:
                found = False, error
        fine, value = self.broadcast(found)
        if not fine:
            raise value
        return value

    def after_first(self, function: Callable[[], Any]) -> Any:
        """What a function gives on each rank, which rank 0 calls before the others; or its error.

        So files that a data set lacks are downloaded once, by rank 0, and the others find them.
        """
        own: list[Any] = []
        self.first(lambda: own.append(function()))
        return own[0] if own else function()

    def everyone(self, value: Any) -> list[Any]:
        """What each rank gives, in their order, on every rank."""
        return [self.broadcast(value, root) for root in range(self.size)]


@dataclass(frozen=True)
class Share:
    """The rows of a batch that a rank has: ``rows`` from number ``first`` on, of ``total``.

    A rank without rows is given one that counts for nothing, so that it makes the same sums.
    ``even`` is whether all ranks know from ``total`` alone who has which rows: :meth:`of` says so.
    """

    first: int
    rows: int
    total: int
    ranks: Communicator = field(compare=False)
    even: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, total: int, ranks: Communicator) -> Share:
        """An even share of so many rows, the same on every machine."""
        begin, end = (cls._begin(total, rank, ranks.size) for rank in (ranks.rank, ranks.rank + 1))
        return cls(begin, end - begin, total, ranks, even=True)

    @staticmethod
    def _begin(total: int, rank: int, size: int) -> int:
        """Where the even share of a rank begins."""
        return min(total, -(-total // ROWS_APART) * rank // size * ROWS_APART)

    @classmethod
    def found(cls, rows: int, ranks: Communicator) -> Share:
        """That of a rank which has so many rows, behind those of the ranks before; asks them."""
        begins = [0, *map(int, np.cumsum(ranks.gather(rows)))]
        total = begins[-1]
        even = begins == [cls._begin(total, rank, ranks.size) for rank in range(ranks.size + 1)]
        return cls(begins[ranks.rank], rows, total, ranks, even)

    @property
    def slice(self) -> slice:
        """Of the batch."""
        return slice(self.first, self.first + self.rows)

    def of_all(self, own: int) -> int:
        """How many rows, or pixels, or steps, all ranks have where this one is given ``own``."""
        return own // max(1, self.rows) * self.total

    def on_average(self, own: int) -> int:
        """How many a rank has, two at least: the same number on all."""
        return max(2, self.of_all(own) // self.ranks.size)

    def wide(self, *values: Any) -> Any:
        """Arrays of one shape, stacked, in float64, where the ranks sum them: at best in place."""
        if not self.ranks.takes(values[0]):
            values = tuple(map(to_numpy, values))
        if type(values[0]) is np.ndarray:
            return np.array(values, np.float64)
        xp = array_namespace(*values)
        return xp.stack([xp.astype(each, xp.float64) for each in values])

    def sum(self, values: Any) -> Any:
        """The sum over all ranks of float64 numbers, in their place."""
        if not self.rows:
            values[...] = 0.0
        self.ranks.allreduce(values)
        return values

    def statistics(self, mean: Any, var: Any) -> tuple[Any, Any]:
        """Mean and biased variance of all ranks' rows, of those of this rank's.

        Chan, Golub and LeVeque 1979.
        """
        own, var = self.wide(mean, var)
        mean = self.sum(self.part * own)
        return mean, self.sum(self.part * (var + (own - mean) ** 2))

    def average(self, *values: Any) -> Any:
        """The mean of numbers over the ranks, weighted by their rows."""
        return self.sum(self.wide(*values) * self.part)

    @property
    def part(self) -> float:
        """Of all rows."""
        return self.rows / self.total


def is_first(ranks: Communicator | None) -> bool:
    """Whether this process is the one that draws and writes."""
    return ranks is None or ranks.rank == 0
