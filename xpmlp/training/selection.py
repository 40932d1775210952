"""Some members of what a population trains with: optimizer, loss, penalty, hyperparameters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, asarray_like, detached, to_numpy
from ..errors import ConfigError
from ..layers.base import Layer
from ..losses import Loss
from ..optim import Optimizer
from ..penalties import Penalty


def select_hyper(value: Any, members: Sequence[int]) -> Any:
    """A number as it is; of one for each member, those of some, as a plain number if of one."""
    if np.ndim(value) != 1:
        return value
    return float(value[members[0]]) if len(members) == 1 else np.asarray(value)[list(members)]


def select_optimizer(
    optimizer: Optimizer, members: Sequence[int], source: Layer, chosen: Layer
) -> Optimizer:
    """An optimizer that goes on for some members, with their hyperparameters and memory.

    Parameters
    ----------
    optimizer : Optimizer
        Of ``source``.
    members : sequence of int
    source, chosen : Layer
        The population, and those members of it: without the widest they may be narrower, and
        without those that drop units their parameters have other names. The order is the same.
    """
    own = copy.copy(optimizer)
    for name, value in vars(optimizer).items():
        if isinstance(value, np.ndarray):
            setattr(own, name, select_hyper(value, members))
    pairs = zip(source.params, chosen.params.items(), strict=True)
    shared = set(chosen.shared_params)
    own.state = {
        name: tuple(
            detached(array) if name in shared else _rows(array, members, w.shape)
            for array in optimizer.state[old]
        )
        for old, (name, w) in pairs
        if old in optimizer.state
    }
    own._arrays = {}
    return own


def select_loss(loss: Loss, members: Sequence[int]) -> Loss:
    """A loss for some members."""
    chosen: Any = copy.copy(loss)
    chosen._gradient = None
    if hasattr(chosen, "label_smoothing"):
        chosen.label_smoothing = select_hyper(chosen.label_smoothing, members)
    return chosen


def select_penalty(penalty: Penalty | None, members: Sequence[int]) -> Penalty | None:
    """A penalty for some members."""
    if penalty is None:
        return None
    chosen = copy.copy(penalty)
    chosen.strength = select_hyper(penalty.strength, members)
    return chosen


def check_hypers(population: int, **owners: Any) -> None:
    """Raise ConfigError, naming it, for a hyperparameter that has not one value a member.

    Parameters
    ----------
    population : int
        P.
    **owners
        Objects whose attributes are looked at, and plain values, by what to call them.
    """
    for owner, thing in owners.items():
        values = vars(thing) if hasattr(thing, "__dict__") else {"": thing}
        for name, value in values.items():
            if isinstance(value, np.ndarray | list | tuple) and np.ndim(value) == 1:
                if name.startswith("_") or len(value) == population:  # _class_weights, _pos_weight
                    continue
                label = f"{owner}.{name}" if name else owner
                raise ConfigError(
                    f"`PopulationTrainer`: expected {population} values of {label}, one for each "
                    f"member, got {len(value)}"
                )


def _rows(array: Array, members: Sequence[int], shape: Sequence[int]) -> Array:
    """Some members' part of an array, cut to a shape."""
    part = to_numpy(array)[list(members)][tuple(slice(size) for size in shape)]
    return asarray_like(np.ascontiguousarray(part), array)
