"""What may look on during a training: early stopping, saving, and any function of your own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, ConfigError
from ..options import Number
from .chosen_metrics import sign_of

if TYPE_CHECKING:
    from ..backend import Array
    from .history import History
    from .trainer import Trainer


class Callback:
    """Base of all callbacks; each method may be overridden, none must be.

    Attributes
    ----------
    steers : bool
        Whether it may end or change a training: then a checkpoint of a training with other options
        of it is another training's.
    first_rank_only : bool
        Whether it draws, prints or writes files: of several ranks, only the first has it then. All
        others are called on every rank, with the same rows.
    """

    steers = False
    first_rank_only = False

    @property
    def sees_steps(self) -> bool:
        """Whether :meth:`on_step` does anything. If none does, an epoch on a GPU runs as a whole.

        Asked before each epoch, after :meth:`on_start`.
        """
        return getattr(self.on_step, "__func__", None) is not Callback.on_step

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step; the trainer knows ``total_steps`` and ``steps_per_epoch``.

        The latter is 0 for batches of an iterable without a length.
        """

    def on_step(self, trainer: Trainer, loss: Array) -> None:
        """After each step. Reading the loss here waits for the device: do it rarely."""

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """After each epoch, with its row of the history. ``trainer.stop(reason)`` ends training."""

    def on_stop(self, trainer: Trainer) -> None:
        """After the last step, before the best parameters are restored."""

    def on_end(self, trainer: Trainer, history: History) -> None:
        """After the last epoch, however it ended."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers from epoch to epoch: numbers, texts and arrays, for a checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`; called after :meth:`on_start`."""


_AT_LEAST = 4  # epochs to wait for in any case, where a share of those before is


_PATIENCE = Number("[1, inf)", whole=True)
_FACTOR, _STOP_AT = Number("(0, 1)"), Number("(0, inf)", optional=True)


