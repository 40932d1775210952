"""Learning-rate schedules: ``schedule(step)`` is the factor on the base rate, step from 0.

``total`` is the number of steps of the whole training. Given as None it is filled in by the
trainer, which knows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from typing import Any

from .choices import ScheduleName
from .errors import ConfigError
from .options import Number, Option, is_function

_STEP = Number("[0, inf)")


def _checked(default: Any, option: Option) -> Any:
    """A field of a schedule, with what it may be."""
    return field(default=default, metadata={"option": option})


def _of_numbers(call: Callable) -> Callable:
    """The rate at a step, which has to be a number."""

    @wraps(call)
    def at(self: Schedule, step: Any) -> float:
        if type(step) is not int or step < 0:
            step = _STEP.check(type(self).__name__, "the number of a step", step)
        return call(self, step)

    return at


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules."""

    total: int | None = _checked(None, Number("[1, inf)", whole=True, optional=True))

    def __post_init__(self) -> None:
        for one in fields(self):
            if "option" in one.metadata:
                check, value = one.metadata["option"].check, getattr(self, one.name)
                object.__setattr__(self, one.name, check(type(self).__name__, one.name, value))

    def __init_subclass__(cls) -> None:
        if "__call__" in vars(cls):
            cls.__call__ = _of_numbers(cls.__call__)

    def __call__(self, step: int) -> float:
        raise NotImplementedError

    def over(self, total: int) -> Schedule:
        """The same schedule with ``total`` filled in, if it was left open."""
        return self if self.total is not None else replace(self, total=total)

    def _progress(self, step: int) -> float:
        """How much of the training is over, in [0, 1]."""
        if self.total is None:
            raise ConfigError(
                f"`{type(self).__name__}`: expected total=, the number of steps; "
                "a Trainer fills it in"
            )
        return min(1.0, step / self.total)


@dataclass(frozen=True)
class Constant(Schedule):
    """1 throughout."""

    def __call__(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Step(Schedule):
    """``factor`` to the power of ``⌊step / every⌋``.

    Attributes
    ----------
    every : int
        Steps between two drops.
    factor : float
        What a drop multiplies by.
    """

    every: int = _checked(1000, Number("[1, inf)", whole=True))
    factor: float = _checked(0.1, Number("[0, inf)"))

    def __call__(self, step: int) -> float:
        return self.factor ** (step // self.every)


@dataclass(frozen=True)
class Exponential(Schedule):
    """From 1 to ``final`` at a constant rate: ``final^(step / total)``."""

    final: float = _checked(0.01, Number("[0, inf)"))

    def __call__(self, step: int) -> float:
        return self.final ** self._progress(step)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Down half a cosine from 1 to ``final`` (Loshchilov and Hutter 2017)."""

    final: float = _checked(0.0, Number("[0, inf)"))

    def __call__(self, step: int) -> float:
        return self.final + (1.0 - self.final) * _half_cosine(self._progress(step))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From 1 to ``final`` as ``(1 − step / total)^power``; a straight line for power 1."""

    final: float = _checked(0.0, Number("[0, inf)"))
    power: float = _checked(1.0, Number("(0, inf)"))

    def __call__(self, step: int) -> float:
        return self.final + (1.0 - self.final) * (1.0 - self._progress(step)) ** self.power


@dataclass(frozen=True)
class WarmRestarts(Schedule):
    """Cosines from 1 to ``final``, one after another (SGDR, Loshchilov and Hutter 2017).

    Attributes
    ----------
    first : int
        Steps of the first cosine.
    growth : int
        How many times as long each is as the one before.
    final : float
        Where each ends.
    """

    first: int = _checked(1000, Number("[1, inf)", whole=True))
    growth: int = _checked(1, Number("[1, inf)", whole=True))
    final: float = _checked(0.0, Number("[0, inf)"))

    def __call__(self, step: int) -> float:
        length = self.first
        if self.growth == 1:
            step = step % length
        while step >= length:
            step, length = step - length, length * self.growth
        return self.final + (1.0 - self.final) * _half_cosine(step / length)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """Linearly from near 0 to 1 over ``steps``, then another schedule.

    Attributes
    ----------
    steps : int
        Length of the warm-up; step 0 already takes 1/steps, so that it is not wasted.
    then : Schedule, its name or a function of the step
        What follows, counted from its own step 0, over the steps that are left.
    """

    steps: int = _checked(100, Number("[0, inf)", whole=True))
    then: Any = field(default=None, metadata={"option": Option(lambda then: as_schedule(then))})

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return (step + 1) / self.steps
        then = self.then
        if self.total is not None and isinstance(then, Schedule):
            then = then.over(max(1, self.total - self.steps))
        return then(step - self.steps)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up a half cosine to 1 and down again to almost nothing (Smith and Topin 2018).

    Attributes
    ----------
    rise : float
        The share of the training spent going up.
    initial, final : float
        Where it starts and ends.
    """

    rise: float = _checked(0.3, Number("[0, 1)"))
    initial: float = _checked(0.04, Number("[0, inf)"))
    final: float = _checked(1e-4, Number("[0, inf)"))

    def __call__(self, step: int) -> float:
        progress = self._progress(step)
        if progress < self.rise:
            return 1.0 + (self.initial - 1.0) * _half_cosine(progress / self.rise)
        fall = (progress - self.rise) / (1.0 - self.rise)
        return self.final + (1.0 - self.final) * _half_cosine(fall)


def _half_cosine(progress: float) -> float:
    """1 at 0, 0 at 1, flat at both ends."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


BY_NAME: dict[str, Schedule] = {
    "constant": Constant(),
    "exponential": Exponential(),
    "cosine": Cosine(),
    "onecycle": OneCycle(),
    "polynomial": Polynomial(),
}
"""Schedules that need no further options, for command lines and config files."""


def as_schedule(schedule: ScheduleName | Schedule | Callable[[int], float] | None) -> Any:
    """A schedule from its name, or a function of the step as it is; None is constant.

    Raises
    ------
    ConfigError
        For an unknown name, listing the known ones, or what cannot be called.
    """
    if schedule is None:
        return Constant()
    if isinstance(schedule, str):
        if schedule not in BY_NAME:
            raise ConfigError(f"expected a schedule among {', '.join(BY_NAME)}, got {schedule!r}")
        return BY_NAME[schedule]
    if not isinstance(schedule, Schedule) and not is_function(schedule, 1):
        raise ConfigError(
            f"expected a schedule such as Cosine(), its name or a function of the step, got "
            f"{schedule!r:.200}"
        )
    return schedule
