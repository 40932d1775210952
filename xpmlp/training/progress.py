"""The progress bar: epoch, loss, accuracy and samples per second, on standard error."""

from __future__ import annotations

import importlib.util
import shutil
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
_LINES = 10  # of a training, where they are not seen as it goes
_BAR_FROM = 72  # columns; with fewer there is no bar
_REFRESH_SECONDS = 0.2  # reading the loss waits for the device, so it is read this rarely


class Progress(Callback):
    """One line for each finished epoch, and in a terminal a live bar for the running one.

    The bar is drawn by ``rich`` where it is installed. Without a terminal, about ten lines tell of
    the whole training.

    Parameters
    ----------
    verbose : bool
        Whether every epoch is told without a terminal too.
    """

    first_rank_only = True
    _bar: Any = None

    def __init__(self, verbose: bool = False):
        self.verbose = verbose

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
        self._untold: str | None = None
        self._width = shutil.get_terminal_size().columns if Unbroken(sys.stderr).isatty() else None
        if Unbroken(sys.stderr).isatty() and importlib.util.find_spec("rich") is not None:
            from rich import progress
            from rich.console import Console

            console = Console(file=Unbroken(sys.stderr))  # type: ignore[arg-type]
            self._width = console.width
            columns: list[Any] = [progress.TextColumn("{task.description}")]
            columns.append(progress.MofNCompleteColumn())
            columns.append(progress.TextColumn("{task.fields[figures]}"))
            if self._width >= _BAR_FROM:
                columns.insert(
                    1, progress.BarColumn(bar_width=min(24, self._width - _BAR_FROM + 4))
                )
                columns.append(progress.TimeRemainingColumn())
            self._bar = progress.Progress(*columns, console=console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("epoch 1", total=self._total, figures="")
        self._hear_of_compiling(self._say_why_nothing_moves)

    def _hear_of_compiling(self, tell: Callable[[], None] | None) -> None:
        kernels: Any = importlib.import_module("xpmlp.kernels")
        kernels.on_compile = tell

    def _say_why_nothing_moves(self) -> None:
        self._hear_of_compiling(None)  # once
        if self._bar is not None:
            room = self._width is None or self._width >= _BAR_FROM
            self._bar.update(self._task, description=_COMPILING if room else "compiling")
        elif Unbroken(sys.stderr).isatty():
            tell(_COMPILING)

    def on_step(self, trainer: Trainer, loss: Array) -> None:
        self._done += 1
        now = time.monotonic()
        if self._bar is None or now - self._last < _REFRESH_SECONDS:
            return
        self._last = now
        rate = self._done * trainer.batch_size / (now - self._epoch_start)
        figures = f"loss {float(np.mean(to_numpy(loss))):.4f}"
        if self._width is None or self._width >= _BAR_FROM:
            figures += f"  {rate:,.0f}/s"
        self._bar.update(
            self._task,
            completed=self._done,
            description=f"epoch {trainer.epoch}/{trainer.epochs}",
            figures=figures,
        )

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        line = describe(row, trainer.epochs, self._width)
        if self._width is None and not self.verbose and not _is_told(row["epoch"], trainer.epochs):
            self._untold = line
        elif self._bar is not None:
            self._bar.console.print(line, highlight=False)
            self._bar.reset(self._task, total=self._total, figures="")
        else:
            self._untold = None
            tell(line)
        self._done = 0
        self._epoch_start = time.monotonic()

    def on_end(self, trainer: Trainer, history: History) -> None:
        self._hear_of_compiling(None)
        if self._bar is not None:
            self._bar.stop()
        if self._untold is not None:
            tell(self._untold)
        if history.ending != "finished":
            tell(history.ending)


def tell(line: str) -> None:
    """A line on standard error, if anyone reads it."""
    stream = Unbroken(sys.stderr)
    stream.write(f"{line}\n")
    stream.flush()


def describe(row: dict[str, Any], epochs: int, width: int | None = None) -> str:
    """A row of the history as a line of text, as much of it as fits into so many columns."""
    number = f"{row['epoch']:>{len(str(epochs))}}/{epochs}"
    rate = f"{row['samples_per_second']:,.0f}"
    short = [f"epoch {number}", *_figures(row, "train", "val"), f"{rate}/s"]
    lines = [
        [f"epoch {number}", *_figures(row, "train", "validation", full=True), f"{rate} samples/s"],
        short,
        short[:-1],
        [number, *_figures(row, "", "val", with_loss="")],
        [number, *_figures({n: v for n, v in row.items() if n.startswith("val")}, "", "val")],
    ]
    texts = ["  ".join(parts) for parts in lines]
    return next((text for text in texts if width is None or len(text) <= width), texts[-1][:width])


def _figures(
    row: dict[str, Any], train: str, val: str, *, full: bool = False, with_loss: str = "loss "
) -> list[str]:
    """Loss, accuracy or R², and chosen metrics, of each part of the data."""
    parts = []
    for part, label in (("train", train), ("val", val)):
        if f"{part}_loss" not in row:
            continue
        text = f"{label} {with_loss}{row[f'{part}_loss']:.4f}"
        if f"{part}_accuracy" in row:
            word = "accuracy " if full else ""
            text += f" {word}{100 * row[f'{part}_accuracy']:.2f} %"
        elif f"{part}_r2" in row:
            text += f" R² {row[f'{part}_r2']:.4f}"
        own = (f"{part}_loss", f"{part}_accuracy", f"{part}_r2")
        others = (name for name in row if name.startswith(f"{part}_") and name not in own)
        text += "".join(f" {name.removeprefix(part)[1:]} {row[name]:.4g}" for name in others)
        parts.append(text.strip())
    return parts


def _is_told(epoch: int, epochs: int) -> bool:
    """The first epoch, and ten more over the whole training."""
    return epoch == 1 or epoch * _LINES // epochs > (epoch - 1) * _LINES // epochs
