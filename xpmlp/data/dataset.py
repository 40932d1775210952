"""A data set in memory: training and test arrays that have been checked, and where they came from.

Whatever its source, a data set that exists is fit for training: equal lengths, labels in range,
finite numbers. A file that breaks one of these never becomes a :class:`Dataset`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..backend import Array, array_namespace, dtype_name, on_host, to_numpy
from ..errors import DataError
from .splits import part_size, split_groups, split_rows

if TYPE_CHECKING:
    from .tables.info import TableInfo

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test data, as NumPy arrays on the host.

    Parameters
    ----------
    name : str
        Such as ``"mnist"``, or a file's name without its ending.
    x_train, x_test : ndarray, shape (N, …)
        Inputs as they were stored: ``uint8`` for images, floats for tables. At least two axes.
    y_train, y_test : ndarray
        Classification: ``int64 (N,)``, class numbers in 0…C-1. Regression: ``float32`` or
        ``float64``, shape ``(N,)`` or ``(N, M)``.
    classes : tuple of str or None
        The C class names; None makes it a regression.
    features : tuple of str or None
        Column names of a table, one for each column of ``x`` (then ``x`` is ``(N, D)``).
    source : str
        Where the data came from and how to cite it, in one line.
    table : TableInfo, optional
        How a table was understood, where it came from one.

    Raises
    ------
    DataError
        If lengths differ, a part is empty, a label is out of range, or a number is NaN or
        infinite; the message names the column, the first row and how many there are.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...] | None
    features: tuple[str, ...] | None
    source: str
    table: TableInfo | None = None

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            y = self._check_part(part, getattr(self, f"x_{part}"), getattr(self, f"y_{part}"))
            object.__setattr__(self, f"y_{part}", y)
        for letter in ("x", "y"):
            train, test = getattr(self, f"{letter}_train"), getattr(self, f"{letter}_test")
            if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
                raise DataError(
                    f"`{self.name}`: expected {letter}_train and {letter}_test of one kind, got "
                    f"{train.dtype} {train.shape} and {test.dtype} {test.shape}; "
                    "convert them to the same columns and dtype"
                )

    @property
    def task(self) -> str:
        """``"classification"`` or ``"regression"``."""
        return "regression" if self.classes is None else "classification"

    def split_validation(self, size: int | float, seed: int | None = 0) -> tuple[Pair, Pair]:
        """Divide the training set into one to train on and one to validate on.

        With an integer ``seed`` the rows are shuffled first and, for classification, every class
        gives its share (stratified). With ``seed=None`` the *last* ``size`` rows are taken as they
        stand, as the usual 49,000 / 1,000 split of CIFAR-10 does; so are they where the rows of a
        table are in order of time. Rows of a table's group stay together.

        Parameters
        ----------
        size : int or float
            Rows to validate on, as a count or as a fraction of the training set.
        seed : int or None
            Seed of the shuffle, or None for the last rows.

        Returns
        -------
        (x_train, y_train), (x_validation, y_validation)
            Views of the arrays with ``seed=None``, copies otherwise.

        Raises
        ------
        ConfigError
            If ``size`` leaves either part empty.
        """
        n = len(self.x_train)
        held = part_size(size, n, "validation size")
        if seed is None or (self.table is not None and self.table.ordered):
            cut = n - held
            return (
                (self.x_train[:cut], self.y_train[:cut]),
                (self.x_train[cut:], self.y_train[cut:]),
            )
        labels = None if self.classes is None else self.y_train
        if self.table is not None and self.table.groups is not None:
            kept, validation = split_groups(self.table.groups, held, seed=seed)
        else:
            kept, validation = split_rows(n, held, seed=seed, labels=labels)
        return (
            (self.x_train[kept], self.y_train[kept]),
            (self.x_train[validation], self.y_train[validation]),
        )

    def _check_part(self, part: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Check one part; return its targets, class numbers widened to int64."""
        if x.ndim < 2 or len(x) == 0 or 0 in x.shape:
            raise DataError(
                f"`{self.name}`: expected x_{part} of shape (N, …) with at least one row and one "
                f"column, got {x.shape}; check that the file holds data"
            )
        if len(x) != len(y):
            raise DataError(
                f"`{self.name}`: expected as many rows in x_{part} as in y_{part}, got {len(x)} "
                f"and {len(y)}; they do not belong together"
            )
        if x.dtype.kind not in "buif":
            raise DataError(
                f"`{self.name}`: expected numbers in x_{part}, got dtype {x.dtype}; "
                "encode other values as numbers first"
            )
        if self.features is not None and x.shape[1:] != (len(self.features),):
            raise DataError(
                f"`{self.name}`: expected x_{part} of shape (N, {len(self.features)}), one column "
                f"for each name in features, got {x.shape}"
            )
        check_finite(x, f"{self.name}: x_{part}", self.features)
        if self.classes is None:
            return self._check_targets(part, y)
        return self._check_labels(part, y, len(self.classes))

    def _check_targets(self, part: str, y: np.ndarray) -> np.ndarray:
        if y.dtype not in (np.float32, np.float64) or y.ndim not in (1, 2) or 0 in y.shape:
            raise DataError(
                f"`{self.name}`: expected y_{part} as float32 or float64 of shape (N,) or (N, M) "
                f"for regression, got {y.dtype} {y.shape}; convert it, or give class names"
            )
        check_finite(y, f"{self.name}: y_{part}")
        return y

    def _check_labels(self, part: str, y: np.ndarray, n_classes: int) -> np.ndarray:
        if y.ndim != 1 or y.dtype.kind not in "ui":
            raise DataError(
                f"`{self.name}`: expected y_{part} as whole class numbers of shape (N,), got "
                f"{y.dtype} {y.shape}; one class number for each row"
            )
        wrong = np.flatnonzero((y < 0) | (y >= n_classes))
        if wrong.size:
            raise DataError(
                f"`{self.name}`: expected labels in 0…{n_classes - 1} in y_{part}, got "
                f"{y[wrong[0]]} in row {wrong[0]} ({wrong.size} such labels in all); "
                "number the classes from 0, or name all of them"
            )
        return y.astype(np.int64, copy=False)


