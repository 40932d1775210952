"""Running the command: what becomes of errors, warnings, and of streams that nobody reads."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from ..communication import end_all_ranks, let_first_speak
from ..errors import ConfigError, XpmlpError
from ..training.progress import tell
from ..training.terminal import FULL, Unbroken
from . import afterwards, selfcheck, sweeping, warned
from . import tables as t
from .app import app
from .wrong_use import in_options

assert afterwards and selfcheck and sweeping  # have added their commands


def run() -> None:
    """Run the command.

    What was foreseen is one line on standard error, and exit status 1, or 2 where the command was
    used in a wrong way. After a signal the status is what a shell expects.
    """
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or pipe that cannot show "R²" gets "R?", not a traceback.
            stream.reconfigure(errors="replace")
    try:
        with _unbroken_streams(), warned.in_plain_words():
            app()
    except XpmlpError as error:
        if os.environ.get("XPMLP_DEBUG"):
            raise
        text = "; ".join([in_options(str(error)), *getattr(error, "__notes__", ())])
        # Of data too: `--target`: expected a column of them.
        wrong_use = isinstance(error, ConfigError) or text.startswith("`--")
        _end(t.plain(text, 2000), 2 if wrong_use else 1)
    except (KeyboardInterrupt, SystemExit) as stop:
        interruption = _interruption(stop)
        if interruption is None:
            raise
        number = getattr(interruption, "number", signal.SIGINT)
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        notes = getattr(interruption, "__notes__", ())
        _end("; ".join([f"interrupted{by}", *notes]), 128 + number)
    except OSError as error:
        if error.errno not in FULL:
            raise
        # What is left in its buffer would be tried again, and fail, when the process ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        _end(f"cannot write standard output: {error.strerror}", 1)


def _interruption(stop: BaseException) -> BaseException | None:
    """The interruption that an exit comes from: the command's library ends in silence then."""
    error: BaseException | None = stop
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _end(line: str, status: int) -> NoReturn:
    let_first_speak()
    tell(f"xpmlp: {line}")
    end_all_ranks()
    sys.exit(status)


def _open_what_is_closed() -> None:
    """Give standard streams that are closed a place, lest the next file that is opened gets it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


@contextlib.contextmanager
def _unbroken_streams() -> Iterator[None]:
    out: Any = Unbroken(sys.stdout, holds_results=True)
    err: Any = Unbroken(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
