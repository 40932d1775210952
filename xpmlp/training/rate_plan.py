"""The learning rate over a training: a schedule with what it left open filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..optim import Optimizer
from ..schedules import Constant, Schedule, Step, WarmUp

_FAR = 1 << 40  # a step that any schedule has to look at its end for


@dataclass(frozen=True)
class Plan:
    """What a trainer has made of its optimizer's schedule.

    Attributes
    ----------
    lr_decay : float
        The rate's factor after each epoch; 1 leaves it to the schedule.
    given, planned : Schedule, callable or None
        As the optimizer came, and as it is trained with.
    total : int
        The steps that the schedule was planned for.
    """

    lr_decay: float = 1.0
    given: Any = None
    planned: Any = None
    total: int = 0

    def over(self, optimizer: Optimizer, steps_per_epoch: int, total: int) -> Plan:
        """Give an optimizer its schedule for ``total`` steps, those already made included.

        A training from its start is planned anew; one that goes on keeps its plan.

        Raises
        ------
        ConfigError
            If the plan of a training that goes on is over before its end; or it needs to know how
            many steps there are, and the batches have no length (0 of them an epoch).
        """
        if not steps_per_epoch:
            return self._without_end(optimizer)
        given, planned, going_on = self.given, self.planned, optimizer.steps > 0
        if optimizer.schedule is not planned:  # the first time, or another one was assigned
            given = planned = optimizer.schedule
        elif not going_on:
            planned = given
        planned_for = self.total
        if planned is given:
            planned_for = total
            if self.lr_decay != 1.0:
                planned = Step(every=steps_per_epoch, factor=self.lr_decay)
            elif isinstance(given, Schedule):
                planned = given.over(total)
        if going_on and _end(planned) < total:
            raise ConfigError(
                f"`Trainer.resume`: expected a schedule for {total} steps, got {planned!r}, of "
                f"which {optimizer.steps} are made; give it total= for all that are to come, or "
                "start another training with fit"
            )
        optimizer.schedule = planned
        return Plan(self.lr_decay, given, planned, planned_for)

    def _without_end(self, optimizer: Optimizer) -> Plan:
        """A schedule as it is, if it can do without the number of steps."""
        try:
            if self.lr_decay != 1.0:
                raise ConfigError("an epoch has no length")
            if isinstance(optimizer.schedule, Schedule):
                optimizer.factor(_FAR)
        except ConfigError:
            asked = f"lr_decay={self.lr_decay}" if self.lr_decay != 1.0 else optimizer.schedule
            raise ConfigError(
                f"`Trainer.fit`: expected batches with a length (__len__) for {asked!r}, which "
                "goes by the number of steps; give the schedule total=, or the batches a length"
            ) from None
        return Plan(self.lr_decay, optimizer.schedule, optimizer.schedule)


def last_rate(optimizer: Optimizer) -> Any:
    """The learning rate of the last step, one number or one a member."""
    return optimizer.lr * optimizer.factor(max(0, optimizer.steps - 1))


def _end(schedule: Any) -> float:
    """After how many steps a schedule is over."""
    total = getattr(schedule, "total", None)
    while isinstance(schedule, WarmUp):
        schedule = schedule.then
    ends = isinstance(schedule, Schedule) and not isinstance(schedule, Constant | Step)
    return total if ends and total is not None else np.inf
