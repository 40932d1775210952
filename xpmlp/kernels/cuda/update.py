"""Launches ``update.cu``: every parameter of a network updated in place by one kernel.

What changes from step to step, the number of the step and the learning rate, lives on the device,
so that a recorded update can be replayed. The kernel finds parameters, gradients and slots through
a table of addresses, also on the device, which is filled in after the recording. Gradients may be
in half precision whatever the parameters are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import geometry, launch

_OP = "update"
SEGMENT = np.dtype([
    ("w", "i8"), ("g", "i8"), ("slots", "i8", 2), ("copy", "i8"), ("size", "i8"),
    ("member_size", "i8"), ("flags", "i8"),
])  # fmt: skip
"""A parameter in the table, as ``struct Segment`` of ``update.cu`` has it: addresses, numbers."""

_COPY_FLAG = {"bf16": 2, "f16": 4}
_GRADIENT_FLAG = {"bf16": 8, "f16": 16}  # where parameters are of another type


class FlatUpdate:
    """An optimizer's update of all parameters.

    Parameters
    ----------
    kind : {"sgd", "momentum", "adagrad", "rmsprop", "adam"}
    params : sequence of arrays
        All of one type, dense; written in place.
    slots : sequence of tuples of arrays
        What the optimizer remembers of each; written in place.
    decayed : sequence of bool
        Which parameters weight decay applies to.
    members : int
        P, or 1.
    nesterov, decoupled : bool
    copies : sequence of arrays or None, optional
        Half-precision copies that follow the parameters.
    capacity : int
        Steps that the table of the schedule has room for.
    """

    def __init__(
        self,
        kind: str,
        params: Sequence[Any],
        slots: Sequence[tuple[Any, ...]],
        decayed: Sequence[bool],
        members: int,
        *,
        nesterov: bool = False,
        decoupled: bool = False,
        copies: Sequence[Any] | None = None,
        capacity: int = 0,
    ):
        self.kind, self.members = kind, members
        self._suffix = launch.suffix_of(params[0])
        self._real = launch.accumulator(self._suffix)
        self._flags = np.int32(nesterov), np.int32(decoupled)
        self._sizes = [param.size for param in params]
        self._rows = np.zeros(len(params), SEGMENT)
        for row, param, remembered, decay in zip(self._rows, params, slots, decayed, strict=True):
            row["w"] = launch.address(param)
            row["slots"][: len(remembered)] = [launch.address(slot) for slot in remembered]
            row["size"], row["member_size"] = param.size, param.size // members
            row["flags"] = int(decay)
        for row, copy in zip(self._rows, copies or (), strict=False):
            if copy is not None:
                row["copy"] = launch.address(copy)
                row["flags"] |= _COPY_FLAG[launch.suffix_of(copy)]
        chunks = np.array(geometry.update_chunks(self._sizes), np.int64)
        self._keep = params, slots, copies
        self._chunks = launch.constant(chunks)
        self._step = launch.constant(np.zeros(1, np.int64))
        self._settings = launch.constant(np.zeros((members, 5)))
        self._hyper = launch.constant(np.zeros((members, 9), self._real))
        self._schedule = launch.constant(np.ones(capacity)) if capacity else None

    def table(self, grads: Sequence[Any], send: Callable[[Callable[[], Any]], None]) -> Any:
        """Where on the device an update finds parameters, slots and these gradients.

        It knows addresses only: whoever records keeps the gradients, and this table.

        Parameters
        ----------
        grads : sequence of arrays
            Dense, of the parameters' type or in half precision.
        send : callable
            Does what travels, as ``Recorder.send`` does.
        """
        rows = self._rows.copy()
        for row, grad in zip(rows, grads, strict=True):
            suffix = launch.suffix_of(grad)
            row["g"] = launch.address(grad)
            row["flags"] |= 0 if suffix == self._suffix else _GRADIENT_FLAG[suffix]
        numbers = rows.view(np.int64).reshape(len(rows), -1)
        table = launch.empty(numbers.shape, np.int64)
        send(lambda: table.set(numbers))
        return table

    def set_step(self, step: int) -> None:
        """Updates made so far."""
        self._step.set(np.array([step], np.int64))

    def step(self) -> int:
        """Updates made so far, skipped ones not counted; waits for the device."""
        return int(self._step.get()[0])

    def set_rates(self, lr: Any, decay: Any, first: Any, second: Any, eps: float) -> None:
        """Hyperparameters, each a number or one for each member."""
        rows = np.zeros((self.members, 5))
        for column, value in enumerate((lr, decay, first, second, eps)):
            rows[:, column] = value
        self._settings.set(rows)

    def set_schedule(self, first: int, factors: np.ndarray) -> None:
        """Factors on the learning rate from step ``first`` on."""
        assert self._schedule is not None
        self._schedule[first : first + len(factors)].set(np.ascontiguousarray(factors, np.float64))

    def tick(self, skip: Any = None) -> None:
        """Derive this step's numbers from the settings and count it."""
        launch.run(_OP, self._suffix, geometry.tick(self._suffix), *self.tick_arguments(), skip)

    def tick_arguments(self) -> tuple[Any, ...]:
        """What the kernels call TICK."""
        length = 0 if self._schedule is None else self._schedule.size
        members = np.int32(self.members)
        return self._step, self._settings, self._schedule, length, members, self._hyper

    def apply(
        self, table: Any, grad_scale: Any = None, skip: Any = None, counters: Any = None
    ) -> None:
        """Update.

        Parameters
        ----------
        table : array
            From :meth:`table`.
        grad_scale : array, optional
            Multiplies the gradients: one number, or one a member.
        skip : int32 array of one element, optional
            Whether to leave all parameters as they are.
        counters : Counters, optional
            Each goes up by one, in any case.
        """
        name = f"{self.kind}_update"
        each = np.int32(grad_scale is not None and grad_scale.size > 1)
        numbers = (None, np.int32(0)) if counters is None else counters.arguments()
        launch.run(
            _OP,
            self._suffix,
            geometry.update(name, self._sizes, self._suffix),
            *(table, self._chunks, np.int32(len(self._sizes)), self._hyper),
            *(*self._flags, grad_scale, each, skip, *numbers),
        )

    def clip(self, table: Any, max_norm: Any, inverse: Any = None) -> Any:
        """What to multiply the gradients by so that their global norm is at most ``max_norm``.

        Parameters
        ----------
        max_norm : array, one or P of them, in the accumulator's type
        inverse : array of one element, optional
            What the gradients must be multiplied by in any case.
        """
        largest, count = max(self._sizes) // self.members, len(self._sizes)
        plan = geometry.squared_norm(largest, count, self.members, self._suffix)
        parts = plan.grid[0]
        partial = launch.empty((parts, count, self.members), self._real)
        scale = launch.empty((self.members,), self._real)
        launch.run(_OP, self._suffix, plan, table, np.int32(self.members), partial)
        launch.run(
            _OP,
            self._suffix,
            geometry.finish("clip_scale", self.members, self._suffix),
            *(partial, parts * count, np.int32(self.members), max_norm),
            *(np.int32(max_norm.size > 1), inverse, scale),
        )
        return scale

    def find_nonfinite(self, table: Any, found: Any) -> None:
        """Set ``found`` to 1 if a gradient is infinite or not a number."""
        launch.run(
            _OP,
            self._suffix,
            geometry.update("find_nonfinite", self._sizes, self._suffix),
            *(table, self._chunks, np.int32(len(self._sizes)), found),
        )


class LossScale:
    """The factor on the loss that keeps float16 gradients from vanishing, adjusted on the device.

    It is halved when a gradient has overflowed, which also skips the update, and doubled after
    ``interval`` steps without (Micikevicius et al. 2018).
    """

    def __init__(self, initial: float = 2.0**16, interval: int = 2000):
        self.interval = interval
        self.scale = launch.constant(np.array([initial], np.float32))
        self.inverse = launch.constant(np.array([1.0 / initial], np.float32))
        self.found = launch.constant(np.zeros(1, np.int32))
        self._good = launch.constant(np.zeros(1, np.int32))

    def values(self) -> tuple[np.ndarray, ...]:
        """Everything it keeps, on the host."""
        return tuple(a.get() for a in self._arrays())

    def restore(self, values: tuple[np.ndarray, ...]) -> None:
        """Take back what :meth:`values` gave."""
        for array, value in zip(self._arrays(), values, strict=True):
            array.set(value)

    def adjust(self) -> None:
        """After the update."""
        plan = geometry.adjust_scale("f32")
        numbers = np.float32(2.0), np.float32(0.5), np.int32(self.interval)
        launch.run(_OP, "f32", plan, *self._arrays(), *numbers)

    def _arrays(self) -> tuple[Any, ...]:
        return self.scale, self.inverse, self.found, self._good


class Counters:
    """Whole numbers on the device that each go up by one at the end of every step."""

    def __init__(self, values: Sequence[int]):
        self.array = launch.constant(np.array(values, np.int64))

    def __getitem__(self, number: int) -> Any:
        return self.array[number : number + 1]

    def set(self, values: Sequence[int]) -> None:
        """Write all of them; travels, so never while recording."""
        self.array.set(np.array(values, np.int64))

    def advance(self) -> None:
        """One more each."""
        plan = geometry.Launch("advance_f32", (1, 1, 1), (128, 1, 1))
        launch.run(_OP, "f32", plan, *self.arguments())

    def arguments(self) -> tuple[Any, ...]:
        """What the kernels call COUNTERS."""
        return self.array, np.int32(self.array.size)
