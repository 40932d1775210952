"""Options that say what they may be, declared once, where the class begins::

    class Adam(Optimizer):
        beta1 = Number("[0, 1)", each_member=True)
        eps = Number("[0, inf)")

Each assignment is checked, in ``__init__`` and later. Reading costs nothing: the value lies in the
instance's own dict, where it would lie without a declaration.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from numbers import Integral
from typing import Any, TypeGuard

import numpy as np

from .backend import is_array, to_numpy
from .errors import ConfigError


class Option:
    """An attribute that is converted, or refused, whenever it is assigned.

    Parameters
    ----------
    convert : callable
        ``convert(value)`` gives what is kept, or raises.
    """

    def __init__(self, convert: Callable[[Any], Any]):
        self._convert = convert

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.name] = self.check(type(instance).__name__, self.name, value)

    def check(self, where: str, name: str, value: Any) -> Any:
        """What is kept of the value.

        Raises
        ------
        ConfigError
            If it is none that the option may have.
        """
        return self._convert(value)


class Number(Option):
    """A number within bounds.

    Parameters
    ----------
    interval : str
        The bounds as they are usually written, such as ``"[0, 1)"``; infinity itself is never in.
    whole : bool
        Whether it is an integer.
    each_member : bool
        Whether a population may have a sequence of numbers, one for each member; it is kept as an
        array of float64.
    optional : bool
        Whether it may be None.
    hint : str
        What to add to the message.
    """

    def __init__(
        self,
        interval: str = "(-inf, inf)",
        *,
        whole: bool = False,
        each_member: bool = False,
        optional: bool = False,
        hint: str = "",
    ):
        low, high = interval[1:-1].split(", ")
        self.low, self.high = float(low), float(high)
        self._with_low, self._with_high = interval[0] == "[", interval[-1] == "]"
        self.whole, self.each_member, self.optional = whole, each_member, optional
        self._wanted = self._words(interval)
        self._hint = f"; {hint}" if hint else ""

    def check(self, where: str, name: str, value: Any) -> Any:
        """The number, a float or (``whole``) an int; or the array of the members' numbers."""
        if value is None and self.optional:
            return None
        numbers = _numbers(value)
        if numbers is None or numbers.ndim > self.each_member or not self._fits(value, numbers):
            raise ConfigError(
                f"`{where}`: expected {name} {self._wanted}, got {value!r:.200}{self._hint}"
            )
        if numbers.ndim:
            return numbers
        whole: Any = value
        return int(whole) if self.whole else float(numbers)

    def _fits(self, value: Any, numbers: np.ndarray) -> bool:
        if numbers.size == 0 or (self.whole and not isinstance(value, Integral)):
            return False
        above = numbers >= self.low if self._with_low else numbers > self.low
        below = numbers <= self.high if self._with_high else numbers < self.high
        return bool((above & below & np.isfinite(numbers)).all())

    @property
    def extremes(self) -> tuple[float, float]:
        """The least and the greatest of doubles within the bounds."""
        return (
            self.low if self._with_low else math.nextafter(self.low, math.inf),
            self.high if self._with_high else math.nextafter(self.high, -math.inf),
        )

    def _words(self, interval: str) -> str:
        if self.whole:
            kind = "None or an integer" if self.optional else "to be an integer"
            return kind if np.isinf(self.low) else f"{kind} ≥ {self.low:g}"
        if np.isfinite(self.high):
            words = f"in {interval}"
        elif np.isinf(self.low):
            words = "to be a finite number"
        else:
            words = f"finite and {'≥' if self._with_low else '>'} {self.low:g}"
        return f"{words}, one number or one for each member" if self.each_member else words


class Flag(Option):
    """True or False."""

    def __init__(self) -> None:
        """Nothing to be told."""

    def check(self, where: str, name: str, value: Any) -> bool:
        """The truth value; 0 and 1 are taken for one."""
        if not isinstance(value, Integral | np.bool_) or value not in (0, 1):
            raise ConfigError(f"`{where}`: expected {name} to be True or False, got {value!r:.200}")
        return bool(value)


FLAG = Flag()
SEED = Number(whole=True)


def is_function(value: Any, arguments: int) -> TypeGuard[Callable[..., Any]]:
    """Whether it may be called with so many arguments; a class is none, an instance was meant."""
    if isinstance(value, type) or not callable(value):
        return False
    try:
        inspect.signature(value).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # of functions in C, which do not tell
        pass
    return True


def _numbers(value: Any) -> np.ndarray | None:
    """A copy of real numbers in float64; None for what is no number, such as a text or a date."""
    if isinstance(value, bytes | bytearray | memoryview | np.matrix):
        return None
    try:
        here = isinstance(value, np.ndarray) or not is_array(value)
        array = np.asarray(value) if here else to_numpy(value)
    except (TypeError, ValueError):  # ragged lists
        return None
    real = array.dtype.kind in "iuf" and not np.ma.is_masked(value)
    return np.array(array, np.float64) if real else None
