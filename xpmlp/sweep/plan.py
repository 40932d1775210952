"""Which settings of a sweep are trained together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..choices import FloatName, Sampling
from ..errors import ConfigError
from ..memory_budget import bytes_per_member, members_that_fit, readable
from ..optim import OPTIMIZERS
from .settings import Settings

_EACH = 4  # populations for a worker, so that all have work until the end
_ENOUGH = 16  # networks: a smaller population trains each of them more slowly
_PADDING = 1.5  # how much more padded members may compute, all together, than they need


def plan(
    settings: Sequence[Settings],
    seeds: int,
    inputs: int,
    outputs: int,
    sampling: Sampling = "shared",
    dtype: FloatName = "float32",
    memory: int | None = None,
    *,
    workers: int = 1,
    sharing: int = 1,
) -> list[list[int]]:
    """Which settings are trained together: lists of their numbers.

    A population holds settings of one batch size and depth whose padding costs little, and no more
    of them, with all their seeds, than fit into memory. Several workers get a few populations each,
    if there are as many settings, so that all have work until the end, but no small ones where
    there are networks for two others each; of the memory that is free, as many as share it get a
    part each.
    """
    parts, large = 1 if workers == 1 else workers * _EACH, len(settings) * seeds // _ENOUGH
    if large >= 2 * workers:
        parts = min(parts, large)
    groups: dict[tuple, list[int]] = {}
    for number, own in enumerate(settings):
        groups.setdefault(own.together_with(), []).append(number)
    planned = []
    for group in groups.values():
        for alike in _alike(group, settings, inputs, outputs):
            first = settings[alike[0]]
            widest = [
                max(widths) for widths in zip(*(settings[n].hidden for n in alike), strict=True)
            ]
            each = bytes_per_member(
                [inputs, *widest, outputs],
                first.batch_size,
                slots=getattr(OPTIMIZERS.get(first.optimizer), "slots", 2) or 1,
                own=sampling != "shared",
                itemsize=np.dtype(dtype).itemsize,
            )
            fits = members_that_fit(each, memory)
            if fits is not None and memory is None:
                fits //= sharing
            room = len(alike) if fits is None else fits // seeds
            if room < 1:
                raise ConfigError(
                    f"`sweep`: expected one setting to fit into memory with its {seeds} seeds of "
                    f"about {readable(each)} each, got room for {fits} networks of "
                    f"{'-'.join(map(str, [inputs, *widest, outputs]))}; "
                    "take fewer seeds, a smaller batch or a narrower network"
                )
            count = max(-(-len(alike) // room), -(-parts * len(alike) // len(settings)))
            count = min(count, len(alike))
            # Dealt out in turn: neighbours on the grid, good or bad, spread over the populations.
            planned += [sorted(alike[part::count]) for part in range(count)]
    return planned


def _alike(
    group: list[int], settings: Sequence[Settings], inputs: int, outputs: int
) -> Iterator[list[int]]:
    """A group in parts of similar widths, so that padding does not cost more than it saves."""

    def weights(hidden: Sequence[int]) -> int:
        sizes = [inputs, *hidden, outputs]
        return sum(sizes[i] * sizes[i + 1] for i in range(len(sizes) - 1))

    part: list[int] = []
    needed, widest = 0, [0] * len(settings[group[0]].hidden)
    for number in sorted(group, key=lambda n: weights(settings[n].hidden)):
        own = settings[number].hidden
        wider = [max(pair) for pair in zip(widest, own, strict=True)]
        if part and weights(wider) * (len(part) + 1) > _PADDING * (needed + weights(own)):
            yield part
            part, needed, wider = [], 0, list(own)
        part.append(number)
        needed, widest = needed + weights(own), wider
    yield part
