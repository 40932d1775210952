"""The exceptions of xpmlp: each says what was expected, what came, and what to do.

Each class also derives from the built-in exception a caller would guess, so that
``except ValueError`` keeps working.
"""

from __future__ import annotations

from typing import Any

MESSAGE_LIMIT = 2000  # characters


def readable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Text without signs that a terminal acts on, the middle left out where it is too long.

    Messages quote names, cells and other libraries' words, which come from files.
    """
    if len(text) > limit:
        text = f"{text[: limit - limit // 4 - 3]} … {text[-(limit // 4) :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


class XpmlpError(Exception):
    """Base of every error raised on purpose by xpmlp."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*(readable(a) if isinstance(a, str) else a for a in args), **kwargs)


class ShapeError(XpmlpError, ValueError):
    """An array has a shape that the operation cannot use."""


class DTypeError(XpmlpError, TypeError):
    """An array has a data type that the operation cannot use."""


class BackendError(XpmlpError, RuntimeError):
    """The array library or device asked for is unknown, missing or does not answer."""


class OutOfMemoryError(XpmlpError, MemoryError):
    """The device has too little memory left; the message says what to lower."""

    # MemoryError's, which would be found, refuses a class with another base before it; what brings
    # errors from other processes (tblib, which Dask uses) calls it.
    def __new__(cls, *args: object) -> OutOfMemoryError:
        return Exception.__new__(cls, *args)


class ConfigError(XpmlpError, ValueError):
    """An option has a value outside of what it may be."""


class DataError(XpmlpError, ValueError):
    """A data set is missing, damaged or holds values that cannot be trained on."""


class CheckpointError(XpmlpError, ValueError):
    """A saved model or run folder cannot be written or read."""


class MissingDependencyError(XpmlpError, ImportError):
    """An optional library is needed for what was asked; the message names the extra to install."""


class WorkerError(XpmlpError, RuntimeError):
    """Other processes or machines could not do what they were given; the message says why."""


class StateError(XpmlpError, RuntimeError):
    """A method was called in the wrong order, such as ``backward`` before ``forward``."""
