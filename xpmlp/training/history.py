"""What happened in a training: one row an epoch, and how it ended."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, MissingDependencyError
from ..files import write_atomically
from .stopping import INTERRUPTED


@dataclass(repr=False)
class History:
    """The record of a training.

    Attributes
    ----------
    rows : list of dict
        One an epoch: epoch, step, train_loss, train_accuracy, val_loss, val_accuracy, metrics such
        as val_f1, lr, seconds, samples_per_second (those that apply). For a population, means over
        its members.
    step_losses : ndarray, shape (steps,) or (steps, P)
        The loss of every batch, before its update.
    best_epoch : int or None
        The epoch whose parameters the model has now; None without validation.
    ending : str
        Why it ended: "finished", "early stopping: …", "interrupted" (by Ctrl-C), "interrupted by
        SIGTERM" (or SIGHUP) or "diverged: …".
    seconds : float
        Spent in training and validation.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    step_losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    best_epoch: int | None = None
    ending: str = "finished"
    seconds: float = 0.0

    def __repr__(self) -> str:
        """In a line: how long, how it ended, and the figures of the epoch that is kept."""
        number = self.best_epoch or len(self)
        row = self.rows[number - 1] if self.rows else {}
        parts = ("train_", "val_", "ensemble_")
        figures = [f"{name}={row[name]:.4g}" for name in row if name.startswith(parts)]
        parts = [f"{len(self)} epoch{'s' * (len(self) != 1)}, {self.ending}"]
        if figures:
            parts.append(f"{'best ' if self.best_epoch else ''}epoch {number}: {' '.join(figures)}")
        return f"<{type(self).__name__}: {'; '.join(parts)}>"

    def __getitem__(self, column: str) -> list[Any]:
        """One column, a value an epoch; ConfigError for one that there is not."""
        known = dict.fromkeys(name for row in self.rows for name in row)
        if not isinstance(column, str) or (known and column not in known):
            raise ConfigError(
                f"`{type(self).__name__}`: expected a column among {', '.join(known)}, got "
                f"{column!r}; an epoch is history.rows[number]"
            )
        return [row.get(column) for row in self.rows]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, epoch by epoch."""
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C, SIGTERM or SIGHUP ended it."""
        return self.ending.startswith(INTERRUPTED)

    def behind(self) -> History:
        """The beginning of a longer history: that of a training that goes on."""
        return replace(self, rows=list(self.rows), ending="finished")

    def state_dict(self) -> dict[str, Any]:
        """All of it by name: ``History(**state)`` is the same again."""
        return dict(vars(self))

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame`` with the epochs as its index.

        Raises
        ------
        MissingDependencyError
            Without pandas.
        """
        try:
            import pandas
        except ImportError:
            raise MissingDependencyError(
                'pandas is needed for data frames; pip install "xpmlp[cli]"'
            ) from None
        frame = pandas.DataFrame(self.rows)
        return frame.set_index("epoch") if "epoch" in frame else frame

    def to_csv(self, path: str | Path, *, on_disk: bool = True) -> None:
        """Write the rows as CSV; the file appears whole or not at all.

        Parameters
        ----------
        path : path
        on_disk : bool
            Whether to wait until it is on the disk, which takes milliseconds.
        """
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns or ["epoch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(path, text.getvalue().encode(), on_disk=on_disk)
