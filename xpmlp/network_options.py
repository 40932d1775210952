"""The options that a network is built from, and those of some members of a population."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ConfigError
from .random import as_generator

Sizes = Sequence[int | Sequence[int]]
"""Inputs, hidden widths, outputs; a hidden width may be one for each member."""


def check_sizes(sizes: Sizes, population: int | None) -> list[Any]:
    """Sizes as ints, and lists of P ints where the members' hidden widths differ."""
    where = "FullyConnectedNet"
    checked: list[Any] = []
    if isinstance(sizes, str) or not isinstance(sizes, Sequence | np.ndarray):
        raise ConfigError(
            f"`{where}`: expected a list of sizes such as [784, 100, 10], got {sizes!r}"
        )
    for place, size in enumerate(sizes):
        if not isinstance(size, Sequence | np.ndarray) or isinstance(size, str):
            checked.append(_whole(size))
            continue
        widths = [_whole(width) for width in size]
        hidden = 0 < place < len(sizes) - 1
        if not hidden or population is None or len(widths) != population:
            raise ConfigError(
                f"`{where}`: expected a list of widths only for hidden layers, one width for each "
                f"member of a population, got {widths} at place {place} of {len(sizes)} with "
                f"population={population}"
            )
        checked.append(widths if len(set(widths)) > 1 else widths[0])
    smallest = min((min(size) if isinstance(size, list) else size for size in checked), default=0)
    if len(checked) < 2 or smallest < 1:
        raise ConfigError(
            f"`{where}`: expected at least an input and an output size, all ≥ 1, got {checked}"
        )
    return checked


def check_inputs(sizes: Sequence[Any], columns: int) -> None:
    """Raise ConfigError unless the network has an input for each column."""
    if sizes[0] != columns:
        raise ConfigError(
            f"`FullyConnectedNet`: expected {columns} inputs, one for each of columns=, got "
            f"sizes {list(sizes)}"
        )


def check_can_share(sizes: Sequence[Any], population: int | None, columns: Any) -> None:
    """Raise ConfigError for networks that cannot have their hidden layers' matrices in common."""
    got = None
    if population is None:
        got = "a single network; give population=P"
    elif columns is not None:
        got = "columns=, whose first layer is each network's own"
    elif any(isinstance(size, list) for size in sizes):
        got = f"other widths for each network, sizes {list(sizes)}"
    elif len(sizes) < 3:
        got = f"no hidden layer, sizes {list(sizes)}"
    if got is not None:
        raise ConfigError(
            "`FullyConnectedNet`: expected a population with hidden layers of one width for "
            f"shared=True, got {got}"
        )


def _whole(size: Any) -> int:
    """A size as an int; 2.5 and "2" are none."""
    if not isinstance(size, int | np.integer) and not (
        isinstance(size, float) and size.is_integer()
    ):
        raise ConfigError(
            f"`FullyConnectedNet`: expected sizes that are whole numbers, got {size!r}"
        )
    return int(size)


def options_of_some(config: dict[str, Any], numbers: Sequence[int]) -> dict[str, Any]:
    """What builds a population of some members of the one that ``config`` builds."""

    def pick(value: Any) -> Any:
        return [value[number] for number in numbers] if isinstance(value, list) else value

    seeds = as_generator(config["seed"], config["population"]).seeds
    return config | {
        "sizes": [pick(size) for size in config["sizes"]],
        "dropout": pick(config["dropout"]),
        "seed": [seeds[number] for number in numbers],
        "population": len(numbers),
    }


def options_of_one(config: dict[str, Any], number: int) -> dict[str, Any]:
    """What builds member ``number`` of the population that ``config`` builds, as one network."""

    def first(value: Any) -> Any:
        return value[0] if isinstance(value, list) else value

    options = options_of_some(config, [number])
    return options | {
        "sizes": [first(size) for size in options["sizes"]],
        "dropout": first(options["dropout"]),
        "seed": first(options["seed"]),
        "population": None,
        "shared": False,
    }


def plain(value: Any) -> Any:
    """A number or a list of numbers, as JSON can hold them, from a number, sequence or array."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, Sequence) else value
