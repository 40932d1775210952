"""A rank that fails ends the others, which would wait for it for ever."""

from __future__ import annotations

import atexit
import sys
import time
from typing import Any

from .base import Communicator


class Guard:
    """A rank that ends by an error, or in the middle of a training, ends the others with it.

    They would wait for its share of a sum for ever.
    """

    _one: Guard | None = None

    def __init__(self, ranks: Communicator):
        self.ranks, self.training = ranks, False
        self._before = sys.excepthook
        sys.excepthook = self._report
        atexit.register(self._at_exit)  # after mpi4py's own, and so run before it

    @classmethod
    def of(cls, ranks: Communicator) -> Guard:
        """That of this process."""
        if cls._one is None:
            cls._one = cls(ranks)
        return cls._one

    def _report(self, *error: Any) -> None:
        let_first_speak()
        print(f"xpmlp: rank {self.ranks.rank} of {self.ranks.size} ends all:", file=sys.stderr)
        self._before(*error)
        self._abort()

    def _at_exit(self) -> None:
        if self.training:
            print(
                f"xpmlp: rank {self.ranks.rank} of {self.ranks.size} has left a training, which "
                "ends all",
                file=sys.stderr,
            )
            self._abort()

    def _abort(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.ranks.abort()


_LET_FIRST = 1.0  # seconds


class training_together:
    """For as long as this lasts, a process that ends ends all ranks; after an error, from then on.

    Parameters
    ----------
    ranks : Communicator or None
    """

    def __init__(self, ranks: Communicator | None):
        self._guard = Guard._one if ranks is not None else None

    def __enter__(self) -> None:
        if self._guard is not None:
            self._guard.training = True

    def __exit__(self, kind: Any, *error: Any) -> None:
        if self._guard is not None and kind is None:
            self._guard.training = False


def let_first_speak() -> None:
    """Wait a little, on another rank than the first: where all fail alike, it ends all."""
    if Guard._one is not None and Guard._one.ranks.rank:
        time.sleep(_LET_FIRST)


def end_all_ranks() -> None:
    """End the other ranks, if this process is one of several: it has failed, and said why."""
    if Guard._one is not None:
        Guard._one._abort()
