"""A training of several ranks: they begin alike, and stay so."""

from __future__ import annotations

import zlib
from typing import Any

from ..backend import to_numpy
from ..communication import Communicator
from ..errors import ConfigError, StateError
from ..layers.base import Layer
from ..optim import Optimizer
from .identity import differences


def check_alike(ranks: Communicator, identity: dict[str, Any]) -> None:
    """Raise ConfigError, on every rank, if some have other data or settings than the first."""
    first, *others = ranks.everyone(identity)
    for rank, other in enumerate(others, 1):
        found = [f"{what} is {its}, not {own}" for what, own, its in differences(first, other)]
        if found:
            raise ConfigError(
                "`Trainer.fit`: expected the same data and settings on all ranks, got another "
                f"training on rank {rank}: {'; '.join(found[:5])}"
            )


def take_from_first(ranks: Communicator, model: Layer, optimizer: Optimizer) -> None:
    """Begin with the first rank's parameters, running statistics, masks and optimizer's memory."""
    told = ranks.broadcast((model.state_dict(), model.counters(), optimizer.state_dict()))
    if ranks.rank:
        model.load_state_dict(told[0])
        model.set_counters(told[1])
        optimizer.load_state_dict(told[2], model.params)


def row_of_all(ranks: Communicator | None, model: Layer, row: dict[str, Any]) -> dict[str, Any]:
    """An epoch's row, of several ranks the first one's, which has its own clock.

    Raises
    ------
    StateError
        On every rank, if parameters are not the same bits on all.
    """
    if ranks is None:
        return row
    checksum = 0
    for array in model.params.values():
        checksum = zlib.crc32(to_numpy(array).tobytes(), checksum)
    (first, row), *others = ranks.everyone((checksum, row))
    apart = [rank for rank, (other, _) in enumerate(others, 1) if other != first]
    if apart:
        raise StateError(
            f"`Trainer.fit`: expected the same parameters on all ranks after epoch {row['epoch']}, "
            f"got others on {apart[:10]} than on rank 0; ranks must make the same updates from the "
            "same sums: use machines, libraries and callbacks that are alike"
        )
    return row
