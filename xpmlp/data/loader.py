"""Minibatches: the data on the device once, and an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..array_libraries import from_dlpack
from ..backend import (
    Array,
    array_namespace,
    asarray,
    detached,
    dtype_name,
    dtype_of,
    get_backend,
    is_array,
    native,
    on_host,
    to_numpy,
)
from ..communication import Communicator, Share
from ..errors import ConfigError, DataError, DTypeError, ShapeError
from ..ops.gather import gather_rows, implementation
from ..ops.targets import check_weight
from ..options import SEED
from ..random import permutation
from .dataset import check_finite, check_range
from .normalization import Normalization, float_type_name
from .sparse_rows import SparseRows, is_sparse

_KEPT = ("uint8", "int8", "uint16", "int16")


class Batches:
    """A data set on the current backend, handed out in minibatches.

    ``x`` and ``y`` are moved to the current backend and device once, here. Integers of 8 or 16
    bits stay as they are in memory and are converted (and normalized) batch by batch; all other
    inputs are normalized in their own precision and converted once, here. In an epoch only row
    numbers travel to the device, all of them at its start.

    Parameters
    ----------
    x : array_like, shape (N, …)
        Inputs: an array of any supported library, nested lists, a data frame of numbers, or a
        sparse matrix of SciPy's, of which each batch's rows are made dense when it is their turn.
    y : array_like, shape (N,) or (N, …), optional
        Targets. Integers stay integers; floats are converted to ``dtype``.
    sample_weight : array_like, shape (N,), optional
        What each row counts for, at least 0 and not 0 for all; in ``dtype``, as a third part of
        each batch.
    batch_size : int
        Rows in a batch; the last one of an epoch may have fewer.
    shuffle : bool
        Whether rows come in another order every epoch; else as stored.
    seed : int
        The order of epoch i is a function of (N, seed, i), the same on every backend.
    drop_last : bool
        Whether to leave out a last batch that is not full.
    normalization : Normalization, optional
        Applied to ``x``.
    dtype : str or dtype, optional
        Float type of the batches; float32 by default.
    reuse : bool
        Whether each batch's inputs may be written over those of the batch before, where the
        library's arrays can be written to. For loops that are done with a batch when they ask for
        the next, and run one epoch at a time.

    ranks : Communicator, optional
        Other processes with the same data: each batch is this one's share of its rows alone, which
        may be none.

    Raises
    ------
    ConfigError
        If ``batch_size`` is below 1, or ``drop_last`` would leave no batch.
    DataError
        If there are no rows, or NumPy's floats (lists and frames too) hold NaN or infinity.
        Arrays on a device are not looked into, which would wait for it.
    ShapeError
        If ``x`` and ``y`` differ in length, or ``normalization`` does not fit ``x``.
    DTypeError
        If ``x`` is not made of integers or floats, or ``dtype`` is no float type.

    Examples
    --------
    >>> batches = Batches(x_train, y_train, batch_size=128, seed=0)    # doctest: +SKIP
    >>> for epoch in range(10):                                        # doctest: +SKIP
    ...     for xb, yb in batches.epoch(epoch):
    ...         step(xb, yb)
    """

    def __init__(
        self,
        x: Array,
        y: Array | None = None,
        *,
        sample_weight: Array | None = None,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        normalization: Normalization | None = None,
        dtype: Any = None,
        reuse: bool = False,
        ranks: Communicator | None = None,
    ):
        if not isinstance(batch_size, int | np.integer) or isinstance(batch_size, bool):
            raise ConfigError(f"`batch_size`: expected a whole number, got {batch_size!r}")
        if batch_size < 1:
            raise ConfigError(f"`batch_size`: expected at least 1, got {batch_size}; try 128")
        sparse = is_sparse(x)
        x = x if sparse else as_array(x)
        y = None if y is None else as_array(y)
        if len(x.shape) == 0 or x.shape[0] == 0:
            raise DataError(f"`Batches`: expected at least one row, got shape {tuple(x.shape)}")
        n = int(x.shape[0])
        if y is not None and (len(y.shape) == 0 or y.shape[0] != n):
            raise ShapeError(
                f"`Batches`: expected one target for each of the {n} rows of x, got y of shape "
                f"{tuple(y.shape)}; check that they belong together"
            )
        if drop_last and n < batch_size:
            raise ConfigError(
                f"`batch_size`: expected at most {n} with drop_last, got {batch_size}: there would "
                "be no batch; lower it, or keep the last batch"
            )
        self.batch_size, self.shuffle = int(batch_size), bool(shuffle)
        self.seed, self.drop_last = SEED.check("Batches", "seed", seed), bool(drop_last)
        self.rows = n
        self.dtype = float_type_name("float32" if dtype is None else dtype)
        dtype_of(get_backend().xp, self.dtype)  # fails here if the backend cannot hold it
        self._converts = not sparse and dtype_name(x.dtype) in _KEPT
        self._mean: Any = None
        self._std: Any = None
        self.x: Any
        if sparse:
            self.x = SparseRows(x, self.dtype, normalization)
        elif self._converts:
            self.x = asarray(x)
            if normalization is not None:
                self._mean, self._std = _of_one_row(
                    *normalization.arrays_for(self.x, self.dtype), self.x.shape[1:]
                )
        else:
            with np.errstate(over="ignore"):  # which is looked for
                narrow = _to_float(x, self.dtype, normalization)
            if normalization is None:
                check_range(x, narrow, "x")
            else:
                check_finite(narrow, "x, normalized")
            self.x = asarray(narrow)
        self._reuse, self._ranks = bool(reuse), ranks
        self._buffer: Any = None
        self.y = None if y is None else _targets(y, self.dtype)
        self.sample_weight = None
        if sample_weight is not None:
            self.sample_weight = _weights(sample_weight, n, self.dtype)

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.rows, self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def epoch(self, number: int = 0) -> Iterator[tuple[Any, ...]]:
        """The batches of one epoch.

        Parameters
        ----------
        number : int
            Which epoch; the same number gives the same order again. Not negative.

        Yields
        ------
        xb : array, shape (B, …)
            Of the float type chosen, normalized.
        yb : array, shape (B, …), or None
            The rows' targets.
        wb : array, shape (B,)
            Their weights, where rows have any.
        """
        if number < 0:
            raise ConfigError(f"`epoch`: expected a number from 0, got {number}")
        return self._epoch(number)

    def _epoch(self, number: int) -> Iterator[tuple[Any, ...]]:
        sparse, weight = isinstance(self.x, SparseRows), self.sample_weight
        xp = get_backend().xp if sparse else array_namespace(self.x)
        targets = (self.y,) if weight is None else (self.y, weight)
        slices = self._slices()
        if not self.shuffle and not self._converts and not sparse:
            for rows in slices:
                yield self.x[rows, ...], *(None if t is None else t[rows, ...] for t in targets)
            return
        if self.shuffle:
            order = asarray(permutation(self.rows, seed=self.seed, epoch=number))
        else:
            order = asarray(np.arange(self.rows))
        gather = self._gatherer(order)
        for rows in slices:
            chosen = order[rows]
            if self.shuffle:
                taken = [None if t is None else xp.take(t, chosen, axis=0) for t in targets]
            else:
                taken = [None if t is None else t[rows, ...] for t in targets]
            yield gather(chosen), *taken

    def _slices(self) -> list[slice]:
        """The places in an epoch's order of each batch's rows, or of this rank's share of them."""
        begins = [i * self.batch_size for i in range(len(self))]
        if self._ranks is None:
            return [slice(begin, min(begin + self.batch_size, self.rows)) for begin in begins]
        own = zip(begins, self.shares(), strict=True)
        return [slice(b + part.first, b + part.first + part.rows) for b, part in own]

    def shares(self) -> list[Share]:
        """With ``ranks``, what this rank has of each batch."""
        assert self._ranks is not None
        size, count = self.batch_size, len(self)
        return [Share.of(min(size, self.rows - i * size), self._ranks) for i in range(count)]

    def _gatherer(self, order: Array) -> Callable[[Array], Array]:
        """What makes a batch's inputs of its row numbers."""
        if isinstance(self.x, SparseRows):
            return self._dense_rows
        mean, std, dtype = self._mean, self._std, self.dtype
        empty = dtype_of(array_namespace(self.x), dtype)
        run = implementation(self.x, order, mean, std, dtype=dtype)

        def gather(chosen: Array) -> Array:
            if not self._reuse:
                return run(self.x, chosen, mean, std, dtype=dtype)
            rows, out = chosen.shape[0], self._buffer
            if not rows:
                return array_namespace(self.x).zeros(tuple(self.x[:0, ...].shape), dtype=empty)
            if out is not None and out.shape[0] != rows:
                out = out[:rows, ...]
            xb = run(self.x, chosen, mean, std, dtype=dtype, out=out)
            if self._buffer is None:
                self._buffer = xb
            return xb

        return gather

    def _dense_rows(self, chosen: Array) -> Array:
        if not self._reuse or get_backend().name != "numpy":
            return self.inputs_of(chosen)
        if self._buffer is None:
            size = min(self.batch_size, self.rows)
            self._buffer = np.empty((size, self.x.shape[1]), self.x.dtype)
        return self.x.dense(chosen, self._buffer[: len(chosen)])

    def inputs_of(self, rows: Array) -> Array:
        """Inputs (…, D) of the rows of these numbers (…), of the batches' type, normalized."""
        if isinstance(self.x, SparseRows):
            return asarray(self.x.dense(to_numpy(rows)))
        return gather_rows(self.x, rows, self._mean, self._std, dtype=self.dtype)


