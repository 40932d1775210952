"""Running the command: what becomes of errors, warnings, and of streams that nobody reads."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from ..communication import end_all_ranks, let_first_speak
from ..errors import XpmlpError
from ..training.terminal import Unbroken
from . import afterwards, selfcheck, sweeping, warned
from . import tables as t
from .app import app

assert afterwards and selfcheck and sweeping  # have added their commands


def run() -> None:
    """Run the command; a foreseen error is one line on standard error and exit status 1."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or pipe that cannot show "R²" gets "R?", not a traceback.
            stream.reconfigure(errors="replace")
    with _unbroken_streams(), warned.in_plain_words():
        try:
            app()
        except XpmlpError as error:
            if os.environ.get("XPMLP_DEBUG"):
                raise
            let_first_speak()
            text = "; ".join([str(error), *getattr(error, "__notes__", ())])
            print(f"xpmlp: {t.plain(text, 2000)}", file=sys.stderr)
            end_all_ranks()
            sys.exit(1)
        except KeyboardInterrupt:
            let_first_speak()
            print("xpmlp: interrupted", file=sys.stderr)
            end_all_ranks()
            sys.exit(130)


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
