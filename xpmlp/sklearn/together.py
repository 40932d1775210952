"""Estimators that are trained as members of populations.

A search fits its candidates twice. The first time (:class:`Collected`) each estimator checks its
data and prepares its training, which is not begun; what can be one population is then trained as
one. The second time (:class:`Prepared`) each ``fit`` is given what came of its training, so that
whoever calls it, scikit-learn's own search, need not know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ..data.orders import Orders
from ..data.sparse_rows import is_sparse
from ..errors import StateError
from ..optim import Optimizer
from ..penalties import L2
from ..population import stack
from ..sweep import Settings
from ..sweep.plan import plan
from ..training import EarlyStopping, PopulationTrainer
from .in_common import InCommon
from .job import Job

_VARIED = ("lr", "weight_decay", "momentum", "beta1", "beta2")
"""Numbers of optimizers that each member may have of its own."""
_OWN = ("sizes", "dropout", "seed", "population")
"""Options of networks likewise."""
_ENOUGH = 6  # members of a population that sees the same batches


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
        self.fits[-1].job = job
        return True

    def train(self) -> list[int]:
        """Train what has been put off: how many members each population had, 1 if alone."""
        left = [fit for fit in self.fits if fit.job is not None and fit.estimator is not None]
        sizes = []
        for group in _groups(left):
            start = time.perf_counter()
            jobs: list[Any] = [fit.job for fit in group]
            with jobs[0].estimator._on_backend():
                histories = [jobs[0].alone()] if len(jobs) == 1 else _train_together(jobs)
            for fit, history in zip(group, histories, strict=True):
                try:
                    fit.estimator._finish(history, fit.job)
                except Exception as error:  # of this candidate; the search says what to do
                    fit.error = error
                fit.job = None
                fit.seconds = (time.perf_counter() - start) / len(group)
            sizes.append(len(group))
        return sizes


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


# --- Which go together ----------------------------------------------------------------------------


def _groups(fits: Sequence[Fit]) -> Iterator[list[Fit]]:
    alike: dict[str, list[Fit]] = {}
    for fit in fits:
        alike.setdefault(_common(fit.job), []).append(fit)
    for together in alike.values():
        for group in _by_data(together):
            settings = [_settings(fit.job) for fit in group]
            sizes = group[0].estimator._network.config["sizes"]
            dtype = group[0].estimator._network.dtype
            for numbers in plan(settings, 1, sizes[0], sizes[-1], "own", dtype):
                yield [group[number] for number in numbers]


def _by_data(fits: list[Fit]) -> list[list[Fit]]:
    """Members that see the same batches by themselves, where there are enough of them: a batch is
    then gathered once for all of them, and stays in the cache."""
    parts: dict[Any, list[Fit]] = {}
    for fit in fits:
        parts.setdefault(_batches(fit.job), []).append(fit)
    if fits[0].job is not None and fits[0].job.held_out is not None:
        return list(parts.values())  # who is judged by other rows cannot be with them
    return list(parts.values()) if min(map(len, parts.values())) >= _ENOUGH else [fits]


def _batches(job: Any) -> tuple[Any, int]:
    return _rows_of(job), job.seed


def _rows_of(job: Any) -> tuple[Any, ...]:
    """Equal for the same data, to train on and to be judged by, with the same scaling."""
    scaling = job.normalization.mean.tobytes(), job.normalization.std.tobytes()
    return tuple(map(id, (*job.data, *(job.held_out or ())))), *scaling


def _common(job: Any) -> str:
    """What trainings must have in common to be those of one population, in words."""
    config, optimizer = job.network.config, job.optimizer
    kept = {name: value for name, value in config.items() if name not in _OWN}
    numbers = {
        name: value
        for name, value in vars(optimizer).items()
        if not name.startswith("_") and name not in (*_VARIED, "steps", "state", "schedule")
    }
    parts = [kept, len(config["sizes"]), config["sizes"][0], config["sizes"][-1]]
    parts += [repr(job.loss), type(optimizer).__name__, optimizer.slots, numbers]
    parts += [getattr(optimizer, "nesterov", None), repr(job.schedule), job.epochs, job.batch_size]
    parts += [job.shuffle, job.rows, is_sparse(job.data[0]), vars(job.waiting), job.monitor]
    parts += [job.estimator.backend, job.estimator.device, job.data[0].dtype.name]
    return repr([*parts, job.held_out is None])


def _settings(job: Any) -> Settings:
    """The same for the planning, by widths and memory."""
    return Settings(
        hidden=tuple(job.network.config["sizes"][1:-1]),
        batch_size=job.batch_size,
        epochs=job.epochs,
        optimizer=job.estimator.solver,
    )


# --- The training ---------------------------------------------------------------------------------


def _train_together(jobs: Sequence[Job]) -> list[Any]:
    """Each job's history; its estimator then has the trained network."""
    first = jobs[0]
    if len(set(map(_batches, jobs))) == 1:
        data: Sequence[Any] = first.data
        rows: dict[str, Any] = {"seed": first.seed, "normalization": first.normalization}
    else:
        data, rows = _rows_of_each(jobs)
    strengths = [job.strength for job in jobs]
    trainer = PopulationTrainer(
        stack([job.network for job in jobs]),
        first.loss,
        _optimizer(jobs),
        epochs=first.epochs,
        batch_size=first.batch_size,
        penalty=L2(_one_or_all(strengths)) if any(strengths) else None,
        monitor=first.monitor if first.held_out is not None else None,
        callbacks=[first.waiting],
        shuffle=first.shuffle,
        progress=False,
        **rows,
    )
    weights = data[2] if len(data) > 2 else None
    validation = None if first.held_out is None else tuple(first.held_out)
    history = trainer.fit(data[0], data[1], validation, sample_weight=weights)
    if history.interrupted:
        raise KeyboardInterrupt
    for number, job in enumerate(jobs):
        job.estimator._network = trainer.model.member(number)
    return [history.member(number) for number in range(len(jobs))]


