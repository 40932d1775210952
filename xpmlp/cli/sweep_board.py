"""The live table of a sweep on standard error."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..sweep import Settings, SweepResult
from ..sweep.settings import show
from ..training import Callback, PopulationTrainer
from ..training.progress import tell
from ..training.terminal import Unbroken

_SHOWN = 10  # settings in the table


class Board:
    """The live table of a sweep: the best settings so far, all populations together."""

    def __init__(self, points: Sequence[Settings], grid: Mapping[str, list[Any]], default: int):
        self.points, self.names, self.default = points, list(grid), default
        self.values: dict[int, float] = {}
        self.monitor = "val_accuracy"
        self.console = Console(file=Unbroken(sys.stderr))  # type: ignore[arg-type]
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = live = Live(console=self.console, transient=True, auto_refresh=False)
            live.start()

    def watch(self, members: Sequence[tuple[int, int]]) -> list[Callback]:
        """The callback for a population with these settings and seeds."""
        return [_Watch(self, [setting for setting, _ in members])]

    def take(self, found: SweepResult, networks: int) -> None:
        """Show what workers have brought so far, of so many networks."""
        self.monitor, done = found.monitor, len(found.trials)
        for setting in {trial.setting for trial in found.trials}:
            values = found.values(setting)
            if np.isfinite(values).any():
                self.values[setting] = float(np.nanmean(values))
        failed = f", {len(found.failed)} failed" if found.failed else ""
        self.show(f"{done} of {networks} networks trained{failed}{self._best()}", done / networks)

    def show(self, line: str, share: float | None = None) -> None:
        """Draw the table again, with a bar if so much is done; where there is no terminal, print a
        line."""
        if self.live is None:
            tell(line)
            return
        drawn: Any = self._table(line)
        if share is not None:
            drawn = Group(drawn, ProgressBar(total=1.0, completed=share, width=40))
        self.live.update(drawn, refresh=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            self.live.stop()

    def best(self) -> list[int]:
        """Settings by their figures, best first."""
        sign = -1.0 if self.monitor.endswith("accuracy") else 1.0
        return sorted(self.values, key=lambda setting: sign * self.values[setting])

    def text(self, setting: int) -> str:
        """A setting's figure."""
        value = self.values[setting]
        return f"{100 * value:.2f} %" if self.monitor.endswith("accuracy") else f"{value:.4f}"

    def _best(self) -> str:
        """The best setting so far, in words."""
        if not self.values:
            return ""
        best = self.best()[0]
        points = self.points
        names = "default" if best >= len(points) else points[best].describe(self.names)
        return f"  best {self.text(best)} ({names})"

    def _table(self, caption: str) -> Table:
        table = Table(caption=caption, caption_justify="left")
        for name in (*self.names, self.monitor):
            table.add_column(name, justify="right")
        for setting in self.best()[:_SHOWN]:
            if setting < len(self.points):
                cells = [show(getattr(self.points[setting], name)) for name in self.names]
            else:
                cells = ["default", *[""] * (len(self.names) - 1)]
            table.add_row(*cells, self.text(setting))
        return table


class _Watch(Callback):
    """Tells the board what each epoch of one population brought."""

    def __init__(self, board: Board, settings: Sequence[int]):
        self.board, self.settings = board, np.asarray(settings)

    def on_epoch(self, trainer: PopulationTrainer, row: dict[str, Any]) -> None:
        board, curves = self.board, trainer.history.curves
        board.monitor = "val_accuracy" if "val_accuracy" in curves else "val_loss"
        values = curves[board.monitor][-1]
        for setting in np.unique(self.settings[np.isfinite(values)]).tolist():
            board.values[setting] = float(np.nanmean(values[self.settings == setting]))
        if not board.values:
            return
        board.show(
            f"epoch {trainer.epoch}/{trainer.epochs}  {row['running']} of {self.settings.size} "
            f"networks running{board._best()}"
        )
