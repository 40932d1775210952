"""One definition of figures: those of several batches are those of all their rows at once.

A loss that is a mean is the mean over all rows that count, by their weights; one that is a sum is
the sum. Accuracies are shares of all answers, R² is of all numbers together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, to_numpy
from ..communication import Communicator
from ..errors import ConfigError
from ..layers.base import Layer
from ..losses import Loss
from ..metrics import (
    answers_given,
    are_classes,
    as_rows,
    kind_of_answers,
    right_answers,
    weights_of_rows,
)
from ..step import Evaluation
from .chosen_metrics import Metric, r2_of_rows, sign_of, values_of

_NO_METRICS: Mapping[str, Metric] = MappingProxyType({})


def pooled_loss(loss: Loss, values: Any, units: Any) -> np.ndarray:
    """The loss over several batches, of shape (…,).

    Parameters
    ----------
    loss : Loss
    values : array, shape (batches, …)
        Of each batch.
    units : array, shape (batches,) or (batches, …)
        What each batch's mean divided by: :meth:`~xpmlp.losses.Loss.units`.
    """
    values, units = np.asarray(values, np.float64), np.asarray(units, np.float64)
    if getattr(loss, "reduction", "mean") == "sum":
        return np.asarray(values.sum(axis=0))
    units = units.reshape(*units.shape, *[1] * (values.ndim - units.ndim))
    # A batch without any weight divides by 1 in place of 0.
    sums = np.sum(values * np.where(units > 0, units, 1.0), axis=0)
    total = units.sum(axis=0)
    return np.asarray(sums / np.where(total > 0, total, 1.0))


def share(right: Any, given: Any) -> np.ndarray:
    """Right answers of those given over several batches (batches, …), NaN if there were none."""
    right, given = np.asarray(right, np.float64), np.asarray(given, np.float64)
    total = given.sum(axis=0)
    return np.asarray(right.sum(axis=0) / np.where(total > 0, total, np.nan))


def together(values: Sequence[Any]) -> np.ndarray:
    """Numbers, or arrays that may be on a device, of each batch as one array on the host."""
    if not hasattr(values[0], "dtype"):
        return np.asarray(values)
    return to_numpy(array_namespace(values[0]).stack(list(values)))


def scores_of(
    model: Layer,
    loss: Loss,
    batches: Iterable[tuple[Any, ...]],
    metrics: Mapping[str, Metric] = _NO_METRICS,
    ranks: Communicator | None = None,
) -> dict[str, np.ndarray]:
    """Loss and accuracy, or R² for numbers, and metrics, in evaluation mode, of shape () or (P,).

    Metrics are of all batches' outputs together: what is no mean over rows is no mean of batches.
    Where batches have weights of rows as their third part, all but ``metrics`` go by them. With
    ``ranks``, batches are this rank's share, and scores those of all.
    """
    check_reduces("evaluate", loss)
    evaluation = Evaluation(model, loss)
    values, units, right, given = [], [], [], []
    kept: list[tuple[np.ndarray, np.ndarray]] = []  # outputs and targets
    of_rows: list[np.ndarray] = []  # weights
    numeric = False
    for xb, yb, *weights in batches:
        if ranks is not None and 0 in xb.shape:
            continue  # a batch of which this rank has no rows
        found = evaluation.score(xb, yb, *weights)
        own = evaluation.outputs(xb) if found is None else found.outputs
        outputs, targets = as_rows(own, yb, model.population)
        weights = [weights_of_rows(weight, own, outputs) for weight in weights]
        check_outputs("evaluate", loss, outputs.shape[-1], targets)
        if found is not None:
            value = found.value
        elif weights:
            value = loss.weighted(outputs, targets, *weights)
        else:
            value = loss.forward(outputs, targets)
        values.append(_on_host(value))
        units.append(np.asarray(_on_host(loss.units(outputs, targets, *weights))))
        hits = None if found is None or weights else found.correct
        hits = right_answers(loss, outputs, targets, *weights) if hits is None else hits
        if hits is not None:
            right.append(to_numpy(hits))
            given.append(np.asarray(_on_host(answers_given(loss, outputs, targets, *weights))))
        numeric = hits is None and kind_of_answers(loss, outputs, targets) == "numbers"
        if numeric or metrics:
            # Copies: x may be the output.
            kept.append((np.array(to_numpy(outputs)), np.array(to_numpy(targets))))
            of_rows += [to_numpy(weight) for weight in weights]
    if ranks is not None:
        own = values, units, right, given, kept, of_rows, [numeric]
        parts = zip(*ranks.everyone(own), strict=True)
        joined = [[each for part in lists for each in part] for lists in parts]
        values, units, right, given, kept, of_rows = joined[:-1]
        numeric = any(joined[-1])
    scores = {"loss": pooled_loss(loss, values, units)}
    if right:
        scores["accuracy"] = share(right, given)
    weight = np.concatenate(of_rows, axis=-1) if of_rows else None
    wanted = {"r2": r2_of_rows(weight), **metrics} if numeric else metrics
    if kept and wanted:
        first, answer = kept[0]
        axis = max(0, answer.ndim - (1 if are_classes(first, answer) else 2))
        outputs = np.concatenate([part for part, _ in kept], axis=-2)
        targets = np.concatenate([part for _, part in kept], axis=axis)
        scores |= values_of(wanted, loss, outputs, targets, model.population)
    return scores


def score_of_epoch(
    row: Mapping[str, Any],
    monitor: str | None = None,
    metrics: Mapping[str, Metric] = _NO_METRICS,
) -> tuple[float, ...]:
    """What a larger value of is better, of an epoch; a loss breaks ties of accuracies.

    Parameters
    ----------
    row : mapping
        Of the history.
    monitor : str, optional
        The column that counts. Default: ``val_accuracy`` where there is one, else ``val_loss``.
    metrics : dict of str to Metric, optional
        Which say what is better, if the column is of one of them.
    """
    column = monitor or ("val_accuracy" if "val_accuracy" in row else "val_loss")
    if column not in row:
        raise ConfigError(
            f"`Trainer`: expected monitor to be one of {', '.join(row)}, got {column!r}"
        )
    scores = sign_of(column, metrics) * row[column], -row["val_loss"]
    return tuple(score if np.isfinite(score) else -np.inf for score in scores)


def check_reduces(where: str, loss: Loss) -> None:
    """Raise ConfigError for a loss that gives a value for each row."""
    if getattr(loss, "reduction", "mean") == "none":
        raise ConfigError(
            f"`{where}`: expected a loss that is one number, with reduction 'mean' or 'sum', got "
            f"{loss!r}; for a value for each row call loss.forward(model.forward(x), y)"
        )


def check_outputs(where: str, loss: Loss, outputs: int, targets: Array) -> None:
    """Raise ConfigError for a choice among one class, unless the targets are that class."""
    if outputs != 1 or getattr(loss, "answers", None) != "classes":
        return
    known = np.asarray(to_numpy(targets))
    if known.dtype.kind not in "iu" or known.any():
        raise ConfigError(
            f"`{where}`: expected at least 2 outputs for {type(loss).__name__}, one for each "
            "class, got 1, whose loss is always 0; a yes/no question is output='sigmoid' with "
            "BCEWithLogits() and targets (N, 1) of 0 and 1, a number output='identity' with "
            "MSE() and targets (N, 1)"
        )


def _on_host(value: Any) -> Any:
    return to_numpy(value) if hasattr(value, "dtype") else value