def check_finite(
    x: Array, where: str, features: tuple[str, ...] | None = None, first_row: int = 0
) -> None:
    """Raise DataError if a float array holds NaN or infinity, saying where and how many.

    Parameters
    ----------
    x : array of any library, shape (N, …)
        Integer arrays always pass. One on a device is looked at there, which waits for it once.
    where : str
        What to call the array in the message.
    features : tuple of str, optional
        Column names; without them columns are numbers.
    first_row : int
        The number that the first row has for the reader of the message.
    """
    if not isinstance(x, np.ndarray):
        if "float" not in dtype_name(x.dtype):
            return
        if not on_host(x):
            xp = array_namespace(x)
            if bool(xp.all(xp.isfinite(x))):
                return
        x = to_numpy(x)
    if x.dtype.kind != "f" or bool(np.isfinite(x).all()):
        return
    bad = ~np.isfinite(x)
    total = int(bad.sum())
    column = ""
    if x.ndim == 2:
        index = int(np.flatnonzero(bad.any(axis=0))[0])
        name = repr(features[index]) if features else f"number {index}"
        column = f" column {name}"
        bad = bad[:, index]
    bad_rows = bad.reshape(len(x), -1)
    row = int(np.flatnonzero(bad_rows.any(axis=1))[0])
    count = int(bad.sum())
    others = f", {total - count} more in other columns" if total > count else ""
    nan = np.isnan(x[row] if x.ndim != 2 else x[row, index]).any()
    kind = "NaN (missing)" if nan else "infinite"
    raise DataError(
        f"`{where}`: expected finite numbers, got {count} NaN or infinite values in{column} "
        f"(the first, {kind}, in row {row + first_row}{others}); fill them or drop those rows"
    )


def check_range(x: Array, narrow: Array, where: str) -> None:
    """Raise DataError where converting finite numbers to a narrower dtype has made them infinite.

    Parameters
    ----------
    x : array of finite numbers
    narrow : array
        The same, converted.
    where : str
        What to call the array in the message.
    """
    if dtype_name(x.dtype) == dtype_name(narrow.dtype):
        return
    try:
        check_finite(narrow, where)
    except DataError:
        largest = float(np.abs(to_numpy(x).astype(np.float64)).max())
        raise DataError(
            f"`{where}`: expected numbers that {dtype_name(narrow.dtype)} can hold, got "
            f"{largest:.4g}; scale them, or compute in float64 (dtype='float64')"
        ) from None
