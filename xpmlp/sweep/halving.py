"""Successive halving: most settings are dropped early, few are trained to the end."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..training import Callback, PopulationTrainer


class Halving(Callback):
    """Keep the better half of the settings again and again, at a half, a quarter, … of the epochs.

    Parameters
    ----------
    groups : sequence of P ints
        The setting of each member; members of one setting differ in their seeds and stay or go
        together, by their mean.
    monitor : str
        The curve to judge by; with ``accuracy`` or ``r2`` in its name more is better.
    factor : int
        2 keeps a half, 3 a third, and so on.
    protected : collection of int
        Settings that are never dropped.

    Notes
    -----
    Source: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
    optimization".
    """

    steers = True

    def __init__(
        self,
        groups: Sequence[int],
        *,
        monitor: str = "val_loss",
        factor: int = 2,
        protected: Collection[int] = (),
    ):
        if factor < 2:
            raise ConfigError(f"`Halving`: expected a factor ≥ 2, got {factor}")
        self.groups, self.monitor = np.asarray(groups), monitor
        self.factor, self.protected = factor, set(protected)

    def on_epoch(self, trainer: PopulationTrainer, row: dict[str, Any]) -> None:
        count = len(set(self.groups.tolist()) - self.protected)
        for rung, epoch in rungs(trainer.epochs, count, self.factor).items():
            if epoch == trainer.epoch:
                self._drop_worst(trainer, math.ceil(count / self.factor**rung))

    def _drop_worst(self, trainer: PopulationTrainer, keep: int) -> None:
        curves = trainer.history.curves
        if self.monitor not in curves:
            raise ConfigError(
                f"`Halving`: expected monitor to be one of {', '.join(curves)}, got "
                f"{self.monitor!r}; pass validation data"
            )
        sign = 1.0 if self.monitor.endswith(("accuracy", "r2")) else -1.0
        values = sign * curves[self.monitor][-1]
        running = np.isin(np.arange(values.size), trainer.running)
        settings = sorted(set(self.groups[running].tolist()) - self.protected)
        # A member that has diverged counts against its setting.
        means = {
            own: float(np.mean(np.where(running, values, -np.inf)[self.groups == own]))
            for own in settings
        }
        ranked = sorted(settings, key=lambda own: -means[own])
        leaving = np.flatnonzero(np.isin(self.groups, ranked[keep:]))
        trainer.drop(leaving, f"halving: not among the best {keep} after {trainer.epoch} epochs")


def rungs(epochs: int, count: int, factor: int) -> dict[int, int]:
    """After which epoch each rung ends; rung r leaves ``count / factor^r`` settings."""
    last = 0
    while factor ** (last + 1) <= epochs and factor**last < count:
        last += 1
    return {rung: math.ceil(epochs / factor ** (last - rung + 1)) for rung in range(1, last + 1)}
