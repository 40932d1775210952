"""Trainings that can be one population, found and made: in this process or in a worker's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from ..data.orders import Orders
from ..data.sparse_rows import is_sparse
from ..models import FullyConnectedNet
from ..optim import Optimizer
from ..penalties import L2
from ..population import stack
from ..sweep import Settings
from ..sweep.plan import plan
from ..training import History, PopulationTrainer
from ..units import EndWhenAsked
from .host import on_place
from .job import Job

_VARIED = ("lr", "weight_decay", "momentum", "beta1", "beta2")
"""Numbers of optimizers that each member may have of its own."""
_OWN = ("sizes", "dropout", "seed", "population")
"""Options of networks likewise."""
_ENOUGH = 6  # members of a population that sees the same batches
_EACH = 4  # populations for a worker


class Trained(NamedTuple):
    """What came of a job.

    Attributes
    ----------
    history : History
    network : FullyConnectedNet
    seconds : float
        Its share of the time that its population took.
    """

    history: History
    network: FullyConnectedNet
    seconds: float


# --- Which go together ----------------------------------------------------------------------------


def groups_of(jobs: Sequence[Job], workers: int = 1, sharing: int = 1) -> Iterator[list[int]]:
    """The numbers of the jobs that are trained together.

    Parameters
    ----------
    jobs : sequence of Job
    workers : int
        Who train: each gets some populations, so that all have work until the end.
    sharing : int
        How many of them share this machine's memory.
    """
    alike: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        alike.setdefault(_common(job), []).append(number)
    groups = [group for together in alike.values() for group in _by_data(together, jobs)]
    parts = 1 if workers == 1 else -(-workers * _EACH // max(1, len(groups)))
    for group in groups:
        settings = [_settings(jobs[number]) for number in group]
        network = jobs[group[0]].network
        sizes = network.config["sizes"]
        options: dict[str, Any] = {"sharing": sharing}
        for part in plan(settings, 1, sizes[0], sizes[-1], "own", network.dtype, **options):
            for first in range(min(parts, len(part))):
                yield [group[place] for place in part[first::parts]]


def _by_data(numbers: list[int], jobs: Sequence[Job]) -> list[list[int]]:
    """Members that see the same batches by themselves, where there are enough of them: a batch is
    then gathered once for all of them, and stays in the cache."""
    parts: dict[Any, list[int]] = {}
    for number in numbers:
        parts.setdefault(_batches(jobs[number]), []).append(number)
    if jobs[numbers[0]].held_out is not None:
        return list(parts.values())  # who is judged by other rows cannot be with them
    return list(parts.values()) if min(map(len, parts.values())) >= _ENOUGH else [numbers]


def _batches(job: Job) -> tuple[int, int]:
    return job.data_number, job.seed


def _common(job: Job) -> str:
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
    parts += [job.place, job.data[0].dtype.name]
    return repr([*parts, job.held_out is None])


def _settings(job: Job) -> Settings:
    """The same for the planning, by widths and memory."""
    return Settings(
        hidden=tuple(job.network.config["sizes"][1:-1]),
        batch_size=job.batch_size,
        epochs=job.epochs,
        optimizer=job.solver,
    )


# --- The training ---------------------------------------------------------------------------------


def train_group(jobs: Sequence[Job], numbers: Sequence[int]) -> list[Trained] | None:
    """Train the jobs of these numbers as a population, or a single one alone, as a unit of work.

    None if it was interrupted.
    """
    start, group = time.perf_counter(), [jobs[number] for number in numbers]
    with on_place(*group[0].place):
        found = _train_alone(group[0]) if len(group) == 1 else _train_together(group)
    share = (time.perf_counter() - start) / len(group)
    return None if found is None else [Trained(*own, share) for own in found]


def _train_alone(job: Job) -> list[tuple[History, FullyConnectedNet]] | None:
    history = job.alone()
    return None if history.interrupted else [(history, job.network)]


def _train_together(jobs: Sequence[Job]) -> list[tuple[History, FullyConnectedNet]] | None:
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
        callbacks=[first.waiting, EndWhenAsked()],
        shuffle=first.shuffle,
        progress=False,
        **rows,
    )
    weights = data[2] if len(data) > 2 else None
    validation = None if first.held_out is None else tuple(first.held_out)
    history = trainer.fit(data[0], data[1], validation, sample_weight=weights)
    if history.interrupted:
        return None
    members = range(len(jobs))
    return [(history.member(number), trainer.model.member(number)) for number in members]


def _rows_of_each(jobs: Sequence[Job]) -> tuple[list[Any], dict[str, Any]]:
    """All different data, one behind the other, dense ones normalized; and whose rows are which."""
    begin: dict[int, int] = {}
    parts: list[Sequence[Any]] = []
    places, weighted = [], any(len(job.data) > 2 for job in jobs)
    for job in jobs:
        key = job.data_number
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
