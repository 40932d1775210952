"""How many members of a population fit into memory.

An estimate from shapes alone, on the generous side: what a training holds at the same time is
parameters, gradients, the optimizer's memory, the best parameters so far, and the activations of
one batch with their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .errors import ConfigError

_ACTIVATIONS = 6  # arrays of a layer's outputs at once: product, norm, rectified, masked, gradients
_SHARE = 0.8  # of the free memory; the rest is for what was not counted


def bytes_per_member(
    sizes: Sequence[int],
    batch_size: int,
    *,
    slots: int = 2,
    own: bool = False,
    itemsize: int = 4,
    sharing: int = 1,
) -> int:
    """What one member takes in training.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden widths, outputs.
    batch_size : int
    slots : int
        Arrays that the optimizer keeps for each parameter.
    own : bool
        Whether each member has minibatches of its own.
    itemsize : int
        Bytes of a number.
    sharing : int
        How many members have the matrices of hidden layers in common.
    """
    last = len(sizes) - 2
    weights = sum(
        (sizes[i] // (1 if i == last else sharing) + 4) * sizes[i + 1] for i in range(last + 1)
    )
    activations = batch_size * sum(sizes[1:]) * _ACTIVATIONS
    inputs = batch_size * sizes[0] * 2 if own or sharing > 1 else 0
    return itemsize * (weights * (4 + slots) + activations + inputs)


def bytes_to_make(sizes: Sequence[int]) -> int:
    """What one member takes while it is made: its weights are drawn in float64, in three arrays."""
    return 24 * max(sizes[i] * sizes[i + 1] for i in range(len(sizes) - 1))


def free_bytes() -> int | None:
    """Main memory that can be had now, or None where the system does not tell.

    The smaller of what the machine and, on Linux, the process's control group have left.
    """
    found = [value for value in (_free_of_machine(), _free_of_group()) if value is not None]
    return min(found) if found else None


def members_that_fit(each: int, budget: int | None = None) -> int | None:
    """How many members of so many bytes fit into a budget, else into what is free, if known."""
    free = free_bytes() if budget is None else budget
    if free is None:
        return None
    return math.floor((_SHARE if budget is None else 1.0) * free / each)


def check_fits(where: str, population: int, each: int, doing: str) -> None:
    """Raise ConfigError, saying what fits, for a population too large for main memory.

    Parameters
    ----------
    where : str
        What refuses it, for the message.
    population : int
        P.
    each : int
        Bytes of one member.
    doing : str
        What it takes them for.
    """
    fits = members_that_fit(each)
    if fits is not None and fits < population:
        raise ConfigError(
            f"`{where}`: expected a population that fits into memory, got {population} members of "
            f"about {readable(each)} each {doing} ({readable(population * each)}); {fits} fit; "
            "take fewer at a time, narrower ones or smaller batches"
        )


def readable(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000.0:
            return f"{size:.3g} {unit}"
        size /= 1000.0
    return f"{size:.3g} TB"


def _free_of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _free_of_group() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used -= int(counts.get("inactive_file", 0))  # a cache that gives way
        return None if limit == "max" else max(0, int(limit) - used)
    except (OSError, ValueError):
        return None
