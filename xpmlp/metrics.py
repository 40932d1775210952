"""How good predictions are: accuracy, F1, AUC, R², …, and which of them goes with a loss."""

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


def weights_of_rows(weight: Array, outputs: Array, rows: Array) -> Array:
    """Weights (N,) or (P, N) as those of :func:`as_rows`: of a sequence, each step's.

    Parameters
    ----------
    weight : array
    outputs : array
        Before :func:`as_rows`.
    rows : array
        After it.
    """
    steps = rows.shape[-2] // max(weight.shape[-1], 1)
    if rows is outputs or steps * weight.shape[-1] != rows.shape[-2]:
        return weight
    xp = array_namespace(weight)
    shape = (*weight.shape, steps)
    return xp.reshape(xp.broadcast_to(weight[..., None], shape), (*weight.shape[:-1], -1))


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


def right_answers(
    loss: Loss, outputs: Array, targets: Array | None, weight: Array | None = None
) -> Array | None:
    """How many answers are right, shape (…,); None where they are numbers.

    With weights of rows, (N,) or (…, N), each counts as its row weighs.

    For classes, rows whose largest output is at the target class, or at the largest target; rows
    that the loss ignores are never right. For yes/no questions, outputs on the side of 0 that the
    target, 0 or 1, is of ½; those that the loss ignores are never right.
    """
    found = right(loss, outputs, targets)
    if found is None:
        return None
    xp = array_namespace(found)
    if found.ndim < outputs.ndim:
        return _count(xp, found, weight)
    if weight is not None:
        return xp.sum(xp.where(found, weight[..., None], 0.0 * weight[..., None]), axis=(-2, -1))
    return xp.sum(xp.astype(found, xp.int32), axis=(-2, -1))


def right(loss: Loss, outputs: Array, targets: Array | None) -> Array | None:
    """Which answers :func:`right_answers` counts, as bools.

    Returns
    -------
    array, shape (…, N) of classes, (…, N, M) of yes/no questions, or None of numbers
    """
    kind = kind_of_answers(loss, outputs, targets)
    if kind == "classes" and targets is not None:
        if not are_classes(outputs, targets):  # probabilities
            return hits(outputs, array_namespace(targets).argmax(targets, axis=-1))
        found = hits(outputs, targets)
        counted = loss.counted(targets) if hasattr(loss, "counted") else None
        return found if counted is None else found & counted
    if kind == "yes_no":
        xp = array_namespace(outputs, targets)
        found = (outputs > 0) == (xp.astype(targets, outputs.dtype, copy=False) > 0.5)
        kept = _answered(loss, targets)
        return found if kept is None else found & kept
    return None


def answers_given(loss: Loss, outputs: Array, targets: Array, weight: Array | None = None) -> Any:
    """How many answers :func:`right_answers` counts among, a number or of shape (…,)."""
    if kind_of_answers(loss, outputs, targets) == "yes_no":
        kept = _answered(loss, targets)
        if kept is not None:
            xp = array_namespace(kept)
            each = xp.sum(xp.astype(xp.broadcast_to(kept, outputs.shape), xp.int32), axis=-1)
            return xp.sum(each if weight is None else each * weight, axis=-1)
        rows = outputs.shape[-2] if weight is None else array_namespace(weight).sum(weight, axis=-1)
        return rows * outputs.shape[-1]
    counted = loss.counted(targets) if loss.weighs_rows else None
    if counted is None or not are_classes(outputs, targets):
        return outputs.shape[-2] if weight is None else array_namespace(weight).sum(weight, axis=-1)
    return _count(array_namespace(counted), counted, weight)


def _answered(loss: Loss, targets: Array | None) -> Array | None:
    """Which yes/no questions have an answer, as booleans; None for all of them."""
    counted = getattr(loss, "counted_elements", None)
    return None if counted is None or targets is None else counted(targets)


def _count(xp: Any, rows: Array, weight: Array | None) -> Array:
    """How many rows (…, N) are true, or what those weigh."""
    if weight is None:
        return xp.sum(xp.astype(rows, xp.int32), axis=-1)
    return xp.sum(xp.where(rows, weight, 0.0 * weight), axis=-1)


