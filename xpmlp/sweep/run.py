"""Training a list of settings, as few populations as they fit into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..choices import FloatName, Output, Sampling
from ..data import Normalization
from ..errors import ConfigError, WorkerError
from ..training import Callback, EarlyStopping, PopulationTrainer
from ..training.identity import identity_of
from ..training.minibatches import is_pair
from ..units import EndWhenAsked, Pool, Units
from .checkpoints import SweepCheckpoints
from .grid import check_points
from .halving import Halving
from .plan import plan
from .result import SweepResult
from .settings import Settings, build_loss, build_optimizer, build_population


def sweep(
    x: Any,
    y: Any,
    validation: tuple[Any, Any],
    settings: Sequence[Settings],
    *,
    outputs: int,
    output: Output = "softmax",
    seeds: int | Sequence[int] = 1,
    sampling: Sampling = "shared",
    normalization: Normalization | None = None,
    halving: bool = False,
    patience: int | None = None,
    memory: int | None = None,
    keep: Sequence[int] = (),
    callbacks: Callable[[Sequence[tuple[int, int]]], Iterable[Callback]] | None = None,
    dtype: FloatName = "float32",
    checkpoints: SweepCheckpoints | str | Path | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    shard: tuple[int, int] | None = None,
    on_population: Callable[[SweepResult], None] | None = None,
) -> SweepResult:
    """Train every setting with every seed, together as far as memory allows.

    Parameters
    ----------
    x, y : array_like, shape (N, …) and (N,) or (N, M)
    validation : (x, y)
        What settings are compared on, and what tells each member's best epoch.
    settings : sequence of Settings
        Those with the same batch size, depth and optimizer become one population.
    outputs : int
        M, or the number of classes.
    output : {"softmax", "sigmoid", "identity"}
    seeds : int or sequence of int
        How many, from 0, or which ones.
    sampling : {"shared", "own", "bootstrap"}
        As for :class:`~xpmlp.training.PopulationTrainer`; "own" takes each member's seed.
    normalization : Normalization, optional
    halving : bool
        Drop the worse half of a population's settings again and again; see :class:`Halving`.
    patience : int, optional
        Stop each member after so many epochs without a better validation loss.
    memory : int, optional
        Bytes that may be used. Default: most of what is free.
    keep : sequence of int
        Settings whose models are wanted as well as the best one's; halving spares them.
    callbacks : function, optional
        Called with the (setting, seed) of each member of a population about to be trained; gives
        callbacks for its training. With an executor that happens in a worker.
    dtype : str
    checkpoints : path or SweepCheckpoints, optional
        A folder to save the sweep in now and then; ``SweepCheckpoints(folder, resume=True)`` goes
        on with it after a crash, and ends with the same bits.
    executor : concurrent.futures.Executor, or a function that makes one, optional
        Whose workers train the populations, two to four for each worker where there are as many
        settings; see :mod:`xpmlp.units`. The same populations give the same bits.
    shard : (int, int), optional
        (i, n): train only the i-th of n parts of the populations, i from 1. What all n shards with
        the same settings, workers and ``memory`` leave in their checkpoints' folders belongs
        together.
    on_population : function, optional
        Called with the result so far whenever a population has come to its end.

    Returns
    -------
    SweepResult
        After Ctrl-C, SIGTERM or SIGHUP, of what has been trained so far. What no worker could train
        is in it with NaN, and ``failed: …`` as its ending.

    Raises
    ------
    ConfigError
        If there are no settings or seeds, or the same ones twice; if not even one setting with its
        seeds fits into memory.
    CheckpointError
        If the checkpoints are those of another sweep.
    WorkerError
        If no worker could train any population.
    """
    check_points(settings)
    if not is_pair(validation):
        raise ConfigError(
            "`sweep`: expected validation=(x, y) to compare settings on, got "
            f"{type(validation).__name__}; without data to spare, see cross_validate"
        )
    numbers = check_seeds("sweep", seeds)
    work = _Work(
        x,
        y,
        validation,
        list(settings),
        numbers,
        sampling,
        halving,
        patience,
        list(keep),
        callbacks,
        options={
            "inputs": int(np.prod(np.shape(x)[1:])),
            "outputs": outputs,
            "output": output,
            "dtype": dtype,
            "normalization": normalization,
        },
    )
    if checkpoints is not None and not isinstance(checkpoints, SweepCheckpoints):
        checkpoints = SweepCheckpoints(checkpoints)
    work.checkpoints = checkpoints
    with Pool(executor) as pool:
        groups = plan(
            settings,
            len(numbers),
            work.options["inputs"],
            outputs,
            sampling,
            dtype,
            memory,
            workers=pool.workers * (1 if shard is None else shard[1]),
            sharing=pool.sharing,
        )
        if checkpoints is not None:
            groups = checkpoints.plan(groups, work.identity())
        return _collect(work, groups, _numbers_of(shard, len(groups)), pool, on_population)


def _numbers_of(shard: tuple[int, int] | None, count: int) -> list[int]:
    """Which populations belong to a shard."""
    part, parts = shard or (1, 1)
    if not 1 <= part <= parts:
        raise ConfigError(f"`sweep`: expected a shard (i, n) with 1 ≤ i ≤ n, got {shard}")
    if part > count:
        raise ConfigError(
            f"`sweep`: expected at most {count} shards, one for each population, got {parts}"
        )
    return list(range(part - 1, count, parts))


def _collect(
    work: _Work,
    groups: Sequence[list[int]],
    numbers: Sequence[int],
    pool: Pool,
    on_population: Callable[[SweepResult], None] | None,
) -> SweepResult:
    """Train what has not been trained before, and put together what comes of it."""
    parts: dict[int, SweepResult] = {}

    def together() -> SweepResult:
        whole = SweepResult(monitor=work.monitor)
        for number in sorted(parts):
            whole.merge(parts[number], work.keep)
        for part in parts.values():  # what is not among the best now will never be
            part.models = {own: net for own, net in part.models.items() if own in whole.models}
        return whole

    for number in numbers:
        found = work.finished(number)
        if found is not None:
            parts[number] = found
    left = [number for number in numbers if number not in parts]
    units = Units(_train, [(number, groups[number]) for number in left], work, pool)
    for outcome in units:
        number = left[outcome.number]
        if outcome.failure is None:
            parts[number] = outcome.result
            work.finish(number, outcome.result)
        else:
            parts[number] = work.failed(groups[number], outcome.failure)
        result = together()
        if on_population is not None:
            on_population(result)
        if pool.here and result.interrupted:
            return result
    result = together()
    if result.trials and len(result.failed) == len(result.trials):
        raise WorkerError(f"`sweep`: no population came to its end; {result.trials[0].ending}")
    if units.interrupted:
        if not result.models:
            raise KeyboardInterrupt
        result.ending = units.ending
    return result


@dataclass
class _Work:
    """All that the populations of a sweep share, and how one is trained."""

    x: Any
    y: Any
    validation: tuple[Any, Any]
    settings: list[Settings]
    seeds: list[int]
    sampling: Sampling
    halving: bool
    patience: int | None
    keep: list[int]
    callbacks: Callable[[Sequence[tuple[int, int]]], Iterable[Callback]] | None
    options: dict[str, Any]
    checkpoints: SweepCheckpoints | None = None

    @property
    def monitor(self) -> str:
        """What settings are compared by."""
        return "val_accuracy" if self.options["output"] == "softmax" else "val_loss"

    def identity(self) -> dict[str, Any]:
        """Which sweep it is."""
        names = ("settings", "seeds", "sampling", "halving", "patience", "keep")
        own = {name: getattr(self, name) for name in names} | self.options
        return identity_of(own, self.x, self.y, self.validation)

    def members(self, group: Sequence[int]) -> list[tuple[int, int]]:
        """(setting, seed) of each member of a population."""
        return [(setting, seed) for setting in group for seed in self.seeds]

    def train(self, number: int, group: Sequence[int]) -> SweepResult:
        """What comes of a population."""
        members = self.members(group)
        looking: list[Callback] = [] if self.callbacks is None else [*self.callbacks(members)]
        if self.patience is not None:
            looking.append(EarlyStopping(self.patience))
        if self.halving:
            owners = [setting for setting, _ in members]
            looking.append(Halving(owners, monitor=self.monitor, protected=self.keep))
        going_on: dict[str, Any] = {}
        # A worker on another machine may not see the folder.
        if self.checkpoints is not None and self.checkpoints.folder.is_dir():
            saving, going_on = self.checkpoints.of(number)
            looking.append(saving)
        trainer = trainer_for(
            [self.settings[setting] for setting, _ in members],
            [seed for _, seed in members],
            sampling=self.sampling,
            seed=self.seeds[0] if self.sampling == "shared" else [seed for _, seed in members],
            callbacks=[*looking, EndWhenAsked()],
            progress=False,
            **self.options,
        )
        result = SweepResult(monitor=self.monitor)
        history = trainer.fit(self.x, self.y, self.validation, **going_on)
        result.add(self.settings, members, history)
        result.keep_models(trainer.model, members, self.keep)
        return result

    def failed(self, group: Sequence[int], reason: str) -> SweepResult:
        """A population that no worker could train."""
        result = SweepResult(monitor=self.monitor)
        result.add_failed(self.settings, self.members(group), reason)
        return result

    def finished(self, number: int) -> SweepResult | None:
        """What came of a population before, if the sweep goes on."""
        if self.checkpoints is None:
            return None
        return self.checkpoints.finished(number, self.settings, self.monitor)

    def finish(self, number: int, part: SweepResult) -> None:
        """Have it there when the sweep goes on."""
        if self.checkpoints is not None and not part.interrupted:
            self.checkpoints.finish(number, part)


def _train(work: _Work, unit: tuple[int, list[int]]) -> SweepResult:
    return work.train(*unit)


def trainer_for(
    settings: Sequence[Settings],
    seeds: Sequence[int],
    *,
    inputs: int,
    outputs: int,
    output: Output = "softmax",
    dtype: FloatName = "float32",
    **options: Any,
) -> PopulationTrainer:
    """The trainer of one population with a member for each setting and seed.

    Parameters
    ----------
    settings : sequence of P Settings
        That can be trained together: see :meth:`Settings.together_with`.
    seeds : sequence of P ints
    inputs, outputs : int
    output, dtype : str
    **options
        Of :class:`~xpmlp.training.PopulationTrainer`, beside those that settings hold.
    """
    return PopulationTrainer(
        build_population(
            settings, seeds, inputs=inputs, outputs=outputs, output=output, dtype=dtype
        ),
        build_loss(settings, output),
        build_optimizer(settings),
        epochs=settings[0].epochs,
        batch_size=settings[0].batch_size,
        clip_norm=settings[0].clip_norm,
        **options,
    )


def check_seeds(where: str, seeds: int | Sequence[int]) -> list[int]:
    """Seeds 0, 1, … for a count, or those given; ConfigError for none, or one twice."""
    numbers = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(f"`{where}`: expected at least one seed, each once, got {seeds!r}")
    return numbers
