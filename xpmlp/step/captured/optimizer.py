"""The optimizer of a captured step: its numbers on the device, kept in step with the host's.

Learning rates, decay and the schedule may be changed from outside at any time; before each replay
it is looked whether they have been, and only then something travels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import Array, array_namespace
from ...layers.base import Layer
from ...optim import SGD, AdaGrad, Adam, AdamW, Optimizer, RMSProp
from ...schedules import Constant

CAPACITY = 1 << 16  # steps that the schedule's table has room for; doubled when it is full
_BLOCK = 1024  # factors that are computed and sent at a time

_OPTIMIZERS = (SGD, AdaGrad, RMSProp, Adam, AdamW)


def flat_kind(optimizer: Optimizer) -> str | None:
    """Which update kernel does what the optimizer does; None for subclasses and Muon."""
    return optimizer.rule if type(optimizer) in _OPTIMIZERS else None


class DeviceOptimizer:
    """An optimizer's update kernel and its numbers.

    Parameters
    ----------
    kind : str
        From :func:`flat_kind`.
    model, optimizer
    cuda : module
    copies : dict of str to array
        Half-precision copies that follow the parameters.
    """

    def __init__(
        self, kind: str, model: Layer, optimizer: Optimizer, cuda: Any, copies: dict[str, Array]
    ):
        self.optimizer = optimizer
        params, weights = model.params, set(model.weight_params)
        self.slots = {name: self._own_slots(w) for name, w in params.items()}
        self._capacity = CAPACITY
        while self._capacity < 2 * optimizer.steps:
            self._capacity *= 2
        self.flat = cuda.FlatUpdate(
            kind,
            list(params.values()),
            list(self.slots.values()),
            [name in weights for name in params],
            model.independent or 1,
            nesterov=bool(getattr(optimizer, "nesterov", False)),
            decoupled=optimizer.decoupled,
            copies=[copies.get(name) for name in params] if copies else None,
            capacity=self._capacity,
        )
        self._sent: tuple | None = None
        self._schedule: Any = None
        self._filled = 0  # factors up to here are on the device
        self._steps = -1

    def is_full(self) -> bool:
        """Whether the next step has no place in the schedule's table."""
        return self.optimizer.steps >= self._capacity

    def before_replay(self) -> None:
        """Send what has changed."""
        optimizer = self.optimizer
        if optimizer.steps != self._steps:
            self._steps = optimizer.steps
            self.flat.set_step(self._steps)
            self._filled = min(self._filled, self._steps)
        numbers = self._numbers()
        if self._sent is None or not all(map(_same, numbers, self._sent)):
            self.flat.set_rates(*numbers)
            self._sent = tuple(np.copy(n) if isinstance(n, np.ndarray) else n for n in numbers)
        if optimizer.schedule is not self._schedule:
            self._schedule, self._filled = optimizer.schedule, self._steps
        if self._filled <= self._steps:
            self._send_schedule()

    def after_replay(self) -> None:
        """One more step."""
        self.optimizer.steps += 1
        self._steps += 1

    def settle(self) -> None:
        """Take over from the device how many updates were really made."""
        self._steps = self.optimizer.steps = self.flat.step()

    def snapshot(self) -> list[list[Array]]:
        """Copies of the slots."""
        return [[slot.copy() for slot in slots] for slots in self.slots.values()]

    def restore(self, saved: list[list[Array]]) -> None:
        """Take back what :meth:`snapshot` gave, and the number of the step."""
        for slots, copies in zip(self.slots.values(), saved, strict=True):
            for slot, copy in zip(slots, copies, strict=True):
                slot[...] = copy
        self.flat.set_step(self._steps)

    def _own_slots(self, w: Array) -> list[Array]:
        return [array_namespace(w).zeros_like(w) for _ in range(self.optimizer.slots)]

    def _numbers(self) -> tuple[Any, Any, Any, Any, float]:
        """lr, weight decay, and what the kernel calls first, second and eps."""
        optimizer = self.optimizer
        first, second, *_ = *(getattr(optimizer, name) for name in optimizer.means), 0.0, 0.0
        return optimizer.lr, optimizer.weight_decay, first, second, getattr(optimizer, "eps", 0.0)

    def _send_schedule(self) -> None:
        first = self._steps
        last = min(first + _BLOCK, self._capacity)
        if isinstance(self._schedule, Constant):
            last = self._capacity  # all alike: once is enough
            factors = np.ones(last - first)
        else:
            factors = np.array([self.optimizer.factor(number) for number in range(first, last)])
        self.flat.set_schedule(first, factors)
        self._filled = last


def _same(a: Any, b: Any) -> bool:
    return a is b or bool(np.array_equal(a, b))
