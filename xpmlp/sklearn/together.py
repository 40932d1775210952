"""Estimators that are trained as members of populations.

A search fits its candidates twice. The first time (:class:`Collected`) each estimator checks its
data and prepares its training, which is not begun; what can be one population is then trained as
one. The second time (:class:`Prepared`) each ``fit`` is given what came of its training, so that
whoever calls it, scikit-learn's own search, need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from ..errors import StateError, WorkerError
from ..training import EarlyStopping
from ..units import Pool, Units
from .groups import Trained, groups_of, train_group
from .in_common import InCommon
from .job import Job


@dataclass
class Fit:
    """One call of ``fit`` and what came of it.

    Attributes
    ----------
    parameters : str
        The estimator's, in words.
    estimator : BaseMLP or None
        The fitted one; None if it could not even begin.
    job : Job or None
        What is left to train.
    error : Exception or None
        That the training ended with.
    seconds : float
        Its share of the time that its population took.
    """

    parameters: str
    estimator: Any = None
    job: Job | None = None
    error: Exception | None = None
    seconds: float = 0.0

    def take(self, trained: Trained | None, failure: str | None) -> None:
        """Give the estimator what came of its training, or keep why nothing came."""
        job, self.job = self.job, None
        if trained is None:
            self.error = WorkerError(f"`PopulationSearchCV`: expected trained networks, {failure}")
            return
        self.seconds = trained.seconds
        try:
            self.estimator._finish(job, trained.history, trained.network)
        except Exception as error:  # of this candidate; the search says what to do
            self.error = error


class Collected:
    """The first time: what is fitted is prepared, and trained by :meth:`train`.

    Attributes
    ----------
    fits : list of Fit
        In the order of the calls.
    """

    def __init__(self) -> None:
        self.fits: list[Fit] = []
        self._common = InCommon()
        self.once = self._common.once

    def fit(self, estimator: Any, train: Callable[[], Any]) -> Any:
        """In place of ``estimator.fit``."""
        own = Fit(_parameters(estimator))
        self.fits.append(own)
        train()
        own.estimator = estimator
        return estimator

    def takes(self, job: Job) -> bool:
        """Whether a training can be put off, to be made with others."""
        if type(job.waiting) is not EarlyStopping:
            return False
        job.data = [self._common.same(values) for values in job.data]
        if job.held_out is not None:
            job.held_out = [self._common.same(values) for values in job.held_out]
        job.data_number = self._common.number_of(
            *job.data, *(job.held_out or ()), job.normalization.mean, job.normalization.std
        )
        self.fits[-1].job = job
        return True

    def train(self, executor: Executor | Callable[[], Executor] | None = None) -> list[int]:
        """Train what has been put off: how many members each population had, 1 if alone.

        Raises
        ------
        ConfigError
            For an executor that is none.
        KeyboardInterrupt
            If the training was interrupted.
        """
        left = [fit for fit in self.fits if fit.job is not None and fit.estimator is not None]
        with Pool(executor) as pool:
            jobs = [fit.job for fit in left if fit.job is not None]
            groups = list(groups_of(jobs, pool.workers, pool.sharing))
            units = Units(train_group, groups, jobs, pool)
            for outcome in units:
                trained, failure = outcome.result, outcome.failure
                if trained is None and failure is None:  # it was interrupted
                    break
                numbers = groups[outcome.number]
                for number, one in zip(numbers, trained or [None] * len(numbers), strict=True):
                    left[number].take(one, failure)
        if any(fit.job is not None for fit in left):
            raise KeyboardInterrupt
        return [len(group) for group in groups]


class Prepared:
    """The second time: ``fit`` gives what there is."""

    def __init__(self, fits: Sequence[Fit]):
        self._left = iter(fits)

    def fit(self, estimator: Any, train: Callable[[], Any]) -> Any:
        """In place of ``estimator.fit``; what comes after the last of them is trained."""
        own = next(self._left, None)
        if own is None:
            return train()
        if own.parameters != _parameters(estimator):
            raise StateError(
                "`PopulationSearchCV`: expected estimators in the order in which they were "
                f"prepared, got {_parameters(estimator)} in place of {own.parameters}; the "
                "splitter or a step of the pipeline may not be the same each time"
            )
        if own.error is not None:
            raise own.error
        if own.estimator is None:
            return train()
        names = estimator.get_params(deep=False)
        vars(estimator).update({n: v for n, v in vars(own.estimator).items() if n not in names})
        own.estimator = None  # the search keeps it no longer than scikit-learn's
        return estimator

    def takes(self, job: Job) -> bool:
        """Nothing is put off any more."""
        return False

    def once(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Nor is anything kept."""
        return function(*arguments, **options)


def _parameters(estimator: Any) -> str:
    given = {name: value for name, value in estimator.get_params(deep=False).items()}
    given["random_state"] = type(given["random_state"]).__name__  # a generator goes on
    return f"{type(estimator).__name__}({given})"
