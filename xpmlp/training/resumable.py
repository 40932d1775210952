"""The state of a training: all that it takes to go on with it as if it had never stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ..communication import Communicator
from ..errors import CheckpointError, XpmlpError
from .callbacks import Callback
from .checkpoint_callback import Checkpoint
from .history import History
from .identity import check_identity, differences, identity_of
from .rate_plan import Plan
from .state_file import read_state
from .stopping import INTERRUPTED, Stopping
from .streams import check_known
from .tally import Tally
from .together import check_alike, take_from_first


class Resumable:
    """A trainer that can be stopped between any two steps, told apart, and put back.

    Attributes
    ----------
    stopping : Stopping
        The signals that end a training.
    ranks : Communicator or None
        Other processes that train the same network.
    wish : str or None
        With ranks, the ending that this one would like and the others do not know of yet.
    """

    callbacks: list[Callback]
    history: History
    model: Any
    optimizer: Any
    epochs: int

    def __init__(self) -> None:
        self.stopping = Stopping(self.stop)
        self.ranks: Communicator | None = None
        self.wish: str | None = None
        self.epoch = 0
        self.steps_per_epoch = 0
        self.total_steps = 0
        self._plan = Plan()
        self._identity: dict[str, Any] = {}
        self._begin_at(0, History())

    def __getstate__(self) -> dict[str, Any]:
        # For copies and pickles.
        return vars(self) | {"stopping": None, "ranks": None, "parallel": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.stopping = Stopping(self.stop)

    def stop(self, reason: str) -> None:
        """End the training after the current step; callbacks may call this."""
        if self.ranks is None:
            self._ending = reason
        else:
            self.wish = reason

    def _agree(self) -> None:
        """Have all ranks end, or none: as the first one that wishes to."""
        if self.ranks is None:
            return
        wishes = [wish for wish in self.ranks.everyone(self.wish) if wish is not None]
        if wishes:
            self._ending, self.wish = wishes[0], None

    @property
    def interrupted(self) -> bool:
        """Whether a signal ends the training that runs."""
        return (self._ending or "").startswith(INTERRUPTED)

    def state_dict(self) -> dict[str, Any]:
        """All that the training needs to go on from here: numbers, texts and arrays on the host."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Be where :meth:`state_dict` was told, in a training that is about to begin."""
        raise NotImplementedError

    def _common_state(self) -> dict[str, Any]:
        """What every training has to remember."""
        tally, losses = self._tally, self._losses
        seen = {
            "step_losses": np.concatenate(losses) if losses else np.zeros(0),
            "seconds": time.perf_counter() - self._start,
        }
        return {
            "identity": self._identity,
            "ending": self._ending or "",
            "epoch": self.epoch - (tally.steps > 0),  # whole ones
            "last": self._last,
            "planned_for": self._plan.total,
            "inside": tally.state_dict() if tally.steps else None,
            "history": self.history.state_dict() | seen,
            "callbacks": [[type(c).__name__, c.state_dict()] for c in self.callbacks],
        }

    def _load_common_state(self, state: dict[str, Any]) -> None:
        """Be where :meth:`_common_state` was told."""
        kind, told = type(self.history), state["history"]
        expected = vars(kind())
        if any(type(told[n]) is not type(v) for n, v in expected.items() if v is not None):
            raise ValueError(f"no {kind.__name__}")
        self._begin_at(state["last"] or self.epochs, kind(**told))
        self.epoch = int(state["epoch"])
        self._tally = Tally(state["inside"])
        anew = state["last"] is None  # a schedule over the epochs that are asked for now
        steps = self._last * self.steps_per_epoch if anew else int(state["planned_for"])
        self._plan = self._plan.over(self.optimizer, self.steps_per_epoch, steps)
        ending = state["ending"]
        # What a signal has stopped was not over. All else was, unless more epochs are asked for.
        goes_on = ending.startswith(INTERRUPTED)
        goes_on |= anew and self.epoch < self._last
        self._ending = None if goes_on else ending or None

    def _settings(self) -> dict[str, Any]:
        """What the course of the training depends on, beside its data."""
        optimizer = self.optimizer
        names = "model loss epochs batch_size lr_decay penalty clip_norm precision normalization"
        names += " restore_best monitor metrics seed shuffle drop_last"
        return {
            **{name: getattr(self, name) for name in names.split()},
            "optimizer": {"kind": type(optimizer).__name__, **optimizer.options()},
            "schedule": optimizer.schedule,
            "callbacks": [callback for callback in self.callbacks if callback.steers],
        }

    def _saved(
        self, x: Any, y: Any, validation: Any, resume: Any, strict: bool, weights: Any = None
    ) -> Any:
        """The state to go on from, if any; and find out, where it matters, which training this is.

        Of several ranks, all then have what the first one begins with.
        Without ``strict`` the state may be another training's: what differs is as it is here.
        """
        checkpoints = any(isinstance(c, Checkpoint) for c in self.callbacks)
        if resume is None and self.ranks is None and not checkpoints:
            return None
        check_known(x, y, *(validation or ())[:2])
        self._identity = own = identity_of(self._settings(), x, y, validation, weights)
        if self.ranks is not None:
            check_alike(self.ranks, own)
            take_from_first(self.ranks, self.model, self.optimizer)
        if resume is None:
            return None
        read = partial(read_state, resume)
        state = read() if self.ranks is None else self.ranks.first(read)
        with _named(resume):
            if strict:
                check_identity(resume, state["identity"], own)
                return state
            changed = {name for name, *_ in differences(state["identity"], own)}
            kept = {
                name: value
                for name, value in state["optimizer"]["options"].items()
                if not any(one.startswith(f"settings.optimizer.{name}") for one in changed)
            }
            return state | {"last": None, "optimizer": state["optimizer"] | {"options": kept}}

    def _begin_at(self, last: int, before: History) -> None:
        """Be at the beginning of a training up to an epoch, or behind the epochs before."""
        self.history, self._last = before, int(last)
        self._ending: str | None = None
        self.wish = None
        self._tally = Tally()
        self._losses = [before.step_losses] if len(before.step_losses) else []
        self._start = time.perf_counter() - before.seconds

    def _put_back(self, saved: dict[str, Any] | None, resume: Any) -> None:
        """Go on from a saved state, if there is one, and plan the steps that are left."""
        if saved is not None:
            with _named(resume):
                self.load_state_dict(saved)
        left = (self._last - self.epoch) * self.steps_per_epoch - self._tally.steps
        self.total_steps = self.optimizer.steps + left
        self._plan = self._plan.over(self.optimizer, self.steps_per_epoch, self.total_steps)

    def _end_epoch(self, step_losses: np.ndarray) -> None:
        """Its losses are all that is told of it from now on, beside its row of the history."""
        self._tally = Tally()
        self._losses.append(step_losses)

    def _tell_of_the_start(self, saved: dict[str, Any] | None) -> None:
        """Callbacks begin; then those of a saved training remember, those of a kind in turn."""
        for callback in self.callbacks:
            callback.on_start(self)  # type: ignore[arg-type]
        left = list(self.callbacks)
        for kind, state in [] if saved is None else saved["callbacks"]:
            same = [callback for callback in left if type(callback).__name__ == kind]
            if same:
                same[0].load_state_dict(state)
                left.remove(same[0])

    def _tell_of_the_stop(self) -> None:
        for callback in self.callbacks:
            callback.on_stop(self)  # type: ignore[arg-type]


@contextmanager
def _named(path: Any) -> Iterator[None]:
    """A state that is not what it should be is named as the reason."""
    try:
        yield
    except XpmlpError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"expected the state of this kind of training in {path}, got {error!r} in reading it"
        ) from error
