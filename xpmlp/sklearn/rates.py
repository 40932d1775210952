"""scikit-learn's own learning rates of plain gradient descent: "invscaling" and "adaptive"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..training import Callback, EarlyStopping, ReduceOnPlateau

OF_SGD = ("invscaling", "adaptive")
"""As in scikit-learn, the other solvers do not look at them."""
_LEAST = 1e-6


@dataclass(frozen=True)
class InverseScaling:
    """``(t + 1)^−power`` after t rows, from epoch to epoch; a schedule.

    Attributes
    ----------
    power : float
    before : int
        The rows that the network had seen before step ``first``.
    rows, steps : int
        Of an epoch.
    first : int
        The number of the training's first step.
    """

    power: float
    before: int
    rows: int
    steps: int
    first: int = 0

    def __call__(self, step: int) -> float:
        seen = self.before + self.rows * ((step - self.first) // self.steps)
        return (seen + 1.0) ** -self.power


def schedule_of(estimator: Any, rows: int, steps: int, first: int) -> Any:
    """The schedule of an estimator's training of ``rows`` rows in ``steps`` batches an epoch."""
    name = estimator.learning_rate
    if name == "invscaling" and estimator.solver == "sgd":
        return InverseScaling(float(estimator.power_t), estimator.t_, rows, steps, first)
    return "constant" if name in OF_SGD else name


def waiting_of(estimator: Any, monitor: str) -> Callback:
    """What ends the training when it no longer improves, or first lowers the rate."""
    patience = int(min(estimator.n_iter_no_change, estimator.max_iter + 1))
    options: dict[str, Any] = {"monitor": monitor, "min_delta": estimator.tol}
    if estimator.learning_rate == "adaptive" and estimator.solver == "sgd":
        options |= {"factor": 0.2, "stop_at": _LEAST}
        return ReduceOnPlateau(patience, **options)
    return EarlyStopping(patience, **options)


def is_open_ended(estimator: Any) -> bool:
    """Whether a training goes on until it no longer improves: to reach ``max_iter`` is too early.

    Schedules are planned to end there.
    """
    return estimator.solver == "lbfgs" or estimator.learning_rate in ("constant", *OF_SGD)


def goes_by_batches(estimator: Any) -> bool:
    """Whether there is a ``partial_fit``, for ``available_if``."""
    if estimator.solver == "lbfgs":
        raise AttributeError("expected a solver that goes batch by batch, got 'lbfgs'")
    return True