def correct(
    outputs: Array, targets: Array, counted: Array | None = None, weight: Array | None = None
) -> Array:
    """How many rows have their largest output at the target class; stays on the device.

    Parameters
    ----------
    outputs : array, shape (…, N, C)
    targets : array of ints, shape (N,) or (…, N)
    counted : array of bools, shape (N,) or (…, N), optional
        The rows to look at. Default: all.
    weight : array of floats, shape (N,) or (…, N), optional
        What each row counts for. Default: 1.

    Returns
    -------
    array of ints, or with weights of floats, shape (…,)
    """
    xp = array_namespace(outputs, targets)
    found = hits(outputs, targets)
    if counted is not None:
        found = found & counted
    return _count(xp, found, weight)


def hits(outputs: Array, targets: Array) -> Array:
    """Of each row, whether its largest output is at the target class: bools (…, N)."""
    return array_namespace(outputs, targets).argmax(outputs, axis=-1) == targets


def accuracy(outputs: Array, targets: Array) -> Array:
    """The share of rows whose largest output is at the target class, in [0, 1], shape (…,)."""
    return to_numpy(correct(outputs, targets)) / outputs.shape[-2]


def r2(outputs: Array, targets: Array, weight: Array | None = None) -> float:
    """``1 − Σ w (t − y)² / Σ w (t − mean t)²``: 1 is perfect, 0 is no better than the mean.

    Where all targets are equal, 1 if the outputs are the same and 0 if not, as scikit-learn has it.

    Parameters
    ----------
    outputs, targets : array of one shape
    weight : array, shape (N,), optional
        w, what each row counts for, in the mean as well. Default: 1.
    """
    y, t = _numbers("r2", outputs, targets)
    if weight is not None:
        w = to_numpy(weight).astype(np.float64)
        y, t, w = y[w > 0], t[w > 0], w[w > 0]
        w = w.reshape(-1, *[1] * (t.ndim - 1))
    else:
        w = np.ones(1)
    error = float(np.sum(w * (t - y) ** 2))
    around = t - t[:1]  # exactly 0 where targets are constant, which t − mean t may not be
    middle = np.sum(w * around, axis=0) / np.sum(w) if w.size > 1 else around.mean(axis=0)
    spread = float(np.sum(w * (around - middle) ** 2))
    if spread > 0:
        return 1.0 - error / spread
    return float(error == 0.0) if np.isfinite(error) else float("nan")


def rmse(outputs: Array, targets: Array) -> float:
    """``√ mean (y − t)²`` over all elements, in the unit of the targets.

    Parameters
    ----------
    outputs, targets : array of one shape
    """
    y, t = _numbers("rmse", outputs, targets)
    return float(np.sqrt(np.mean((y - t) ** 2)))


def mae(outputs: Array, targets: Array) -> float:
    """``mean |y − t|`` over all elements, in the unit of the targets.

    Parameters
    ----------
    outputs, targets : array of one shape
    """
    y, t = _numbers("mae", outputs, targets)
    return float(np.mean(np.abs(y - t)))


def _numbers(where: str, outputs: Array, targets: Array) -> tuple[np.ndarray, np.ndarray]:
    """Both on the host in float64, once they are known to be of one shape."""
    y, t = (np.asarray(to_numpy(a), np.float64) for a in (outputs, targets))
    if y.shape == t.shape:
        return y, t
    raise ShapeError(f"`{where}`: expected targets of the outputs' shape {y.shape}, got {t.shape}")


def f1(outputs: Array, targets: Array) -> float:
    """F1, the harmonic mean of precision and recall: ``2 TP / (2 TP + FP + FN)``, in [0, 1].

    Parameters
    ----------
    outputs : array, shape (N, C), or (N, M) of yes/no questions
    targets : array, shape (N,) of class numbers, or (N, M) of 0 and 1

    Returns
    -------
    float
        The plain mean over the classes that occur, in targets or answers ("macro"); of yes/no
        questions, that of "yes", as the mean over the M questions.

    Raises
    ------
    ShapeError
        If targets are neither.
    """
    said, true = _answers("f1", outputs, targets)
    right = (said & true).sum(axis=0)
    count = said.sum(axis=0) + true.sum(axis=0)
    shares = 2.0 * right / np.maximum(count, 1)
    if _numbers_of_classes(outputs, targets):
        shares = shares[count > 0]
    return float(np.mean(shares)) if shares.size else float("nan")


