"""What is measured beside the loss because someone asked for it: ``metrics=`` of trainers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..losses import Loss
from ..metrics import are_classes, f1, hits, kind_of_answers, mae, r2, rmse, roc_auc, top_k_accuracy

_LARGER = ("accuracy", "r2")  # what trainers measure unasked, a larger value of which is better
_OWN = ("loss", "running")
_TOP = re.compile(r"top([1-9]\d*)")
_ANSWERS = {"classes": "classes", "yes_no": "yes/no questions", "numbers": "numbers"}


@dataclass(frozen=True)
class Metric:
    """A figure of all outputs together, such as trainers take in ``metrics=``.

    Parameters
    ----------
    function : callable
        ``function(y, outputs)`` of targets and a network's outputs, as NumPy arrays (N, …) of all
        rows that count, to a number. Outputs are what the loss takes, such as logits; of Poisson
        regression they are rates.
    larger_is_better : bool, optional
        Needed where something is decided by it, as with ``monitor=``.
    name : str, optional
        Its column is ``val_`` and this. Default: the function's.
    answers : sequence of {"classes", "yes_no", "numbers"}
        What outputs it is for. Default: any.

    Raises
    ------
    ConfigError
        If the function cannot be called, or has no name that could be a column's.

    Examples
    --------
    >>> far_off = Metric(lambda y, outputs: abs(outputs - y).max(), False, "far_off")
    >>> trainer = Trainer(model, MSE(), metrics=["rmse", far_off], monitor="val_far_off")
    """

    function: Callable[[Any, Any], Any]
    larger_is_better: bool | None = None
    name: str = ""
    answers: tuple[str, ...] = tuple(_ANSWERS)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(
                f"`Metric`: expected a function of (y, outputs), got {self.function!r:.200}"
            )
        name = self.name or getattr(self.function, "__name__", "")
        if not isinstance(name, str) or not name.isidentifier() or name in _OWN:
            raise ConfigError(
                f"`Metric`: expected a name for its column, made of letters, got {name!r}; write "
                "Metric(function, name='cost')"
            )
        object.__setattr__(self, "name", name)

    def __call__(self, y: np.ndarray, outputs: np.ndarray) -> float:
        value = self.function(y, outputs)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ConfigError(
                f"`{self.name}`: expected a metric to give a number, got {value!r:.200}"
            ) from None


def _of_outputs(
    name: str, function: Callable[[Any, Any], Any], larger: bool, *answers: str
) -> Metric:
    """One of the library's, which take outputs first."""
    return Metric(partial(_swapped, function), larger, name, answers)


def _swapped(function: Callable[[Any, Any], Any], y: np.ndarray, outputs: np.ndarray) -> Any:
    return function(outputs, y)


def _share_right(outputs: np.ndarray, y: np.ndarray) -> Any:
    if y.ndim == outputs.ndim:
        return np.mean((outputs > 0) == (y > 0.5))
    return np.mean(hits(outputs, y))


KNOWN = {
    metric.name: metric
    for metric in (
        _of_outputs("accuracy", _share_right, True, "classes", "yes_no"),
        _of_outputs("f1", f1, True, "classes", "yes_no"),
        _of_outputs("auc", roc_auc, True, "classes", "yes_no"),
        _of_outputs("r2", r2, True, "numbers"),
        _of_outputs("rmse", rmse, False, "numbers"),
        _of_outputs("mae", mae, False, "numbers"),
    )
}


def r2_of_rows(weight: np.ndarray | None) -> Metric:
    """R² of rows with weights."""
    function = r2 if weight is None else partial(r2, weight=weight)
    return _of_outputs("r2", function, True, "numbers")