def as_array(values: Any) -> Array:
    """Lists, data frames and what has ``__dlpack__`` as NumPy arrays; arrays as they are, but for
    their order of bytes."""
    values = from_dlpack(values, get_backend())
    try:
        if isinstance(values, bytes | bytearray):
            raise ValueError("bytes")
        array = values if is_array(values) else np.asarray(values)
    except ValueError as error:
        raise DataError(f"expected rows of one length, got {error}") from error
    if isinstance(array, np.ndarray) and array.dtype.kind in "biufcV":
        return native(array)
    if getattr(array, "is_sparse", False):
        raise DataError("expected dense rows, got a sparse tensor; make it dense: x.to_dense()")
    if getattr(array, "is_meta", False):  # torch's word for a shape without values
        raise DataError("expected rows, got a tensor without values, on the device 'meta'")
    return detached(array)


def _of_one_row(mean: Any, std: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Statistics of a row's whole shape, or plain numbers."""
    if isinstance(mean, float):
        return mean, std
    xp = array_namespace(mean)
    # Copied: what broadcasting gives lies in memory in no way that a kernel takes.
    mean, std = (xp.broadcast_to(value, shape) + 0.0 for value in (mean, std))
    return mean, std


def _to_float(x: Array, dtype: str, normalization: Normalization | None) -> Array:
    """Inputs normalized and converted where they are, before they move."""
    check_finite(x, "x")
    if isinstance(x, np.ndarray) and dtype == "bfloat16":
        if normalization is not None:
            x = normalization.apply(x)
        return asarray(np.asarray(x, dtype=np.float32), dtype)  # NumPy has no bfloat16 itself
    if normalization is not None:
        if dtype_name(x.dtype) not in ("float16", "bfloat16", "float32", "float64"):
            # Wide integers: float32 would round them before the mean is taken off.
            xp = array_namespace(x)
            wide = "float64" if isinstance(x, np.ndarray) else dtype
            x = xp.astype(x, dtype_of(xp, wide))
        return normalization.apply(x, dtype)
    xp = array_namespace(x)
    if not xp.isdtype(x.dtype, ("bool", "integral", "real floating")):
        raise DTypeError(f"`x`: expected integers or floats, got {x.dtype}; convert it first")
    return xp.astype(x, dtype_of(xp, dtype), copy=False)


def _weights(weights: Any, rows: int, dtype: str) -> Array:
    """Weights of rows in ``dtype``, once they are known to be some."""
    weights = as_array(weights)
    check_weight("sample_weight", weights, (rows,))
    weights = _targets(weights, dtype)
    xp = array_namespace(weights)
    weights = xp.astype(weights, dtype_of(xp, dtype), copy=False)
    if on_host(weights) and not bool(xp.any(weights > 0)):
        raise DataError("`sample_weight`: expected a weight above 0, got 0 for every row")
    return weights


def _targets(y: Array, dtype: str) -> Array:
    check_finite(y, "y")
    if dtype_name(y.dtype) in ("float16", "bfloat16", "float32", "float64"):
        with np.errstate(over="ignore"):  # which is looked for
            on_numpy = isinstance(y, np.ndarray) and dtype != "bfloat16"
            narrow = y.astype(dtype, copy=False) if on_numpy else asarray(y, dtype)
        check_range(y, narrow, "y")
        return asarray(narrow)
    if isinstance(y, np.ndarray) and y.dtype.kind not in "bui":
        raise DTypeError(
            f"`y`: expected class numbers or floats, got {y.dtype}; names become numbers with "
            "classes, y = numpy.unique(y, return_inverse=True)"
        )
    return asarray(y)
