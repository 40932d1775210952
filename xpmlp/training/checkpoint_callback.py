"""The state of a training saved now and then, for what may stop it at any moment."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import Array
from ..errors import CheckpointError, ConfigError
from ..files import remove_strays
from ..options import Number
from .callbacks import Callback
from .state_file import write_state

if TYPE_CHECKING:
    from .trainer import Trainer


class Checkpoint(Callback):
    """Save all that a training needs to go on, to the bit, with ``fit(…, resume=path)``.

    One file holds the last parameters and the best, running statistics, counters of dropout masks,
    the optimizer's memory and steps, the place in the epoch and in the schedule, the history, what
    other callbacks remember, and which data, settings and version it was. It replaces the one
    before only when it is whole and on the disk.

    Parameters
    ----------
    path : path
        Ending in ``.safetensors`` (which needs the library of that name) or ``.npz``, in a folder
        that exists.
    every : float
        Seconds between two saves, at least.
    share : float
        The largest part of a training's time that saving may take: slow disks are written to less
        often.
    at_end : bool
        Whether to save a training that has come to its end as well; one that a signal stops is
        saved in any case.

    Attributes
    ----------
    saves : int
        How many there were.
    seconds : float
        What they took, all together.

    Notes
    -----
    What cannot be written is a warning, and the file that there was stays. Inside an epoch that
    runs on a GPU as a whole nothing is saved; if one takes longer than ``every``, those after it
    run step by step. With ``precision="fp16"`` a training that goes on finds its loss scale anew.

    Examples
    --------
    >>> trainer = Trainer(model, callbacks=[Checkpoint("run.safetensors")])
    >>> trainer.fit(x, y)                                    # killed somewhere
    >>> trainer.fit(x, y, resume="run.safetensors")          # in another process, goes on there
    """

    first_rank_only = True
    every: Any = Number("[0, inf)")
    share: Any = Number("(0, 1]")

    def __init__(
        self,
        path: str | Path,
        *,
        every: float = 30.0,
        share: float = 0.02,
        at_end: bool = True,
    ):
        self.path = Path(path)
        if self.path.suffix not in (".safetensors", ".npz"):
            raise ConfigError(
                "`Checkpoint`: expected a file name ending in .safetensors or .npz, got "
                f"{self.path.name!r}"
            )
        self.every, self.share, self.at_end = every, share, at_end
        self.saves, self.seconds = 0, 0.0
        self._next = self._long_epochs = 0.0

    @property
    def sees_steps(self) -> bool:
        return self._long_epochs > self.every

    def on_start(self, trainer: Trainer) -> None:
        remove_strays(self.path)
        self._long_epochs = 0.0
        self._next = time.monotonic() + self.every

    def on_step(self, trainer: Trainer, loss: Array) -> None:
        if time.monotonic() >= self._next:
            self.save(trainer)

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self._long_epochs = row["seconds"]
        if time.monotonic() >= self._next:
            self.save(trainer)

    def on_stop(self, trainer: Trainer) -> None:
        if self.at_end or trainer.interrupted:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now, whatever the time; a second Ctrl-C waits for it."""
        start = time.monotonic()
        with trainer.stopping.held():
            try:
                write_state(self.path, trainer.state_dict())
                self.saves += 1
            except CheckpointError as error:
                warnings.warn(f"the checkpoint is not saved: {error}", stacklevel=3)
        took = time.monotonic() - start
        self.seconds += took
        self._next = start + took + max(self.every, took * (1.0 / self.share - 1.0))