def as_metrics(given: Any, loss: Loss) -> dict[str, Metric]:
    """What ``metrics=`` may be, by name.

    Parameters
    ----------
    given : str, callable or Metric, a sequence of these, or a dict of callables by name
        The words are "accuracy", "f1", "auc", "r2", "rmse", "mae", and "top5" for any number.
    loss : Loss
        Whose outputs they are of.

    Raises
    ------
    ConfigError
        For what is none of them, is not for such outputs, or is there twice.
    """
    if isinstance(given, Mapping):
        parts = [_named(name, one) for name, one in given.items()]
    else:
        single = isinstance(given, str) or not isinstance(given, Iterable)
        parts = [_as_metric(one) for one in ([given] if single else given)]
    found = {metric.name: metric for metric in parts}
    if len(found) < len(parts):
        names = ", ".join(metric.name for metric in parts)
        raise ConfigError(f"`metrics`: expected each name once, got {names}")
    for metric in parts:
        if loss.answers is not None and loss.answers not in metric.answers:
            suitable = " and ".join(_ANSWERS[kind] for kind in metric.answers)
            raise ConfigError(
                f"`metrics`: {metric.name} is for {suitable}, and {type(loss).__name__} takes "
                f"outputs as {_ANSWERS[loss.answers]}"
            )
    return found


def _named(name: Any, one: Any) -> Metric:
    known = isinstance(one, str | Metric)
    return replace(_as_metric(one), name=name) if known else Metric(one, None, name)


def _as_metric(one: Any) -> Metric:
    if isinstance(one, Metric):
        return one
    if isinstance(one, str):
        top = _TOP.fullmatch(one)
        if top is not None:
            return _of_outputs(one, partial(top_k_accuracy, k=int(top[1])), True, "classes")
        if one in KNOWN:
            return KNOWN[one]
        raise ConfigError(
            f"`metrics`: expected one of {', '.join(KNOWN)}, top5 (any number), or a function "
            f"(y, outputs), got {one!r}"
        )
    return Metric(one)


def values_of(
    metrics: Mapping[str, Metric],
    loss: Loss,
    outputs: np.ndarray,
    targets: np.ndarray,
    population: int | None,
) -> dict[str, np.ndarray]:
    """Each metric of shape () or (P,), of the rows that the loss counts.

    Parameters
    ----------
    metrics : dict of str to Metric
    loss : Loss
    outputs : ndarray, shape (N, M) or (P, N, M)
    targets : ndarray
        Of the outputs' shape or that without the last axis, or either without P.
    population : int or None
        P.
    """
    classes, kind = are_classes(outputs, targets), kind_of_answers(loss, outputs, targets)
    own = loss.numbers(outputs) if kind == "numbers" and hasattr(loss, "numbers") else outputs
    if kind is not None:
        targets = np.broadcast_to(targets, outputs.shape[:-1] if classes else outputs.shape)
    elif population is not None and targets.shape[:1] != (population,):
        targets = np.broadcast_to(targets, (population, *targets.shape))
    if kind == "classes" and not classes:  # probabilities
        targets, classes = targets.argmax(axis=-1), True
    found = {}
    members = [(own, targets)] if population is None else zip(own, targets, strict=True)
    pairs = [_counted(loss, y, t, classes) for y, t in members]
    for name, metric in metrics.items():
        values = np.array([metric(t, y) for y, t in pairs])
        found[name] = values[0] if population is None else values
    return found


def _counted(loss: Loss, outputs: np.ndarray, targets: np.ndarray, classes: bool) -> Any:
    """The rows that count: of yes/no questions those of which all have an answer."""
    rows = loss.counted(targets) if classes and hasattr(loss, "counted") else None
    if not classes and hasattr(loss, "counted_elements"):
        rows = loss.counted_elements(targets)
        rows = None if rows is None else rows.all(axis=-1)
    return (outputs, targets) if rows is None else (outputs[rows], targets[rows])


def sign_of(column: str, metrics: Mapping[str, Metric]) -> float:
    """1 for a column of which larger values are better, −1 for one of which smaller ones are.

    Raises
    ------
    ConfigError
        If it is a metric that does not say.
    """
    metric = metrics.get(column.partition("_")[2])
    if metric is None:
        return 1.0 if column.endswith(_LARGER) else -1.0
    if metric.larger_is_better is None:
        raise ConfigError(
            f"`monitor`: expected a metric that says which values are better, got {column!r}; "
            f"write Metric({metric.name}, larger_is_better=True), or False"
        )
    return 1.0 if metric.larger_is_better else -1.0