def _rows_of_each(jobs: Sequence[Job]) -> tuple[list[Any], dict[str, Any]]:
    """All different data, one behind the other, dense ones normalized; and whose rows are which."""
    begin: dict[Any, int] = {}
    parts: list[Sequence[Any]] = []
    places, weighted = [], any(len(job.data) > 2 for job in jobs)
    for job in jobs:
        key = _rows_of(job)
        if key not in begin:
            begin[key] = job.rows * len(parts)
            x, y, *weights = job.data
            x = x if is_sparse(x) else job.normalization.apply(x)
            weights = weights or [np.ones(job.rows)]
            parts.append([x, y, *(weights if weighted else ())])
        places.append(begin[key])
    x, *others = zip(*parts, strict=True)
    own = [place + np.arange(jobs[0].rows) for place in places]
    rows: dict[str, Any] = {"orders": Orders(own, [job.seed for job in jobs])}
    if is_sparse(x[0]):
        rows["normalization"] = [job.normalization for job in jobs]
        every = sparse.vstack(x, format="csr")
    else:
        every = np.concatenate(x)
    return [every, *(np.concatenate(other) for other in others)], rows


def _optimizer(jobs: Sequence[Job]) -> Optimizer:
    """One with each job's own numbers."""
    optimizer = jobs[0].optimizer.copy()
    for name in _VARIED:
        if hasattr(optimizer, name):
            own = [float(getattr(job.optimizer, name)) for job in jobs]
            setattr(optimizer, name, _one_or_all(own))
    optimizer.schedule = jobs[0].schedule
    return optimizer


def _one_or_all(values: Sequence[float]) -> Any:
    """One number where all are equal: kernels like that better."""
    return values[0] if len(set(values)) == 1 else list(values)
