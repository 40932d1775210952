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
from contextlib import nullcontext
from typing import Any

import array_api_compat
import numpy as np

from ..backend import (
    Array,
    array_namespace,
    asarray,
    dtype_name,
    dtype_of,
    to_numpy,
    use_backend,
)
from ..choices import FloatName
from ..errors import ConfigError, DataError, ShapeError
from ..ops.dispatch import load_kernels
from ..random import permutation
from .loader import Batches
from .normalization import Normalization

_BYTES = ("uint8", "int8", "uint16", "int16")
_SHARE = 0.5  # of the free device memory that data may fill; the rest is for the step


class _Minibatches:
    """Rows of a data set in batches of one size; the last one of an epoch may have fewer."""

    def __init__(
        self,
        x: Array,
        y: Array,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        mean: Any,
        std: Any,
        dtype: str,
        gather: Callable[..., None] | None,
    ):
        where = type(self).__name__
        n = int(x.shape[0])
        if n == 0 or y.shape[0] != n:
            raise DataError(
                f"`{where}`: expected rows, and as many targets, got x of shape "
                f"{tuple(x.shape)} and y of shape {tuple(y.shape)}"
            )
        if batch_size < 1 or (drop_last and n < batch_size):
            raise ConfigError(
                f"`batch_size`: expected 1 to {n if drop_last else 'any number'}, got {batch_size}"
            )
        if dtype_name(x.dtype) not in (*_BYTES, dtype):
            raise ConfigError(
                f"`{where}`: expected x of {', '.join(_BYTES)} or {dtype}, got "
                f"{dtype_name(x.dtype)}; convert it with xpmlp.asarray(x, dtype='{dtype}')"
            )
        self.x, self.y, self.rows = x, y, n
        self.batch_size, self.shuffle = int(batch_size), bool(shuffle)
        self.seed, self.drop_last, self.dtype = int(seed), bool(drop_last), dtype
        self._gather = load_kernels("cuda", "gather").gather if gather is None else gather
        self._mean, self._std = self._statistics(mean), self._statistics(std)
        self._seeds: Any = np.array([self.seed], np.uint64)

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.rows, self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def sizes(self) -> Iterator[int]:
        """The number of rows of each batch of an epoch."""
        for index in range(len(self)):
            yield min(self.batch_size, self.rows - index * self.batch_size)

    def _move_numbers(self, x: Array) -> None:
        """Statistics and seed to where x is."""
        xp = array_namespace(x)
        if self._mean is not None:
            self._mean, self._std = xp.asarray(self._mean), xp.asarray(self._std)
        self._seeds = xp.asarray(self._seeds)

    def _statistics(self, values: Any) -> Any:
        if values is None:
            return None
        kind = np.float64 if self.dtype == "float64" else np.float32
        wide = np.asarray(values, kind, order="C")
        if wide.ndim and wide.shape != tuple(self.x.shape[1:]):
            raise ShapeError(
                f"`{type(self).__name__}`: expected mean and std of shape () or "
                f"{tuple(self.x.shape[1:])}, got {wide.shape}"
            )
        return wide


class ResidentBatches(_Minibatches):
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
        dtype: FloatName = "float32",
        gather: Callable[..., None] | None = None,
    ):
        super().__init__(
            _dense(x),
            _dense(y),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            mean=mean,
            std=std,
            dtype=dtype,
            gather=gather,
        )
        self._move_numbers(x)
        self._shapes: dict[int, tuple[Array, Array]] = {}

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
        return _empty_batch(rows, self.x, self.y, self.dtype)


