"""Numbers of a captured step that go up by one at each replay, kept on the device.

These are the steps of the dropout masks and the number of the batch. A recording fixes every number
of the host, so it reads these from the device, where the last kernel of a step counts them up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from ...backend import Array
from ...layers import Dropout
from ...layers.base import Layer
from ...ops.dropout import check_rates


class DeviceStep:
    """The number of a dropout mask: ``counter`` on the device plus an offset fixed by recording."""

    def __init__(self, counter: Array, offset: int = 0):
        self.counter, self.offset = counter, offset

    def __add__(self, other: int) -> Self:
        return type(self)(self.counter, self.offset + other)

    def __and__(self, mask: int) -> Array:
        """The number itself, as an array of one element, for the reference."""
        return (self.counter + self.offset) & mask


class Counters:
    """The steps of some layers' dropout masks, and the number of the batch.

    Attributes
    ----------
    counters : object
        Their places; its last one is the batch's.
    """

    def __init__(self, layers: Sequence[Layer], cuda: Any):
        self._drops = [
            layer
            for layer in dict.fromkeys(layers)
            if isinstance(layer, Dropout) and any(check_rates(layer.p, layer.population))
        ]
        self._seen = [*(layer.step for layer in self._drops), 0]
        self.counters = cuda.Counters(self._seen)

    @property
    def batch(self) -> Array:
        """The number of the batch, an array of one element."""
        return self.counters[len(self._drops)]

    def before_replay(self, batch: int | None) -> None:
        """Send what was changed from outside; ``batch`` None is the one after the last."""
        batch = self._seen[-1] if batch is None else batch
        now = [*(layer.step for layer in self._drops), batch]
        if now != self._seen:
            self._seen = now
            self.counters.set(now)

    def after_replay(self) -> None:
        """What the replay has counted on the device, on the host."""
        self._seen = [number + 1 for number in self._seen]
        for layer in self._drops:
            layer.step += 1

    def restore(self) -> None:
        """Undo what the device has counted since the last replay."""
        self.counters.set(self._seen)

    @contextmanager
    def in_place_of_the_hosts(self) -> Iterator[None]:
        """Inside, layers count steps from the device's number."""
        with ExitStack() as stack:
            for number, layer in enumerate(self._drops):
                stack.callback(setattr, layer, "step", layer.step)
                setattr(layer, "step", DeviceStep(self.counters[number]))  # noqa: B010
            yield

    def drawn_more_or_less_than_once(self) -> Iterator[tuple[Layer, int]]:
        """Layers, inside of the above, that have not drawn one mask: (layer, how many)."""
        for layer in self._drops:
            step: Any = layer.step
            if step.offset != 1:
                yield layer, step.offset
