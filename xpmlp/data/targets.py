"""Decide whether targets are classes or numbers, and turn them into what networks train on.

The rule, for a file that does not say: text and truth values are classes. Whole numbers of at most
64 different values, each on average in at least two rows, are classes too. Everything else is a
regression. ``task=`` overrides it.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError, DataError
from .dataset import check_finite

TASKS = ("classification", "regression")
MAX_GUESSED_CLASSES = 64  # letters and digits of both cases are 62


def encode_targets(
    values: np.ndarray, where: str, task: str | None = None
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
    if values.dtype.kind == "O":
        values = np.asarray([str(v) for v in values.reshape(-1)]).reshape(values.shape)
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
    if len(distinct) < 2:
        raise DataError(
            f"`{where}`: expected at least two classes, got only {str(distinct[0])!r}; "
            "is this the right target?"
        )
    if values.dtype.kind == "f":
        distinct = distinct.astype(np.int64)
    return y.astype(np.int64), tuple(str(value) for value in distinct)


def guess_task(values: np.ndarray) -> str:
    """``"classification"`` or ``"regression"``, by the rule at the top of this file."""
    if values.dtype.kind in "bU":
        return "classification"
    if values.dtype.kind in "ui" and values.ndim == 1:
        distinct = len(np.unique(values))
        if distinct <= MAX_GUESSED_CLASSES and 2 * distinct <= len(values):
            return "classification"
    return "regression"


def _one_hot(values: np.ndarray) -> bool:
    """Whether every row of several columns is zeros and a single one."""
    if values.ndim != 2 or values.shape[1] < 2:
        return False
    zeros_and_ones = bool(((values == 0) | (values == 1)).all())
    return zeros_and_ones and bool((values.sum(axis=1) == 1).all())


def check_task(task: str | None) -> None:
    """Raise ConfigError unless ``task`` is known."""
    if task is not None and task not in TASKS:
        raise ConfigError(f"`task`: expected one of {', '.join(TASKS)} or None, got {task!r}")