def roc_auc(outputs: Array, targets: Array) -> float:
    """Area under the ROC curve: how often a row of a class scores above one that is not of it.

    Parameters
    ----------
    outputs : array, shape (N, C), or (N, M) of yes/no questions
    targets : array, shape (N,) of class numbers, or (N, M) of 0 and 1

    Returns
    -------
    float
        Of two classes, by the difference of their outputs; of more, the plain mean over each
        against all others, by the softmax of the outputs; of yes/no questions the mean over them.
        Classes that no row, or every row, is of are left out; NaN if none is left.

    Raises
    ------
    ShapeError
        If targets are neither.

    Notes
    -----
    By ranks, equal scores having the mean of theirs (Mann and Whitney 1947).
    """
    _, true = _answers("roc_auc", outputs, targets)
    scores = np.asarray(to_numpy(outputs), np.float64)
    if _numbers_of_classes(outputs, targets):
        if scores.shape[1] == 2:
            scores, true = scores[:, 1:] - scores[:, :1], true[:, 1:]
        else:
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = powers / powers.sum(axis=1, keepdims=True)
    if not np.isfinite(scores).all():
        return float("nan")
    areas = [_area(column, yes) for column, yes in zip(scores.T, true.T, strict=True)]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else float("nan")


def _area(scores: np.ndarray, yes: np.ndarray) -> float | None:
    positive = int(yes.sum())
    negative = yes.size - positive
    if not positive or not negative:
        return None
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - 0.5 * (counts - 1))[places]
    return float((ranks[yes].sum() - 0.5 * positive * (positive + 1)) / (positive * negative))


def top_k_accuracy(outputs: Array, targets: Array, k: int) -> float:
    """The share of rows whose target class is among the k largest outputs, in [0, 1].

    Parameters
    ----------
    outputs : array, shape (N, C)
    targets : array of ints, shape (N,)
    k : int
        From 1 to C. With 1 it is the :func:`accuracy`: of equal outputs the first counts as larger.

    Raises
    ------
    ConfigError, ShapeError
        If there are fewer than k classes, or targets are not class numbers.
    """
    _answers("top_k_accuracy", outputs, targets)
    values, t, classes = to_numpy(outputs), to_numpy(targets), outputs.shape[-1]
    if not isinstance(k, int | np.integer) or not 1 <= k <= classes:
        raise ConfigError(
            f"`top_k_accuracy`: expected k from 1 to the number of classes {classes}, got {k!r}"
        )
    own = np.take_along_axis(values, t[:, None].astype(np.int64), axis=1)
    before = np.arange(classes) < t[:, None]
    ahead = ((values > own) | ((values == own) & before)).sum(axis=1)
    return float(np.mean((ahead < k) & ~np.isnan(values).any(axis=1)))


def _numbers_of_classes(outputs: Array, targets: Array) -> bool:
    return targets.ndim == outputs.ndim - 1


def _answers(where: str, outputs: Array, targets: Array) -> tuple[np.ndarray, np.ndarray]:
    """Which class or which questions were said yes to, and which truly: booleans (N, M)."""
    y, t = to_numpy(outputs), to_numpy(targets)
    if y.ndim == 2 and t.shape == y.shape:
        return y > 0, t > 0.5
    if y.ndim != 2 or t.shape != y.shape[:1] or t.dtype.kind not in "iu":
        raise ShapeError(
            f"`{where}`: expected outputs (N, C) with class numbers (N,), or (N, M) with 0 and 1 "
            f"of the same shape, got {y.shape} and {t.dtype} of shape {t.shape}"
        )
    numbers = np.arange(y.shape[1])
    return y.argmax(axis=1)[:, None] == numbers, t[:, None] == numbers


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
