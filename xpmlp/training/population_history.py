"""What happened in the training of a population: figures of every member, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConfigError
from .history import History

RUNNING = ""
"""The ending of a member that has none yet."""


@dataclass(repr=False)
class PopulationHistory(History):
    """The record of a population's training.

    Attributes
    ----------
    rows : list of dict
        One an epoch, as in :class:`History`: means over the members that were still running, and
        ``running``, how many those were.
    step_losses : ndarray, shape (steps, P)
        The loss of every batch, before its update; NaN after a member has stopped.
    curves : dict of str to ndarray, shape (epochs, P)
        ``train_loss``, ``val_accuracy``, … of each member; NaN after it has stopped.
    rates : ndarray, shape (epochs, P)
        Each member's learning rate at the end of each epoch.
    best_epochs : list of P ints
        The epoch whose parameters each member has now; 0 if it never had a finite loss, and kept
        those it started with.
    endings : list of P str
        Why each member ended: "finished", "early stopping: …", "diverged: …", "interrupted", or
        what a callback gave as the reason.
    ending : str
        Of the whole.
    """

    curves: dict[str, np.ndarray] = field(default_factory=dict)
    rates: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    best_epochs: list[int] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """In a line: how many members, how long, and how many of them ended how."""
        ways: dict[str, int] = {}
        for ending in self.endings:
            way = ending.partition(":")[0] or "running"
            ways[way] = ways.get(way, 0) + 1
        counts = ", ".join(f"{count} {way}" for way, count in ways.items())
        return (
            f"<{type(self).__name__}: {len(self.endings)} members, {len(self)} epochs; "
            f"{counts or 'none'}>"
        )

    def add(self, row: dict[str, Any], curves: dict[str, np.ndarray], rates: np.ndarray) -> None:
        """Append an epoch: its row, and a value (P,) for each curve."""
        self.rows.append(row)
        for name, values in curves.items():
            before = self.curves.get(name, np.zeros((0, values.size)))
            self.curves[name] = np.concatenate([before, values[None]])
        before = self.rates if self.rates.size else np.zeros((0, rates.size))
        self.rates = np.concatenate([before, rates[None]])

    def member(self, number: int) -> History:
        """The history of one member, as if it had been trained alone."""
        epochs = int(np.isfinite(self.rates[:, number]).sum()) if len(self.rates) else 0
        rows = [
            {
                "epoch": self.rows[epoch]["epoch"],
                "step": self.rows[epoch]["step"],
                **{name: float(values[epoch, number]) for name, values in self.curves.items()},
                "lr": float(self.rates[epoch, number]),
            }
            for epoch in range(epochs)
        ]
        steps = rows[-1]["step"] if rows else 0
        losses = self.step_losses  # still empty while the training runs
        return History(
            rows=rows,
            step_losses=losses[:steps, number] if losses.ndim == 2 else losses,
            best_epoch=self.best_epochs[number] or None,
            ending=self.endings[number],
            seconds=self.seconds,
        )

    def best(self, name: str) -> np.ndarray:
        """A curve's value (P,) at each member's best epoch; NaN for a member that has none.

        Parameters
        ----------
        name : str
            Of a curve, such as ``"val_accuracy"``.
        """
        if name not in self.curves:
            raise ConfigError(
                f"`PopulationHistory`: expected a curve among {', '.join(self.curves)}, got "
                f"{name!r}"
            )
        best = np.asarray(self.best_epochs)
        values = self.curves[name][best - 1, np.arange(best.size)]
        return np.where(best > 0, values, np.nan)

    def table(self) -> list[dict[str, Any]]:
        """One row a member: its number, ending, epochs, best epoch, and the figures at that epoch.

        The figures are NaN for a member that never had a finite loss.
        """
        figures = {name: self.best(name) for name in self.curves}
        epochs = np.isfinite(self.rates).sum(axis=0) if len(self.rates) else []
        return [
            {
                "member": number,
                "epochs": int(epochs[number]),
                "best_epoch": self.best_epochs[number],
                **{name: float(values[number]) for name, values in figures.items()},
                "ending": ending,
            }
            for number, ending in enumerate(self.endings)
        ]
