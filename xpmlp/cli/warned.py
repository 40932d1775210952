"""The command's own warnings: a line on standard error, and remembered for the report."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from . import tables as t

heard: list[str] = []
"""What this command was warned about so far."""


@contextlib.contextmanager
def in_plain_words() -> Iterator[None]:
    """Show the command's own warnings without the place in the code, as long as this lasts."""
    usual = warnings.formatwarning
    heard.clear()

    def plain(message: Any, category: type[Warning], *place: Any, **rest: Any) -> str:
        if category is not UserWarning:
            return usual(message, category, *place, **rest)
        line = t.plain(str(message), 2000)
        heard.append(line)
        return f"xpmlp: {line}\n"

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual
