"""Grids of settings, written as text: ``lr=1e-4:1e-2:log:8`` by ``weight_decay=0,1e-4``."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from .settings import AXES, Settings

_HELP = {
    "hidden": "widths joined by x, such as 64,256x128",
    "batch_size": "whole numbers, such as 32,64,128",
}
_NUMBERS = "0,1e-4,1e-3 or FROM:TO:COUNT or FROM:TO:log:COUNT, such as 1e-4:1e-2:log:8"


def parse_axes(texts: Mapping[str, str]) -> dict[str, list[Any]]:
    """The values of each axis.

    Parameters
    ----------
    texts : mapping of str to str
        For names of :data:`AXES` (dashes may stand for underscores): values divided by commas; or
        ``FROM:TO:COUNT`` for so many at equal distances, ends included; or ``FROM:TO:log:COUNT``
        for equal ratios. Hidden widths are joined by x, so ``64,256x128`` is two networks.

    Returns
    -------
    dict of str to list

    Raises
    ------
    ConfigError
        For an unknown name, a text that is none of these, an empty axis or a value given twice.

    Examples
    --------
    >>> parse_axes({"lr": "1e-3:1e-1:log:3", "hidden": "64,32x16"})
    {'lr': [0.001, 0.01, 0.1], 'hidden': [(64,), (32, 16)]}
    """
    axes = {}
    for given, text in texts.items():
        name = given.replace("-", "_")
        if name not in AXES:
            raise ConfigError(f"`sweep`: expected axes among {', '.join(AXES)}, got {given!r}")
        option = "--" + name.replace("_", "-")
        values = _values(name, option, text)
        if not values:
            raise ConfigError(f"`{option}`: expected at least one value, got {text!r}")
        twice = [value for place, value in enumerate(values) if value in values[:place]]
        if twice:
            raise ConfigError(f"`{option}`: expected each value once, got {twice[0]} twice")
        axes[name] = values
    return axes


def expand(axes: Mapping[str, Sequence[Any]], base: Settings) -> list[Settings]:
    """Every combination of the axes' values, the last axis fastest.

    Parameters
    ----------
    axes : mapping of str to sequence
        As :func:`parse_axes` gives them.
    base : Settings
        All that the axes leave open.

    Raises
    ------
    ConfigError
        If an axis is unknown or empty, or a combination would come twice.
    """
    for name, values in axes.items():
        if name not in AXES:
            raise ConfigError(f"`sweep`: expected axes among {', '.join(AXES)}, got {name!r}")
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise ConfigError(
                f"`sweep`: expected a list of values of {name}, got {values!r}; text is read by "
                "parse_axes"
            )
        if not len(values):
            raise ConfigError(f"`sweep`: expected at least one value of {name}, got none")
    points = [
        base.with_options(dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]
    check_points(points)
    return points


def check_points(points: Sequence[Settings]) -> None:
    """Raise ConfigError if there are no settings, or the same ones twice."""
    if not points:
        raise ConfigError("`sweep`: expected at least one setting, got none")
    seen: dict[Settings, int] = {}
    for number, point in enumerate(points):
        if point in seen:
            raise ConfigError(
                f"`sweep`: expected each setting once, got number {seen[point]} again as number "
                f"{number}: {point.describe()}"
            )
        seen[point] = number


def _values(name: str, option: str, text: str) -> list[Any]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        if name == "hidden":
            return [tuple(int(width) for width in part.lower().split("x")) for part in parts]
        values = [value for part in parts for value in _numbers(part)]
        if name == "batch_size":
            if any(value != int(value) for value in values):
                raise ValueError
            return [int(value) for value in values]
        return values
    except ValueError:
        raise ConfigError(
            f"`{option}`: expected {_HELP.get(name, _NUMBERS)}; got {text!r}"
        ) from None


def _numbers(part: str) -> list[float]:
    """One number, or the numbers of a range."""
    if ":" not in part:
        return [float(part)]
    start, stop, *rest = part.split(":")
    logarithmic = rest[:1] == ["log"] and len(rest) == 2
    if not logarithmic and len(rest) != 1:
        raise ValueError
    low, high, count = float(start), float(stop), int(rest[-1])
    if count < 1 or (logarithmic and min(low, high) <= 0.0):
        raise ValueError
    space = np.geomspace if logarithmic else np.linspace
    # To ten digits, so that people find their numbers again: not 0.0010000000000000002.
    return [float(f"{value:.10g}") for value in space(low, high, count)]
