"""Writing to someone who may have left: a closed terminal or pipe never ends a training."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
"""Numbers of the errors that say that a disk has no room."""


class Unbroken:
    """A text stream whose reader may go away: then nothing more is written.

    Parameters
    ----------
    stream : text stream or None
        Such as ``sys.stderr``; None where it was closed from the beginning.
    holds_results : bool
        Whether a full disk raises: then it is not the reader that has left.
    """

    def __init__(self, stream: Any, *, holds_results: bool = False):
        self._stream, self._holds_results = stream, holds_results

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, if anyone reads it; all of it counts as written."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Have what is written so far go out."""
        self._try("flush")

    def isatty(self) -> bool:
        """Whether it is a terminal, and there."""
        return bool(self._try("isatty"))

    def _try(self, method: str, *arguments: Any) -> Any:
        if self._stream is None:
            return None
        try:
            return getattr(self._stream, method)(*arguments)
        except (OSError, ValueError) as error:  # ValueError: it has been closed here
            if self._holds_results and getattr(error, "errno", None) in FULL:
                raise
            # What is left in its buffer would be tried again, and fail, when the process ends.
            with contextlib.suppress(Exception):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            return None
