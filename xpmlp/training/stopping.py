"""Signals that end a training: it stops after the step that runs, and keeps what it has.

Ctrl-C (SIGINT), SIGTERM (``kill``, a machine that shuts down, a cluster's time limit) and SIGHUP (a
terminal that is closed) do the same, where nobody has said what else they should do.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = "interrupted"
"""The ending of a training that Ctrl-C has stopped; others add "by" and the signal's name."""

# What is there unless someone has asked for something else, as nohup does for SIGHUP. That Ctrl-C
# is ignored says no more than that a shell has started this in the background.
_FREE = {
    "SIGINT": (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler),
    "SIGTERM": (signal.SIG_DFL,),
    "SIGHUP": (signal.SIG_DFL,),
}


class Stopping:
    """Listens for signals.

    Parameters
    ----------
    stop : callable
        Called with the ending at a signal. A second Ctrl-C raises KeyboardInterrupt.
    """

    def __init__(self, stop: Callable[[str], None]):
        self._stop = stop
        self._asked = self._again = False
        self._holds = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """For as long as this lasts; in another thread than the main one it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._asked = self._again = False
        before = {}
        for name, free in _FREE.items():
            number = getattr(signal, name, None)  # Windows has not all of them
            if number is None:
                continue
            now = signal.getsignal(number)
            if now in free or getattr(now, "gives_way", False):
                before[number] = signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A second Ctrl-C waits until this is over: something is being saved."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self._again and not self._holds:
                self._again = False
                raise KeyboardInterrupt

    def _receive(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self._asked:
            if self._holds:
                self._again = True
                return
            raise KeyboardInterrupt
        self._asked = True
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        self._stop(INTERRUPTED + by)


def signal_of(ending: str) -> int | None:
    """The number of the signal that a training was ended by, or None: a shell gets 128 more."""
    if not ending.startswith(INTERRUPTED):
        return None
    name = ending.removeprefix(INTERRUPTED).removeprefix(" by ") or "SIGINT"
    return int(signal.Signals[name])
