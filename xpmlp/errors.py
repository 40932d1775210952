"""The exceptions of xpmlp: each says what was expected, what came, and what to do.

Each class also derives from the built-in exception a caller would guess, so that
``except ValueError`` keeps working.
"""


class XpmlpError(Exception):
    """Base of every error raised on purpose by xpmlp."""


class ShapeError(XpmlpError, ValueError):
    """An array has a shape that the operation cannot use."""


class DTypeError(XpmlpError, TypeError):
    """An array has a data type that the operation cannot use."""


class BackendError(XpmlpError, RuntimeError):
    """The array library or device asked for is unknown, missing or does not answer."""


class OutOfMemoryError(XpmlpError, MemoryError):
    """The device has too little memory left; the message says what to lower."""


class ConfigError(XpmlpError, ValueError):
    """An option has a value outside of what it may be."""


class DataError(XpmlpError, ValueError):
    """A data set is missing, damaged or holds values that cannot be trained on."""


class CheckpointError(XpmlpError, ValueError):
    """A saved model or run folder cannot be written or read."""


class MissingDependencyError(XpmlpError, ImportError):
    """An optional library is needed for what was asked; the message names the extra to install."""


class StateError(XpmlpError, RuntimeError):
    """A method was called in the wrong order, such as ``backward`` before ``forward``."""
