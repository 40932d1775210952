"""Decide whether targets are classes or numbers, and turn them into what networks train on.

The rule, for a file that does not say: text and truth values are classes. Whole numbers, with or
without ``.0``, are classes too if they have at most 10 different values, each on average in at
least two rows; or at most 64 which all have their share of rows, as labels have and counts have
not. Everything else is a regression. ``task=`` overrides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from ..choices import TargetKind
from ..errors import ConfigError, DataError
from .dataset import check_finite

TASKS = get_args(TargetKind)
MAX_GUESSED_CLASSES = 64  # letters and digits of both cases are 62
_FEW = 10  # so many are classes even if some are rare, as grades are
_LEAST_ROWS = 5  # of each of more classes than these
_LEAST_SHARE = 0.2  # of the rows that each would have if all had as many


def encode_targets(
    values: np.ndarray, where: str, task: TargetKind | None = None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Turn raw targets into class numbers with names, or into floats.

    Parameters
    ----------
    values : ndarray, shape (N,) or (N, M)
        Text (dtype ``U`` or ``O``), truth values, integers or floats; no missing ones.
    where : str
        File and column, for messages.
    task : "classification", "regression" or None
        None decides by the rule above.

    Returns
    -------
    y : ndarray
        ``int64 (N,)`` class numbers, or float32 / float64 of the shape of ``values``.
    classes : tuple of str or None
        Names in order: numbers by value, text by code point. None for a regression.

    Raises
    ------
    DataError
        If the values do not suit the task, there is only one class, or a number is not finite; if
        no task is given and the rows look one-hot.
    """
    check_task(task)
    if values.dtype.kind == "O" and values.ndim == 1 and task != "regression":
        return _encode_texts([str(value) for value in values], where)
    if values.dtype.kind == "O":
        values = np.asarray([f"{value!s:.200}" for value in values.flat]).reshape(values.shape)
    if values.dtype.kind not in "buifU":
        raise DataError(
            f"`{where}`: expected targets that are text or numbers, got dtype {values.dtype}; "
            "convert them"
        )
    check_finite(values, where)
    chosen = task or guess_task(values)
    if chosen == "regression":
        if values.dtype.kind == "U":
            raise DataError(
                f"`{where}`: expected numbers as targets of a regression, got text such as "
                f"{str(values.flat[0])!r}; choose another target, or task='classification'"
            )
        if task is None and _one_hot(values):
            raise DataError(
                f"`{where}`: expected class numbers, got what looks like one-hot rows of shape "
                f"{values.shape}; save y.argmax(axis=1), or give task='regression' if they are "
                "numbers"
            )
        return values.astype(np.float32 if values.dtype == np.float32 else np.float64), None
    if values.ndim != 1:
        raise DataError(
            f"`{where}`: expected one class for each row, shape (N,), got {values.shape}; "
            "give class numbers rather than one-hot rows, or task='regression'"
        )
    distinct, y = np.unique(values, return_inverse=True)
    if values.dtype.kind == "f" and bool(np.any(distinct != np.floor(distinct))):
        odd = distinct[distinct != np.floor(distinct)][0]
        raise DataError(
            f"`{where}`: expected whole numbers or text as classes, got {odd}; "
            "round them, or use task='regression'"
        )
    _check_several(distinct, where)
    if values.dtype.kind == "f":
        distinct = distinct.astype(np.int64)
    return y.astype(np.int64), tuple(str(value) for value in distinct)


def _encode_texts(texts: list[str], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Without an array of texts, in which each takes the room of the longest."""
    distinct = sorted(set(texts))
    _check_several(distinct, where)
    places = {text: place for place, text in enumerate(distinct)}
    return np.array([places[text] for text in texts], dtype=np.int64), tuple(distinct)


def _check_several(distinct: Sequence[Any] | np.ndarray, where: str) -> None:
    if len(distinct) < 2:
        got = repr(str(distinct[0]))[:80] if len(distinct) else "none"
        raise DataError(
            f"`{where}`: expected at least two classes, got only {got}; "
            "is this the right target (--target)?"
        )


def guess_task(values: np.ndarray) -> str:
    """``"classification"`` or ``"regression"``, by the rule at the top of this file."""
    if values.dtype.kind in "bU":
        return "classification"
    whole = values.dtype.kind in "ui" or (
        values.dtype.kind == "f" and bool(np.all(values == np.floor(values)))
    )
    if whole and values.ndim == 1:
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= _FEW:
            return "classification" if 2 * len(distinct) <= len(values) else "regression"
        even = counts.min() >= max(_LEAST_ROWS, _LEAST_SHARE * len(values) / len(distinct))
        if even and len(distinct) <= MAX_GUESSED_CLASSES:
            return "classification"
    return "regression"


def _one_hot(values: np.ndarray) -> bool:
    """Whether every row of several columns is zeros and a single one."""
    if values.ndim != 2 or values.shape[1] < 2:
        return False
    zeros_and_ones = bool(((values == 0) | (values == 1)).all())
    return zeros_and_ones and bool((values.sum(axis=1) == 1).all())


def check_task(task: TargetKind | None) -> None:
    """Raise ConfigError unless ``task`` is known."""
    if task is not None and task not in TASKS:
        raise ConfigError(f"`task`: expected one of {', '.join(TASKS)} or None, got {task!r}")
