"""The members of a population divided among ranks, each of which trains its own by itself.

Nothing is sent until all have come to their end: then every rank has all networks and histories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..communication import Communicator
from ..errors import ConfigError
from .checkpoint_callback import Checkpoint
from .population_history import PopulationHistory

if TYPE_CHECKING:
    from .population_trainer import PopulationTrainer


def check_divides(trainer: PopulationTrainer, ranks: Communicator) -> None:
    """Raise ConfigError if a population's members need to know of each other, or are too few."""
    members = trainer.model.population or 0
    reasons = {
        "networks that share nothing": trainer.model.shared_params,
        "no folds, whose ensemble is judged after every epoch": trainer.folds is not None,
        f"{ranks.size} members or more, one for each rank": members < ranks.size,
        "no Checkpoint, which would hold one rank's members": any(
            isinstance(callback, Checkpoint) for callback in trainer.callbacks
        ),
    }
    for expected, hinders in reasons.items():
        if hinders:
            raise ConfigError(
                f"`PopulationTrainer`: expected {expected}, to divide members over {ranks.size} "
                "ranks; train in one process, or ensembles by Ensemble.train(executor=)"
            )


def owners(population: int, ranks: Communicator) -> np.ndarray:
    """Which rank trains each member, (P,): consecutive ones, as evenly as can be."""
    return np.arange(population) * ranks.size // population


def own_members(population: int, ranks: Communicator) -> np.ndarray:
    """The numbers of those that this rank trains."""
    return np.flatnonzero(owners(population, ranks) == ranks.rank)


def put_together(
    ranks: Communicator, history: PopulationHistory, arrays: dict[str, np.ndarray]
) -> PopulationHistory:
    """All ranks' histories as one, on each of them; arrays (P, …) get every rank's members.

    Parameters
    ----------
    ranks : Communicator
    history : PopulationHistory
        Of the members that were trained here.
    arrays : dict of str to ndarray, shape (P, …)
        Their parameters and running statistics; written in place.
    """
    of_rank = owners(len(history.endings), ranks)
    own = {name: array[of_rank == ranks.rank] for name, array in arrays.items()}
    told = ranks.everyone((history, own))
    for rank, (_, theirs) in enumerate(told):
        for name, array in theirs.items():
            arrays[name][of_rank == rank] = array
    return _joined([each for each, _ in told], of_rank)


def _joined(parts: list[PopulationHistory], of_rank: np.ndarray) -> PopulationHistory:
    def columns(tables: list[np.ndarray]) -> np.ndarray:
        """Each member's, from the rank that has trained it; NaN where that had come to its end."""
        whole = np.full((max(map(len, tables)), of_rank.size), np.nan)
        for rank, table in enumerate(tables):
            whole[: len(table), of_rank == rank] = table[:, of_rank == rank]
        return whole

    def chosen(lists: list[list[Any]]) -> list[Any]:
        return [lists[rank][member] for member, rank in enumerate(of_rank)]

    longest = max(parts, key=len)
    curves = {name: columns([part.curves[name] for part in parts]) for name in longest.curves}
    rates = columns([part.rates for part in parts])
    endings = [part.ending for part in parts]
    return PopulationHistory(
        rows=[_row(parts, curves, rates, epoch) for epoch in range(len(longest))],
        step_losses=columns([part.step_losses for part in parts]),
        seconds=max(part.seconds for part in parts),
        ending=next((one for one in endings if one != "finished"), "finished"),
        curves=curves,
        rates=rates,
        best_epochs=chosen([part.best_epochs for part in parts]),
        endings=chosen([part.endings for part in parts]),
    )


def _row(
    parts: list[PopulationHistory], curves: dict[str, np.ndarray], rates: np.ndarray, epoch: int
) -> dict[str, Any]:
    """An epoch's row of all members that ran in it."""
    rows = [part.rows[epoch] for part in parts if len(part) > epoch]
    means = {name: mean_of_finite(values[epoch]) for name, values in curves.items()}
    return rows[0] | {
        **means,
        "lr": mean_of_finite(rates[epoch]),
        "running": sum(row["running"] for row in rows),
        "seconds": max(row["seconds"] for row in rows),
        "samples_per_second": sum(row["samples_per_second"] for row in rows),
    }


def mean_of_finite(values: np.ndarray) -> float:
    """The mean of what is finite; NaN if nothing is."""
    finite = values[np.isfinite(values)]
    return float(np.mean(finite)) if finite.size else float("nan")
