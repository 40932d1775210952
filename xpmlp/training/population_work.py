"""What a population's training computes now: a step and batches for the members that still run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.member_batches import MemberBatches
from ..errors import CheckpointError
from ..step import TrainStep
from .average import Average
from .selection import select_hyper, select_loss, select_optimizer, select_penalty

if TYPE_CHECKING:
    from .population_trainer import PopulationTrainer

_WORTH_DROPPING = 0.25  # share of stopped members from which the others go on without them


class Work:
    """A step and batches for some members, at first for all that run.

    Attributes
    ----------
    members : ndarray of int
        Their numbers in the trainer's population.
    """

    def __init__(self, trainer: PopulationTrainer, batches: Any):
        self.trainer, self.batches = trainer, batches
        self.members = trainer.running
        self.step = TrainStep(
            trainer.model,
            trainer.loss,
            trainer.optimizer,
            penalty=trainer.penalty,
            clip_norm=trainer.clip_norm,
            precision=trainer.precision,
        )
        self.average = Average(trainer.model, trainer.average) if trainer.average else None

    @property
    def judged(self) -> Any:
        """The networks that are evaluated and kept."""
        return self.step.model if self.average is None else self.average.model

    def end_epoch(self) -> None:
        """Note the parameters that an epoch ended with."""
        if self.average is not None:
            model: Any = self.step.model
            self.average.add(model)

    def without_the_stopped(self) -> Work:
        """The same for the members that still run, if enough have stopped to make it worth it."""
        runs = np.flatnonzero(np.isin(self.members, self.trainer.running)).tolist()
        if len(runs) > (1.0 - _WORTH_DROPPING) * len(self.members):
            return self
        return self.select(runs)

    def select(self, places: Sequence[int]) -> Work:
        """The same for those of its members that are at these places."""
        step = self.step
        smaller = object.__new__(Work)
        smaller.trainer = self.trainer
        smaller.members = self.members[list(places)]
        smaller.batches = self.batches
        if isinstance(self.batches, MemberBatches):
            smaller.batches = self.batches.select(places)
        model: Any = step.model
        chosen = model.select(places)
        smaller.step = TrainStep(
            chosen,
            select_loss(step.loss, places),
            select_optimizer(step.optimizer, places, model, chosen),
            penalty=select_penalty(step.penalty, places),
            clip_norm=select_hyper(step.clip_norm, places),
            precision=step.precision,
        )
        smaller.step.loss_scale = step.loss_scale
        smaller.average = None if self.average is None else self.average.select(places)
        return smaller

    def state_dict(self) -> dict[str, Any]:
        """Which members these are, their networks and the optimizer's memory of them."""
        model = self.step.model
        return {
            "members": self.members,
            "model": model.state_dict(),
            "counters": model.counters(),
            "optimizer": self.step.optimizer.state_dict(),
            "loss_scale": self.step.loss_scale,
            "average": None if self.average is None else self.average.state_dict(),
        }

    def at(self, state: Mapping[str, Any]) -> Work:
        """The work that :meth:`state_dict` was told of, of which this is the beginning."""
        members = np.asarray(state["members"])
        places = np.flatnonzero(np.isin(self.members, members)).tolist()
        if len(places) != members.size:
            raise CheckpointError(
                f"expected members among {len(self.members)}, got {members.tolist()}"
            )
        work = self if len(places) == len(self.members) else self.select(places)
        model = work.step.model
        model.load_state_dict(state["model"])
        model.set_counters(state["counters"])
        work.step.optimizer.load_state_dict(state["optimizer"], model.params)
        work.step.loss_scale = state.get("loss_scale")
        if work.average is not None:
            work.average.load_state_dict(state["average"])
        return work
