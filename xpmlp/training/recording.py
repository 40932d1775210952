"""The recordings of a captured step, one for each shape of batch, and what they have in common.

A recording fixes addresses (places.py), numbers (device_numbers.py, rates.py) and options; once one
of the options has changed, everything is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, asarray_like
from ..errors import XpmlpError
from ..optim import clip_by_global_norm
from .blocks import all_layers
from .device_numbers import DeviceNumbers
from .places import Places
from .rates import Rates, flat_kind
from .recorded_work import RecordedWork

_REHEARSALS = 2  # the first compiles kernels and fills the pool, the second finds all in place
_MOST_SHAPES = 8  # graphs kept, each with its buffers


class NotCaptured(Exception):
    """A step cannot be recorded; the message says why."""


@dataclass(eq=False)
class Recording:
    """A graph, what it reads, and what it writes.

    Attributes
    ----------
    batches : object or None
        The resident data that it reads. Their identity is part of what a recording is found by, so
        they must not give way to others while it can be found.
    """

    x: Array
    y: Array
    replay: Callable[[], None]
    value: Array
    outputs: Array
    correct: Array | None
    grads: dict[str, Array]
    batches: Any


class Setup:
    """What all recordings of a step share: the places of everything that a step changes.

    Attributes
    ----------
    recordings : dict of tuple to Recording
    rates : Rates or None
        None if the optimizer has no kernel: then its update follows each replay.
    scaler : object or None
        The factor on the loss with ``precision="fp16"``.
    """

    def __init__(self, step: Any):
        self.step, self.cuda = step, step._cuda
        self.recordings: dict[tuple, Recording] = {}
        self.recorder = self.cuda.Recorder()
        half = self.cuda.half_dtype(step.precision) if step.precision in ("bf16", "fp16") else None
        self.places = Places(step.model, half)
        self._watched = list(_options(step))
        self._swaps = list(_device_options(step))
        self.numbers = DeviceNumbers(all_layers(step.model), self.cuda)
        kind = flat_kind(step.optimizer)
        self.rates: Rates | None = None
        if kind is not None:
            copies = self.places.copies_by_name()
            self.rates = Rates(kind, step.model, step.optimizer, self.cuda, copies)
        self._work = RecordedWork(step, self.cuda, self.recorder, self.places, half, self.rates)
        self.scaler = self._work.scaler

    def is_stale(self) -> bool:
        """Whether an option that recordings have fixed has changed, or the shape of a place."""
        if any(getattr(owner, name, None) is not value for owner, name, value in self._watched):
            return True
        return self.places.are_outgrown() or (self.rates is not None and self.rates.is_full())

    def before_replay(self, batch: int | None = None) -> None:
        """Take over what was changed from outside since the last replay: copies to the device.

        ``batch`` is the number of the batch of resident data that comes next.
        """
        self.places.take_over()
        self.numbers.before_replay(batch)
        if self.rates is not None:
            self.rates.before_replay()

    def after_replay(self, recording: Recording) -> None:
        """What a replay has changed on the device, on the host."""
        self.numbers.after_replay()
        if self.rates is not None:
            self.rates.after_replay()
        else:
            self._update_outside(recording.grads)

    def record(self, key: tuple, x: Array, y: Array, batches: Any, batch: int) -> Recording:
        """Rehearse, undo, record."""
        if len(self.recordings) >= _MOST_SHAPES:
            self.recordings.clear()
        xp = array_namespace(x)
        x_in, y_in = xp.empty_like(x), xp.empty_like(y)
        if batches is None:
            x_in[...], y_in[...] = x, y
        table = None if self.rates is None else self.rates.flat.table()

        def work() -> tuple:
            if batches is not None:
                batches.gather(x_in, y_in, step=self.numbers.batch)
            return self._whole_step(x_in, y_in, table)

        self.before_replay(None if batches is None else batch)
        saved = self._snapshot()
        try:
            for _ in range(_REHEARSALS):
                self.recorder.rehearse(work)
        finally:
            self._restore(saved)
        try:
            replay, result = self.recorder.record(work)
        except XpmlpError:
            raise
        except Exception as error:  # the same work has just been done: it is the recording's fault
            raise NotCaptured(_in_short(error)) from error
        value, outputs, hits, grads = result
        if table is not None:
            table.point_at(list(grads.values()))
        recording = Recording(x_in, y_in, replay, value, outputs, hits, grads, batches)
        self.recordings[key] = recording
        return recording

    def _whole_step(self, x: Array, y: Array, table: Any) -> tuple:
        with self._as_recorded():
            value, outputs, hits, grads = self._work.gradients(x, y)
            self._work.update(grads, table)
            self.places.keep_state()
            for layer, times in self.numbers.drawn_more_or_less_than_once():
                raise NotCaptured(f"{layer!r} runs {times} times in one step")
            self.numbers.counters.advance()
        return value, outputs, hits, grads

    @contextmanager
    def _as_recorded(self) -> Iterator[None]:
        """Host numbers that change, and options that would travel, replaced by the device's."""
        with ExitStack() as stack:
            if self.step.precision == "tf32":
                stack.enter_context(self.cuda.tensor_float_32())
            stack.enter_context(self.numbers.in_place_of_the_hosts())
            for owner, name, value in self._swaps:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
            yield

    def _snapshot(self) -> tuple:
        """Copies of everything that a rehearsal changes."""
        return (
            self.places.snapshot(),
            None if self.rates is None else self.rates.snapshot(),
            None if self.scaler is None else self.scaler.values(),
        )

    def _restore(self, saved: tuple) -> None:
        arrays, rates, scale = saved
        self.places.restore(arrays)
        self.numbers.restore()
        if self.rates is not None:
            self.rates.restore(rates)
        if self.scaler is not None:
            self.scaler.restore(scale)

    def _update_outside(self, grads: Mapping[str, Array]) -> None:
        """For optimizers that have no kernel; ``before_replay`` copies what they give."""
        model, step = self.step.model, self.step
        if step.clip_norm is not None:
            grads = clip_by_global_norm(grads, step.clip_norm, model.population)
        model.params = step.optimizer.update(model.params, grads, model.weight_params)


def _options(step: Any) -> Iterator[tuple[Any, str, Any]]:
    """(object, attribute, value) of everything that a recording fixes."""
    arrays = ("params", "grads", "state", "step", "layers", "children")
    for owner in (step.loss, step.penalty, *dict.fromkeys(all_layers(step.model))):
        for name, value in () if owner is None else vars(owner).items():
            if not name.startswith("_") and name not in arrays:
                yield owner, name, value
    for name in ("model", "loss", "optimizer", "penalty", "clip_norm", "precision"):
        yield step, name, getattr(step, name)
    for name in ("slots", "nesterov"):
        yield step.optimizer, name, getattr(step.optimizer, name, None)


def _device_options(step: Any) -> Iterator[tuple[Any, str, Any]]:
    """(object, attribute, value on the device) of options that would travel at each step."""
    like = next(iter(step.model.params.values()))
    for owner, name in (
        (step.loss, "label_smoothing"),
        (step.loss, "class_weights"),
        (step.penalty, "strength"),
    ):
        value = getattr(owner, name, None)
        if value is not None and np.ndim(value):
            yield owner, name, asarray_like(value, like)


def _in_short(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
