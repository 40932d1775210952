"""Training data on the device, whole if it fits, so that a step takes nothing from the host.

:class:`ResidentBatches` keeps all rows in device memory, images as bytes. A kernel picks a batch's
rows in the order of :func:`xpmlp.random.permutation`, converts and normalizes them; which batch it
is, it reads from a counter on the device, so that a recorded step goes on to the next by itself.
:class:`StreamedBatches` is for data that does not fit: while the device works on a batch, the next
one travels from page-locked memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import array_api_compat
import numpy as np

from ..backend import Array, array_namespace, asarray, dtype_name, dtype_of
from ..errors import ConfigError, DataError, ShapeError
from ..ops.dispatch import load_kernels
from ..random import permutation

_BYTES = ("uint8", "int8", "uint16", "int16")
_SHARE = 0.5  # of the free device memory that data may fill; the rest is for the step


class ResidentBatches:
    """A data set on the device.

    Parameters
    ----------
    x : array, shape (n, …)
        Integers of 8 or 16 bits, which stay so in memory, or floats of ``dtype``.
    y : array, shape (n,) or (n, …)
        Targets.
    batch_size : int
    shuffle : bool
        Whether rows come in another order every epoch, the order of ``Batches``.
    seed : int
    drop_last : bool
        Whether to leave out a last batch that is not full.
    mean, std : array_like, shape () or x.shape[1:], optional
        Batches are ``(x − mean) / std``.
    dtype : str
        Float type of the batches.
    gather : callable, optional
        The kernel's launcher; tests put their own here.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        mean: Any = None,
        std: Any = None,
        dtype: str = "float32",
        gather: Callable[..., None] | None = None,
    ):
        n = int(x.shape[0])
        if n == 0 or y.shape[0] != n:
            raise DataError(
                f"`ResidentBatches`: expected rows, and as many targets, got x of shape "
                f"{tuple(x.shape)} and y of shape {tuple(y.shape)}"
            )
        if batch_size < 1 or (drop_last and n < batch_size):
            raise ConfigError(
                f"`batch_size`: expected 1 to {n if drop_last else 'any number'}, got {batch_size}"
            )
        if dtype_name(x.dtype) not in (*_BYTES, dtype):
            raise ConfigError(
                f"`ResidentBatches`: expected x of {', '.join(_BYTES)} or {dtype}, got "
                f"{dtype_name(x.dtype)}; convert it with xpmlp.asarray(x, dtype='{dtype}')"
            )
        self.x, self.y, self.rows = x, y, n
        self.batch_size, self.shuffle, self.drop_last = int(batch_size), bool(shuffle), drop_last
        self.seed, self.dtype = int(seed), dtype
        self._gather = load_kernels("cuda", "gather").gather if gather is None else gather
        self._mean, self._std = self._statistics(mean), self._statistics(std)
        self._seeds = self._like(np.array([self.seed], np.uint64))
        self._shapes: dict[int, tuple[Array, Array]] = {}

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.rows, self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def sizes(self) -> Iterator[int]:
        """The number of rows of each batch of an epoch."""
        for index in range(len(self)):
            yield min(self.batch_size, self.rows - index * self.batch_size)

    def like(self, rows: int) -> tuple[Array, Array]:
        """Uninitialised arrays of the shape, type and place of a batch; always the same ones."""
        if rows not in self._shapes:
            self._shapes[rows] = self._new(rows)
        return self._shapes[rows]

    def gather(self, x: Array, y: Array, *, step: Any = None, offset: int = 0) -> None:
        """Write a batch's rows to x and y: batch ``step + offset`` since the first epoch's first.

        Parameters
        ----------
        x, y : array
            As from :meth:`like`.
        step : int64 array of one element, optional
            On the device.
        offset : int
        """
        self._gather(
            self.x,
            self.y,
            x,
            y,
            mean=self._mean,
            std=self._std,
            rows=x.shape[0],
            batch=self.batch_size,
            batches=len(self),
            seeds=self._seeds,
            shuffle=self.shuffle,
            step=step,
            offset=offset,
        )

    def batch(self, epoch: int, index: int) -> tuple[Array, Array]:
        """One batch, in arrays of its own."""
        rows = min(self.batch_size, self.rows - index * self.batch_size)
        x, y = self._new(rows)
        self.gather(x, y, offset=epoch * len(self) + index)
        return x, y

    def epoch(self, number: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of one epoch, as those of :class:`~xpmlp.data.Batches`."""
        for index in range(len(self)):
            yield self.batch(number, index)

    def _new(self, rows: int) -> tuple[Array, Array]:
        xp, place = array_namespace(self.x), array_api_compat.device(self.x)
        dtype = dtype_of(xp, self.dtype)
        x = xp.empty((rows, *self.x.shape[1:]), dtype=dtype, device=place)
        return x, xp.empty((rows, *self.y.shape[1:]), dtype=self.y.dtype, device=place)

    def _statistics(self, values: Any) -> Array | None:
        if values is None:
            return None
        wide = np.asarray(values, np.float64 if self.dtype == "float64" else np.float32)
        if wide.ndim and wide.shape != tuple(self.x.shape[1:]):
            raise ShapeError(
                f"`ResidentBatches`: expected mean and std of shape () or "
                f"{tuple(self.x.shape[1:])}, got {wide.shape}"
            )
        return self._like(wide)

    def _like(self, host: np.ndarray) -> Array:
        """Host values where x is."""
        return array_namespace(self.x).asarray(host)


class StreamedBatches:
    """Batches of host data that travel while the device works on the one before.

    Parameters
    ----------
    x : ndarray, shape (n, …)
    y : ndarray, shape (n,) or (n, …)
    batch_size, shuffle, seed, drop_last
        As in :class:`ResidentBatches`.
    transfer : object, optional
        ``transfer(x_row, y_row, rows)`` gives two page-locked buffers; tests put their own here.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        transfer: Callable[..., Any] | None = None,
    ):
        self.x, self.y, self.rows = x, y, len(x)
        self.batch_size, self.shuffle = int(batch_size), bool(shuffle)
        self.seed, self.drop_last = int(seed), bool(drop_last)
        make = load_kernels("cuda", "transfer").DoubleBuffer if transfer is None else transfer
        self._buffers = make(
            ((self.batch_size, *x.shape[1:]), x.dtype), ((self.batch_size, *y.shape[1:]), y.dtype)
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.rows, self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def epoch(self, number: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of one epoch, x as it is stored.

        A batch's arrays are overwritten two batches later.
        """
        order = np.arange(self.rows)
        if self.shuffle:
            order = permutation(self.rows, seed=self.seed, epoch=number)
        count = len(self)
        if count:
            self._send(order, 0)
        for index in range(count):
            rows = min(self.batch_size, self.rows - index * self.batch_size)
            if index + 1 < count:
                self._send(order, index + 1)
            x, y = self._buffers.receive(index % 2)
            yield x[:rows, ...], y[:rows, ...]
            self._buffers.done(index % 2)

    def _send(self, order: np.ndarray, index: int) -> None:
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        x, y = self._buffers.host(index % 2)
        np.take(self.x, chosen, axis=0, out=x[: len(chosen)], mode="clip")
        np.take(self.y, chosen, axis=0, out=y[: len(chosen)], mode="clip")
        self._buffers.send(index % 2)


def fits_on_device(*arrays: Any, free: int) -> bool:
    """Whether arrays may stay on the device, of which ``free`` bytes are free."""
    needed = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays)
    return needed <= _SHARE * free


def resident_or_streamed(
    x: np.ndarray, y: np.ndarray, *, mean: Any = None, std: Any = None, dtype: str, **options: Any
) -> ResidentBatches | StreamedBatches:
    """Host data on the device if it fits, else streamed to it.

    Parameters
    ----------
    x : ndarray, shape (n, …)
    y : ndarray, shape (n,) or (n, …)
    mean, std, dtype
        As in :class:`ResidentBatches`; streamed batches come as they are stored.
    **options
        ``batch_size``, ``shuffle``, ``seed``, ``drop_last``.
    """
    if fits_on_device(x, y, free=load_kernels("cuda", "transfer").free_memory()):
        return ResidentBatches(asarray(x), asarray(y), mean=mean, std=std, dtype=dtype, **options)
    return StreamedBatches(x, y, **options)
