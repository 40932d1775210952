"""The progress bar: epoch, loss, accuracy and samples per second, on standard error."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, to_numpy
from .callbacks import Callback
from .terminal import Unbroken

if TYPE_CHECKING:
    from .history import History
    from .trainer import Trainer

_COMPILING = "compiling for this machine, the first time only"
_REFRESH_SECONDS = 0.2  # reading the loss waits for the device, so it is read this rarely


class Progress(Callback):
    """One line for each finished epoch, and in a terminal a live bar for the running one.

    The bar is drawn by ``rich`` where it is installed.
    """

    first_rank_only = True
    _bar: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in vars(self).items() if n not in ("_bar", "_task")}  # for pickles

    @property
    def sees_steps(self) -> bool:
        """Only to draw a live bar."""
        return self._bar is not None

    def on_start(self, trainer: Trainer) -> None:
        self._bar = None
        self._last = self._epoch_start = time.monotonic()
        self._total = trainer.steps_per_epoch or None  # of batches that are not counted
        self._done = 0
        if Unbroken(sys.stderr).isatty() and importlib.util.find_spec("rich") is not None:
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[figures]}"),
                progress.TimeRemainingColumn(),
                console=Console(file=Unbroken(sys.stderr)),  # type: ignore[arg-type]
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("epoch 1", total=self._total, figures="")
        self._hear_of_compiling(self._say_why_nothing_moves)

    def _hear_of_compiling(self, tell: Callable[[], None] | None) -> None:
        kernels: Any = importlib.import_module("xpmlp.kernels")
        kernels.on_compile = tell

    def _say_why_nothing_moves(self) -> None:
        self._hear_of_compiling(None)  # once
        if self._bar is not None:
            self._bar.update(self._task, description=_COMPILING)
        elif Unbroken(sys.stderr).isatty():
            tell(_COMPILING)

    def on_step(self, trainer: Trainer, loss: Array) -> None:
        self._done += 1
        now = time.monotonic()
        if self._bar is None or now - self._last < _REFRESH_SECONDS:
            return
        self._last = now
        rate = self._done * trainer.batch_size / (now - self._epoch_start)
        figures = f"loss {float(np.mean(to_numpy(loss))):.4f}  {rate:,.0f} samples/s"
        self._bar.update(
            self._task,
            completed=self._done,
            description=f"epoch {trainer.epoch}/{trainer.epochs}",
            figures=figures,
        )

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        line = describe(row, trainer.epochs)
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
            self._bar.reset(self._task, total=self._total, figures="")
        else:
            tell(line)
        self._done = 0
        self._epoch_start = time.monotonic()

    def on_end(self, trainer: Trainer, history: History) -> None:
        self._hear_of_compiling(None)
        if self._bar is not None:
            self._bar.stop()
        if history.ending != "finished":
            tell(history.ending)


def tell(line: str) -> None:
    """A line on standard error, if anyone reads it."""
    stream = Unbroken(sys.stderr)
    stream.write(f"{line}\n")
    stream.flush()


def describe(row: dict[str, Any], epochs: int) -> str:
    """A row of the history as a line of text."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"]
    for part, label in (("train", "train"), ("val", "validation")):
        if f"{part}_loss" in row:
            text = f"{label} loss {row[f'{part}_loss']:.4f}"
            if f"{part}_accuracy" in row:
                text += f" accuracy {100 * row[f'{part}_accuracy']:.2f} %"
            elif f"{part}_r2" in row:
                text += f" R² {row[f'{part}_r2']:.4f}"
            own = (f"{part}_loss", f"{part}_accuracy", f"{part}_r2")
            others = (name for name in row if name.startswith(f"{part}_") and name not in own)
            text += "".join(f" {name.removeprefix(part)[1:]} {row[name]:.4g}" for name in others)
            parts.append(text)
    parts.append(f"{row['samples_per_second']:,.0f} samples/s")
    return "  ".join(parts)
