"""How good predictions are: accuracy, R², confusion matrix."""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_namespace, dtype_name, to_numpy
from ..errors import ShapeError


def are_classes(outputs: Array, targets: Array | None) -> bool:
    """Whether targets are class numbers, one for each row of the outputs (…, N, C)."""
    if targets is None:
        return False
    dtype, shape = targets.dtype, tuple(outputs.shape)
    # At every step: NumPy would put the dtype's name together anew.
    whole = dtype.kind in "iu" if isinstance(dtype, np.dtype) else "int" in dtype_name(dtype)
    return whole and tuple(targets.shape) in (shape[:-1], shape[-2:-1])


def correct(outputs: Array, targets: Array) -> Array:
    """How many rows have their largest output at the target class; stays on the device.

    Parameters
    ----------
    outputs : array, shape (…, N, C)
    targets : array of ints, shape (N,) or (…, N)

    Returns
    -------
    array of ints, shape (…,)
    """
    xp = array_namespace(outputs, targets)
    return xp.sum(xp.astype(hits(outputs, targets), xp.int32), axis=-1)


def hits(outputs: Array, targets: Array) -> Array:
    """Of each row, whether its largest output is at the target class: bools (…, N)."""
    return array_namespace(outputs, targets).argmax(outputs, axis=-1) == targets


def accuracy(outputs: Array, targets: Array) -> Array:
    """The share of rows whose largest output is at the target class, in [0, 1], shape (…,)."""
    return to_numpy(correct(outputs, targets)) / outputs.shape[-2]


def r2(outputs: Array, targets: Array) -> float:
    """``1 − Σ(t − y)² / Σ(t − mean t)²``: 1 is perfect, 0 is no better than the mean.

    Parameters
    ----------
    outputs, targets : array of one shape
    """
    y, t = to_numpy(outputs).astype(np.float64), to_numpy(targets).astype(np.float64)
    if y.shape != t.shape:
        raise ShapeError(f"`r2`: expected targets of the outputs' shape {y.shape}, got {t.shape}")
    spread = float(np.sum((t - t.mean(axis=0)) ** 2))
    error = float(np.sum((t - y) ** 2))
    return 1.0 - error / spread if spread > 0 else float("nan")


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
    """
    pairs = to_numpy(targets).astype(np.int64) * classes + to_numpy(predictions)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
