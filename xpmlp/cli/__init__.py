"""The ``xpmlp`` command: train, evaluate, predict, report, bench, selfcheck, info, and more."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any


class Ended(KeyboardInterrupt):
    """A signal has come that ends the command as Ctrl-C does.

    Parameters
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def main() -> None:
    """Run the command; what the ``xpmlp`` script calls."""
    try:
        _end_by_signals()
        from .running import run
    except ImportError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        print(
            f"xpmlp: the command needs the {error.name} library; "
            'install it with: pip install "xpmlp[cli]"',
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt as stop:  # while it starts
        print("xpmlp: interrupted", file=sys.stderr)
        sys.exit(128 + getattr(stop, "number", signal.SIGINT))
    run()


def _end_by_signals() -> None:
    """Have SIGTERM and SIGHUP end whatever runs as Ctrl-C does; a training hears them itself."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has not all of them
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: Any) -> None:
    raise Ended(number)


_end.gives_way = True  # type: ignore[attr-defined]  # to a training, which keeps what it has