class StreamedBatches(_Minibatches):
    """Batches of host data that travel while the device works on the one before.

    Parameters
    ----------
    x : ndarray, shape (n, …)
    y : ndarray, shape (n,) or (n, …)
    batch_size, shuffle, seed, drop_last, mean, std, dtype, gather
        As in :class:`ResidentBatches`.
    transfer : callable, optional
        ``transfer(x_layout, y_layout)`` makes two page-locked places for a batch, and two on the
        device; tests put their own here.
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
        mean: Any = None,
        std: Any = None,
        dtype: FloatName = "float32",
        gather: Callable[..., None] | None = None,
        transfer: Callable[..., Any] | None = None,
    ):
        super().__init__(
            x,
            y,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            mean=mean,
            std=std,
            dtype=dtype,
            gather=gather,
        )
        make = load_kernels("cuda", "transfer").DoubleBuffer if transfer is None else transfer
        size = min(self.batch_size, self.rows)
        self._buffers = make(((size, *x.shape[1:]), x.dtype), ((size, *y.shape[1:]), y.dtype))
        self._batch: tuple[Array, Array] | None = None

    def epoch(self, number: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of one epoch, as those of :class:`~xpmlp.data.Batches`.

        Each is written over the one before.
        """
        order = np.arange(self.rows)
        if self.shuffle:
            order = permutation(self.rows, seed=self.seed, epoch=number)
        try:
            self._send(order, 0)
            for index in range(len(self)):
                if index + 1 < len(self):
                    self._send(order, index + 1)
                yield self._receive(index)
        finally:
            self._buffers.wait()  # also if nobody asks for the batch that is on its way

    def _send(self, order: np.ndarray, index: int) -> None:
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        x, y = self._buffers.host(index % 2)
        np.take(self.x, chosen, axis=0, out=x[: len(chosen)], mode="clip")
        np.take(self.y, chosen, axis=0, out=y[: len(chosen)], mode="clip")
        self._buffers.send(index % 2)

    def _receive(self, index: int) -> tuple[Array, Array]:
        """The batch that has arrived, converted and normalized."""
        x_there, y_there = self._buffers.receive(index % 2)
        if self._batch is None:
            self._batch = _empty_batch(x_there.shape[0], x_there, y_there, self.dtype)
            self._move_numbers(x_there)
        rows = min(self.batch_size, self.rows - index * self.batch_size)
        x, y = (array[:rows, ...] for array in self._batch)
        self._gather(
            x_there,
            y_there,
            x,
            y,
            mean=self._mean,
            std=self._std,
            rows=rows,
            batch=rows,
            batches=1,
            seeds=self._seeds,
            shuffle=False,  # the rows have come in order
        )
        self._buffers.done(index % 2)
        return x, y


def fits_on_device(*arrays: Any, free: int) -> bool:
    """Whether arrays may stay on the device, of which ``free`` bytes are free."""
    needed = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays)
    return needed <= _SHARE * free


def resident_or_streamed(
    x: np.ndarray, y: np.ndarray, **options: Any
) -> ResidentBatches | StreamedBatches:
    """Host data on the device if it fits, else streamed to it.

    Parameters
    ----------
    x : ndarray, shape (n, …)
    y : ndarray, shape (n,) or (n, …)
    **options
        As in :class:`ResidentBatches`.
    """
    if fits_on_device(x, y, free=load_kernels("cuda", "transfer").free_memory()):
        try:
            return ResidentBatches(asarray(x), asarray(y), **options)
        except MemoryError:
            pass  # what is free is in pieces, or somebody else was quicker
    return StreamedBatches(x, y, **options)


def batches_on_device(
    x: Array,
    y: Array,
    *,
    dtype: str,
    normalization: Normalization | None = None,
    **options: Any,
) -> ResidentBatches | StreamedBatches:
    """The batches of :class:`~xpmlp.data.Batches`, with the same checks, for a captured step.

    Parameters
    ----------
    x : array, shape (n, …)
        On the host, or on the device already.
    y : array, shape (n,) or (n, …)
    dtype : {"float32", "float64"}
    normalization : Normalization, optional
    **options
        ``batch_size``, ``shuffle``, ``seed``, ``drop_last``.
    """
    there = array_api_compat.is_cupy_array(x)
    with nullcontext() if there else use_backend("numpy"):
        data = Batches(x, y, dtype=dtype, normalization=normalization, **options)
    mean, std = (None if v is None else _on_host(v) for v in (data._mean, data._std))
    options |= {"mean": mean, "std": std, "dtype": data.dtype}
    targets: Any = data.y
    if there:
        return ResidentBatches(data.x, targets, **options)
    return resident_or_streamed(data.x, targets, **options)


def _empty_batch(rows: int, x: Array, y: Array, dtype: str) -> tuple[Array, Array]:
    """Uninitialised arrays for some rows of a data set, where the data are."""
    xp, place = array_namespace(x), array_api_compat.device(x)
    x_new = xp.empty((rows, *x.shape[1:]), dtype=dtype_of(xp, dtype), device=place)
    return x_new, xp.empty((rows, *y.shape[1:]), dtype=y.dtype, device=place)


def _on_host(value: Any) -> Any:
    return value if isinstance(value, float) else to_numpy(value)


def _dense(x: Array) -> Array:
    """x in C order, as the kernel reads it, copied if it is not: Fortran's, such as a table's."""
    return x if x.flags.c_contiguous else x.copy()
