"""Training a list of settings, as few populations as they fit into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Normalization
from ..errors import ConfigError
from ..training import Callback, EarlyStopping, PopulationTrainer
from ..training.minibatches import is_pair
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
    output: str = "softmax",
    seeds: int | Sequence[int] = 1,
    sampling: str = "shared",
    normalization: Normalization | None = None,
    halving: bool = False,
    patience: int | None = None,
    memory: int | None = None,
    keep: Sequence[int] = (),
    callbacks: Callable[[Sequence[tuple[int, int]]], Iterable[Callback]] | None = None,
    dtype: str = "float32",
    checkpoints: SweepCheckpoints | str | Path | None = None,
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
        callbacks for its training.
    dtype : str
    checkpoints : path or SweepCheckpoints, optional
        A folder to save the sweep in now and then; ``SweepCheckpoints(folder, resume=True)`` goes
        on with it after a crash, and ends with the same bits.

    Returns
    -------
    SweepResult
        After Ctrl-C, SIGTERM or SIGHUP, of what has been trained so far.

    Raises
    ------
    ConfigError
        If there are no settings or seeds, or the same ones twice; if not even one setting with its
        seeds fits into memory.
    CheckpointError
        If the checkpoints are those of another sweep.
    """
    check_points(settings)
    if not is_pair(validation):
        raise ConfigError(
            "`sweep`: expected validation=(x, y) to compare settings on, got "
            f"{type(validation).__name__}; without data to spare, see cross_validate"
        )
    numbers = check_seeds("sweep", seeds)
    inputs = int(np.prod(np.shape(x)[1:]))
    result = SweepResult(monitor="val_accuracy" if output == "softmax" else "val_loss")
    groups = plan(settings, len(numbers), inputs, outputs, sampling, dtype, memory)
    if checkpoints is not None:
        if not isinstance(checkpoints, SweepCheckpoints):
            checkpoints = SweepCheckpoints(checkpoints)
        groups = checkpoints.plan(groups)
    for place, group in enumerate(groups):
        members = [(setting, seed) for setting in group for seed in numbers]
        looking = [] if callbacks is None else list(callbacks(members))
        if patience is not None:
            looking.append(EarlyStopping(patience))
        if halving:
            owners = [setting for setting, _ in members]
            looking.append(Halving(owners, monitor=result.monitor, protected=keep))
        going_on: dict[str, Any] = {}
        if checkpoints is not None:
            saving, going_on = checkpoints.of(place)
            looking.append(saving)
        trainer = trainer_for(
            [settings[setting] for setting, _ in members],
            [seed for _, seed in members],
            inputs=inputs,
            outputs=outputs,
            output=output,
            dtype=dtype,
            normalization=normalization,
            sampling=sampling,
            seed=numbers[0] if sampling == "shared" else [seed for _, seed in members],
            callbacks=looking,
            progress=False,
        )
        result.add(settings, members, trainer.fit(x, y, validation, **going_on))
        result.keep_models(trainer.model, members, keep)
        if result.interrupted:
            break
    return result


def trainer_for(
    settings: Sequence[Settings],
    seeds: Sequence[int],
    *,
    inputs: int,
    outputs: int,
    output: str = "softmax",
    dtype: str = "float32",
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