class Patience(Callback):
    """Base of what acts when a column of the history has not improved for some epochs.

    Parameters
    ----------
    patience : int
        Epochs without improvement to wait for.
    monitor : str
        A column: ``"val_loss"``, ``"val_accuracy"``, ``"train_loss"``, …
    min_delta : float
        What counts as improvement.
    """

    steers = True
    share: float | None = None

    def __init__(self, patience: int = 5, *, monitor: str = "val_loss", min_delta: float = 0.0):
        self.patience = _PATIENCE.check(type(self).__name__, "patience", patience)
        self.monitor = monitor
        self.min_delta = min_delta

    def on_start(self, trainer: Trainer) -> None:
        self._best: Any = -np.inf
        self._waited: Any = 0
        self._seen = 0
        self._metrics = getattr(trainer, "metrics", {})

    def state_dict(self) -> dict[str, Any]:
        arrays = {"best": np.asarray(self._best), "waited": np.asarray(self._waited)}
        return arrays | {"seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._best, self._waited = state["best"], state["waited"]
        self._seen = state["seen"]

    def exhausted(self, figures: Mapping[str, Any]) -> Any:
        """Whether patience is at an end, for one network or, as (P,) booleans, for each member.

        Parameters
        ----------
        figures : mapping
            The epoch's columns: numbers, or arrays of shape (P,).
        """
        if self.monitor not in figures:
            raise ConfigError(
                f"`{type(self).__name__}`: expected monitor to be one of {', '.join(figures)}, got "
                f"{self.monitor!r}; pass validation data to fit for the val_ columns"
            )
        values = sign_of(self.monitor, self._metrics) * np.asarray(figures[self.monitor])
        better = values > self._best + self.min_delta
        self._best = np.where(better, values, self._best)
        self._waited = np.where(better, 0, self._waited + 1)
        self._seen += 1
        allowed: Any = self.patience
        if self.share is not None:
            best_epoch = self._seen - self._waited
            wanted = np.maximum(_AT_LEAST, self.share * best_epoch)
            allowed = np.minimum(self.patience, wanted)
        return self._waited >= allowed


class EarlyStopping(Patience):
    """Stop when a column of the history has not improved for some epochs.

    A :class:`PopulationTrainer` stops each member by its own column.

    Parameters
    ----------
    patience, monitor, min_delta
        As of :class:`Patience`.
    share : float, optional
        s > 0: after a best epoch b it waits for ``min(patience, max(4, s b))`` epochs only, since
        what was good early is seldom bettered late.
    """

    def __init__(
        self,
        patience: int = 5,
        *,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        share: float | None = None,
    ):
        super().__init__(patience, monitor=monitor, min_delta=min_delta)
        if share is not None and not (isinstance(share, Real) and float(share) > 0.0):
            raise ConfigError(f"`EarlyStopping`: expected share to be None or > 0, got {share!r}")
        self.share = share

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        if self.exhausted(row):
            trainer.stop(self.reason)

    @property
    def reason(self) -> str:
        """What is reported of a training that it ended."""
        long = f"{self.patience} epochs" if self.share is None else "long"
        return f"early stopping: {self.monitor} has not improved for {long}"


class ReduceOnPlateau(Patience):
    """Lower the learning rate when a column of the history has not improved for some epochs.

    Parameters
    ----------
    patience, monitor, min_delta
        As of :class:`Patience`; after each reduction it waits anew.
    factor : float
        In (0, 1): what the optimizer's rate is multiplied by, beside its schedule.
    stop_at : float, optional
        End the training where a rate at or below this would be lowered once more.

    Notes
    -----
    The trainer's optimizer keeps the lowered rate after the training, so that
    ``Trainer.resume`` goes on with it.
    """

    def __init__(
        self,
        patience: int = 5,
        *,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        factor: float = 0.1,
        stop_at: float | None = None,
    ):
        super().__init__(patience, monitor=monitor, min_delta=min_delta)
        self.factor = _FACTOR.check("ReduceOnPlateau", "factor", factor)
        self.stop_at = _STOP_AT.check("ReduceOnPlateau", "stop_at", stop_at)

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        if not self.exhausted(row):
            return
        self._waited = 0
        if self.stop_at is not None and np.all(np.asarray(trainer.optimizer.lr) <= self.stop_at):
            trainer.stop(f"plateau: {self.monitor}, and the learning rate is at {self.stop_at:g}")
        else:
            trainer.optimizer.lr = trainer.optimizer.lr * self.factor


class TimeLimit(Callback):
    """Stop when a training has taken so long; what is best so far is kept as at any other end.

    Parameters
    ----------
    seconds : float
        Looked at after every step; the epoch that runs is then evaluated as it is.
    """

    def __init__(self, seconds: float):
        if not isinstance(seconds, Real) or not float(seconds) > 0.0:
            raise ConfigError(f"`TimeLimit`: expected seconds > 0, got {seconds!r}")
        self.seconds = float(seconds)

    def on_start(self, trainer: Trainer) -> None:
        self._start = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": time.perf_counter() - self._start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._start -= state["seconds"]

    def on_step(self, trainer: Trainer, loss: Array) -> None:
        if time.perf_counter() - self._start > self.seconds:
            trainer.stop(f"time limit: {self.seconds:g} seconds")


class SaveHistory(Callback):
    """Write the history as CSV after every epoch, so that a crash loses nothing.

    What cannot be written is a warning: the training goes on, and tries again after the next epoch.
    Only the last time it waits until all is on the disk.

    Parameters
    ----------
    path : path
    """

    first_rank_only = True

    def __init__(self, path: str | Path):
        self.path = path

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self._write(trainer, on_disk=False)

    def on_end(self, trainer: Trainer, history: History) -> None:
        if len(history):
            self._write(trainer, on_disk=True)

    def _write(self, trainer: Trainer, on_disk: bool) -> None:
        try:
            trainer.history.to_csv(self.path, on_disk=on_disk)
        except CheckpointError as error:
            warnings.warn(f"the history is not saved: {error}", stacklevel=1)


class OnEpoch(Callback):
    """Call a function with each row of the history.

    Parameters
    ----------
    function : callable
        Of one dict.
    """

    first_rank_only = True

    def __init__(self, function: Callable[[dict[str, Any]], None]):
        self.function = function

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self.function(row)


def as_callbacks(callbacks: Any) -> list[Callback]:
    """One callback, or several, as a list."""
    given: list[Any] = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in given:
        if not isinstance(callback, Callback):
            hint = "; a function of each epoch's row is OnEpoch(function)"
            if isinstance(callback, type) and issubclass(callback, Callback):
                hint = f"; write {callback.__name__}(…) rather than {callback.__name__}"
            raise ConfigError(
                f"`Trainer`: expected callbacks to be Callback objects, got {callback!r}{hint}"
            )
    return given
