"""Minibatches for a population whose members each have rows or an order of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, asarray, asarray_like
from ..errors import ConfigError
from .loader import Batches
from .normalization import Normalization
from .orders import Orders


class MemberBatches:
    """Batches x (P, B, …) and y (P, B, …), gathered from one copy of the data.

    Parameters
    ----------
    x : array, shape (N, …)
    y : array, shape (N,) or (N, …)
    orders : Orders
        The rows of each member.
    sample_weight : array, shape (N,), optional
        What each row counts for: (P, B) is then a third part of each batch.
    batch_size : int
        B; the last batch of an epoch may have fewer rows.
    drop_last : bool
        Whether to leave out a last batch that is not full.
    normalization : Normalization, or P of them, optional
        One for all, or one for each member, such as one fitted on its own rows.
    dtype : str
        Float type of the batches.

    Raises
    ------
    ConfigError, DataError, ShapeError, DTypeError
        As :class:`Batches`.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        orders: Orders,
        *,
        sample_weight: Array | None = None,
        batch_size: int,
        drop_last: bool = False,
        normalization: Normalization | Sequence[Normalization] | None = None,
        dtype: Any = None,
    ):
        own = isinstance(normalization, Sequence)
        if own and len(normalization) != len(orders.rows):
            raise ConfigError(
                f"`MemberBatches`: expected {len(orders.rows)} normalizations, one for each "
                f"member, got {len(normalization)}"
            )
        self._data = Batches(
            x,
            y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            shuffle=False,
            normalization=None if own else normalization,
            dtype=dtype,
        )
        if drop_last and orders.length < batch_size:
            raise ConfigError(
                f"`batch_size`: expected at most {orders.length} with drop_last, got {batch_size}"
            )
        self.orders = orders
        self.batch_size, self.drop_last = self._data.batch_size, drop_last
        self._own = _statistics(normalization, x.ndim) if own else None

    @property
    def y(self) -> Any:
        """The targets of all rows, once."""
        return self._data.y

    @property
    def sample_weight(self) -> Any:
        """What all rows count for, once; None where they all count the same."""
        return self._data.sample_weight

    @property
    def rows(self) -> int:
        """Rows of each member in an epoch."""
        return self.orders.length

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.rows, self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def epoch(self, number: int = 0) -> Iterator[tuple[Any, ...]]:
        """The batches of one epoch: x (P, B, …), y (P, B, …) and, if rows have any, weights."""
        order = self.orders.epoch(number)
        for index in range(len(self)):
            yield self.gather(order[:, index * self.batch_size : (index + 1) * self.batch_size])

    def gather(self, rows: np.ndarray) -> tuple[Any, ...]:
        """x (P, B, …) and y (P, B, …) of the rows (P, B), and their weights if they have any."""
        data = self._data
        chosen = asarray(np.ascontiguousarray(rows))
        x = data.inputs_of(chosen)
        if self._own is not None:
            mean, std = (asarray_like(values, x) for values in self._own)
            x = (x - mean) / std
        xp = array_namespace(x)
        flat, targets = xp.reshape(chosen, (-1,)), [data.y]
        if data.sample_weight is not None:
            targets.append(data.sample_weight)
        taken = [xp.take(target, flat, axis=0) for target in targets]
        return x, *(xp.reshape(target, (*rows.shape, *target.shape[1:])) for target in taken)

    def with_orders(self, orders: Orders, batch_size: int) -> MemberBatches:
        """All batches of other rows, from the same copy of the data."""
        other = object.__new__(MemberBatches)
        other.__dict__ |= vars(self)
        other.orders, other.batch_size, other.drop_last = orders, batch_size, False
        return other

    def select(self, members: Sequence[int]) -> MemberBatches:
        """The batches of some members, from the same copy of the data."""
        chosen = object.__new__(MemberBatches)
        chosen.__dict__ |= vars(self)
        chosen.orders = self.orders.select(members)
        if self._own is not None:
            chosen._own = tuple(values[list(members)] for values in self._own)
        return chosen


def _statistics(
    normalizations: Sequence[Normalization], ndim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations of all members, (P, 1, …) to broadcast over x (P, B, …)."""

    def spread(values: list[np.ndarray]) -> np.ndarray:
        together = np.stack(values)
        missing = ndim - (together.ndim - 1)
        return together.reshape(len(values), *([1] * missing), *together.shape[1:])

    return spread([n.mean for n in normalizations]), spread([n.std for n in normalizations])
