"""How good predictions are: accuracy, R², confusion matrix, and which of them goes with a loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import Array, array_namespace, dtype_name, to_numpy
from .errors import ConfigError, DataError, ShapeError
from .losses import Loss


def as_rows(outputs: Array, targets: Array, population: int | None) -> tuple[Array, Array]:
    """Outputs (N, M) or (P, N, M) and targets to match; of sequences (N, T, M), all steps as rows.

    Parameters
    ----------
    outputs : array, shape (N, …, M) or (P, N, …, M)
    targets : array
        Of the outputs' shape, or that without its last axis, or either without P.
    population : int or None
        P.

    Raises
    ------
    ShapeError
        If there are more axes of rows than one, and the targets do not have the same.
    """
    lead = 0 if population is None else 1
    if outputs.ndim <= lead + 2:
        return outputs, targets
    shape, own = tuple(outputs.shape), tuple(targets.shape)
    rows = shape[lead:-1]
    for before, after in ((0, 0), (0, 1), (lead, 0), (lead, 1)):
        if own == (*shape[:before], *rows, *shape[len(shape) - after :]):
            xp = array_namespace(outputs)
            targets = xp.reshape(targets, (*shape[:before], -1, *shape[len(shape) - after :]))
            return xp.reshape(outputs, (*shape[:lead], -1, shape[-1])), targets
    raise ShapeError(
        f"`TrainStep`: expected a target for each of the outputs' rows {rows}, as class numbers of "
        f"this shape or as {shape[lead:]}, got targets of shape {own}"
    )


def are_classes(outputs: Array, targets: Array | None) -> bool:
    """Whether targets are class numbers, one for each row of the outputs (…, N, C)."""
    if targets is None:
        return False
    dtype, shape = targets.dtype, tuple(outputs.shape)
    whole = dtype.kind in "iu" if isinstance(dtype, np.dtype) else "int" in dtype_name(dtype)
    return whole and tuple(targets.shape) in (shape[:-1], shape[-2:-1])


def kind_of_answers(loss: Loss, outputs: Array, targets: Array | None) -> str | None:
    """What outputs are scored as: "classes", "yes_no", "numbers", or None if nothing fits."""
    kind = getattr(loss, "answers", None)
    if kind is not None or targets is None:
        return kind
    if are_classes(outputs, targets):
        return "classes"
    shape = tuple(outputs.shape)
    return "numbers" if tuple(targets.shape) in (shape, shape[-2:]) else None


def right_answers(loss: Loss, outputs: Array, targets: Array | None) -> Array | None:
    """How many answers are right, shape (…,); None where they are numbers.

    For classes, rows whose largest output is at the target class, or at the largest target; rows
    that the loss ignores are never right. For yes/no questions, outputs on the side of 0 that the
    target, 0 or 1, is of ½.
    """
    kind = kind_of_answers(loss, outputs, targets)
    if kind == "classes" and targets is not None:
        if not are_classes(outputs, targets):  # probabilities
            targets = array_namespace(targets).argmax(targets, axis=-1)
            return correct(outputs, targets)
        return correct(
            outputs, targets, loss.counted(targets) if hasattr(loss, "counted") else None
        )
    if kind == "yes_no":
        xp = array_namespace(outputs, targets)
        yes = xp.astype(targets, outputs.dtype, copy=False) > 0.5
        return xp.sum(xp.astype((outputs > 0) == yes, xp.int32), axis=(-2, -1))
    return None


def answers_given(loss: Loss, outputs: Array, targets: Array) -> Any:
    """How many answers :func:`right_answers` counts among, a number or of shape (…,)."""
    if kind_of_answers(loss, outputs, targets) == "yes_no":
        return outputs.shape[-2] * outputs.shape[-1]
    counted = loss.counted(targets) if loss.weighs_rows else None
    if counted is None or not are_classes(outputs, targets):
        return outputs.shape[-2]
    xp = array_namespace(counted)
    return xp.sum(xp.astype(counted, xp.int32), axis=-1)


def correct(outputs: Array, targets: Array, counted: Array | None = None) -> Array:
    """How many rows have their largest output at the target class; stays on the device.

    Parameters
    ----------
    outputs : array, shape (…, N, C)
    targets : array of ints, shape (N,) or (…, N)
    counted : array of bools, shape (N,) or (…, N), optional
        The rows to look at. Default: all.

    Returns
    -------
    array of ints, shape (…,)
    """
    xp = array_namespace(outputs, targets)
    found = hits(outputs, targets)
    if counted is not None:
        found = found & counted
    return xp.sum(xp.astype(found, xp.int32), axis=-1)


def hits(outputs: Array, targets: Array) -> Array:
    """Of each row, whether its largest output is at the target class: bools (…, N)."""
    return array_namespace(outputs, targets).argmax(outputs, axis=-1) == targets


def accuracy(outputs: Array, targets: Array) -> Array:
    """The share of rows whose largest output is at the target class, in [0, 1], shape (…,)."""
    return to_numpy(correct(outputs, targets)) / outputs.shape[-2]


def r2(outputs: Array, targets: Array) -> float:
    """``1 − Σ(t − y)² / Σ(t − mean t)²``: 1 is perfect, 0 is no better than the mean.

    Where all targets are equal, 1 if the outputs are the same and 0 if not, as scikit-learn has it.

    Parameters
    ----------
    outputs, targets : array of one shape
    """
    y, t = to_numpy(outputs).astype(np.float64), to_numpy(targets).astype(np.float64)
    if y.shape != t.shape:
        raise ShapeError(f"`r2`: expected targets of the outputs' shape {y.shape}, got {t.shape}")
    error = float(np.sum((t - y) ** 2))
    around = t - t[:1]  # exactly 0 where targets are constant, which t − mean t may not be
    spread = float(np.sum((around - around.mean(axis=0)) ** 2))
    if spread > 0:
        return 1.0 - error / spread
    return float(error == 0.0) if np.isfinite(error) else float("nan")


def confusion_matrix(targets: Array, predictions: Array, classes: int) -> np.ndarray:
    """How often class i was taken for class j.

    Parameters
    ----------
    targets, predictions : array of ints, shape (N,)
    classes : int
        C.

    Returns
    -------
    ndarray of int64, shape (C, C)
        Rows are true classes, columns predicted ones.

    Raises
    ------
    ShapeError, DataError, ConfigError
        If they are not class numbers in 0…C−1, as many of the one as of the other.
    """
    where = "confusion_matrix"
    if not isinstance(classes, int | np.integer) or classes < 1:
        raise ConfigError(f"`{where}`: expected a number of classes ≥ 1, got {classes!r}")
    true, found = (
        np.asarray(to_numpy(a) if hasattr(a, "dtype") else a) for a in (targets, predictions)
    )
    if true.ndim != 1 or true.shape != found.shape:
        raise ShapeError(
            f"`{where}`: expected targets and predictions of one shape (N,), got {true.shape} and "
            f"{found.shape}"
        )
    for name, values in (("targets", true), ("predictions", found)):
        if values.size and (
            values.dtype.kind not in "iu" or not 0 <= values.min() <= values.max() < classes
        ):
            raise DataError(
                f"`{where}`: expected {name} to be class numbers in 0…{classes - 1}, got "
                f"{values.dtype} from {values.min()} to {values.max()}"
            )
    pairs = true.astype(np.int64) * classes + found.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
