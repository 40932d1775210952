"""The recordings of a captured step, one for each shape of batch, and what they have in common.

A recording fixes addresses (memory.py), numbers (counters.py, optimizer.py) and options; once one
of the options has changed, everything is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...backend import Array, array_namespace, asarray_like, dtype_name
from ...communication import Share
from ...errors import DTypeError
from ...layers.base import Layer
from ...losses import Loss
from ...named_arrays import copies
from ...optim import clip_by_global_norm
from ..task import Task, all_layers
from ..together import divided
from .counters import Counters
from .memory import DeviceMemory, cast
from .optimizer import DeviceOptimizer, flat_kind
from .shared import SharedStep
from .work import RecordedWork, StepResult

_REHEARSALS = 2  # the first compiles kernels and fills the pool, the second finds all in place
_MOST_SHAPES = 8  # graphs kept, each with its buffers


class NotCaptured(Exception):
    """A step cannot be recorded; the message says why."""


@dataclass(eq=False)
class Recording:
    """A graph, what it reads, and what it writes: it knows addresses only, so all of it is here.

    Attributes
    ----------
    x, y : array
        The batch.
    replay : callable
        Also holds all memory that was asked for while recording.
    made : StepResult
    batches : object or None
        The resident data that it reads. Their identity is part of what a recording is found by, so
        they must not give way to others while it can be found.
    gradients : tuple
        That of the loss, and those of each layer.
    shared : SharedStep or None
        What it sums with other ranks.
    """

    x: Array
    y: Array
    replay: Callable[[], None]
    made: StepResult
    batches: Any
    gradients: tuple[Array, list[tuple[Layer, dict[str, Array]]]]
    shared: SharedStep | None

    def lend(self, loss: Loss) -> None:
        """Show what the last replay has made: copies for who looks before the next."""
        dy, layers = self.gradients
        loss._gradient = dy.copy
        for layer, grads in layers:
            layer._grads = partial(copies, grads)

    @property
    def outputs(self) -> Array:
        """What the model gives."""
        return self.made.outputs

    @property
    def value(self) -> Array:
        """The loss; those of an epoch, for a batch of resident data."""
        return self.made.value

    @property
    def correct(self) -> Array | None:
        """The hits, likewise."""
        return self.made.correct


@dataclass(eq=False)
class History:
    """Where recordings write the losses and hits of an epoch's steps, by the number of the batch.

    Attributes
    ----------
    losses : array, shape (steps, *shape of a loss)
    hits : array of int32, shape (steps, *shape of a count), or None
    """

    losses: Array
    hits: Array | None

    def fits(self, loss_shape: tuple[int, ...], hits_shape: tuple[int, ...] | None) -> bool:
        """Whether such results have their places here."""
        own = None if self.hits is None else tuple(self.hits.shape[1:])
        return tuple(self.losses.shape[1:]) == loss_shape and own == hits_shape


class Recordings:
    """What all recordings of a step share: the places of everything that a step changes.

    Attributes
    ----------
    by_batch : dict of tuple to Recording
    rates : DeviceOptimizer or None
        None if the optimizer has no kernel: then its update follows each replay.
    scaler : object or None
        The factor on the loss with ``precision="fp16"``.
    """

    def __init__(self, step: Any):
        self.step, self.cuda = step, step._cuda
        self.by_batch: dict[tuple, Recording] = {}
        self.recorder = self.cuda.Recorder()
        half = self.cuda.half_dtype(step.precision) if step.precision in ("bf16", "fp16") else None
        self.places = DeviceMemory(step.model, half)
        self._watched = list(_options(step))
        self._swaps = list(_device_options(step))
        self.numbers = Counters(all_layers(step.model), self.cuda)
        kind = flat_kind(step.optimizer)
        self.rates: DeviceOptimizer | None = None
        self._half = half
        with self.places.in_place():
            if kind is not None:
                copies = self.places.copies_by_name()
                self.rates = DeviceOptimizer(kind, step.model, step.optimizer, self.cuda, copies)
                self.places.keep_slots(step.optimizer, self.rates.slots)
            self._work = RecordedWork(
                step, self.cuda, self.recorder, self.numbers, self.places, half, self.rates
            )
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
        """What a replay has changed on the device, on the host; what it made is lent."""
        self.places.replays.steps += 1
        self.numbers.after_replay()
        recording.lend(self.step.loss)
        if self.rates is not None:
            self.rates.after_replay()
        else:
            self._update_outside(recording.made.grads)

    def _what_was_made(self) -> tuple[Array, list[tuple[Layer, dict[str, Array]]]]:
        """The gradients that loss and layers have been given while recording."""
        layers = dict.fromkeys(all_layers(self.step.model))
        return self.step.loss.backward(), [(layer, dict(layer.grads)) for layer in layers]

    def record(
        self, key: tuple, x: Array, y: Array, batches: Any, batch: int, share: Share | None
    ) -> Recording:
        """Rehearse, undo, record."""
        like = next(iter(self.step.model.params.values()))
        if x.dtype != like.dtype:
            raise DTypeError(
                f"`CapturedStep`: expected x of dtype {dtype_name(like.dtype)}, as the parameters "
                f"have, got {dtype_name(x.dtype)}; convert it with xpmlp.asarray(x, "
                f"dtype='{dtype_name(like.dtype)}')"
            )
        if len(self.by_batch) >= _MOST_SHAPES:
            self.by_batch.clear()
        xp = array_namespace(x)
        x_in = xp.empty_like(x, dtype=x.dtype if self._half is None else self._half)
        y_in = xp.empty_like(y)
        if batches is None:
            x_in[...], y_in[...] = cast(x, x_in.dtype), y
        steps = 0 if batches is None else len(batches)
        shared = None
        if share is not None:
            shared = SharedStep(self.step.model, self.step.loss, share, self.cuda, like)

        def goes_to(loss: Any, hits: Any) -> None:
            sums = [loss] if hits is None else [loss, hits]
            if steps and self.recorder.recording:
                history = self.step.history(
                    batches, loss.shape, None if hits is None else hits.shape
                )
                for one, place in zip(sums, (history.losses, history.hits), strict=False):
                    one.out, one.slots = place, steps
                return
            for one, dtype in zip(sums, (like.dtype, np.int32), strict=False):
                one.out = self.cuda.empty(one.shape, dtype)

        def work() -> StepResult:
            if batches is not None:
                batches.gather(x_in, y_in, step=self.numbers.batch)
            return self._whole_step(x_in, y_in, goes_to, shared)

        self.before_replay(None if batches is None else batch)
        saved = self._snapshot()
        for _ in range(_REHEARSALS):
            try:
                self.recorder.rehearse(work)
            finally:  # each of the same batch: there may be no next one of this size
                self._restore(saved)
        try:
            replay, made = self.recorder.record(work)
        except (NotCaptured, MemoryError):
            raise
        except Exception as error:  # the same work has just been done: it is the recording's fault
            raise NotCaptured(_in_short(error.__cause__ or error)) from error
        recording = Recording(x_in, y_in, replay, made, batches, self._what_was_made(), shared)
        self.by_batch[key] = recording
        return recording

    def _whole_step(
        self, x: Array, y: Array, goes_to: Callable[..., None], shared: SharedStep | None
    ) -> StepResult:
        share = None if shared is None else shared.share
        with self._as_recorded(), self.places.in_place(), divided(self.step.model, share):
            made = self._work.step(x, y, goes_to, shared)
            self.places.keep_state()
            for layer, times in self.numbers.drawn_more_or_less_than_once():
                raise NotCaptured(f"{layer!r} runs {times} times in one step")
        return made

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
            grads = clip_by_global_norm(grads, step.clip_norm, model.independent)
        model.params = step.optimizer.update(model.params, grads, model.weight_params)


def _options(step: Any) -> Iterator[tuple[Any, str, Any]]:
    """(object, attribute, value) of everything that a recording fixes."""
    parts = {name: getattr(step, name) for name in Task._fields}
    for name, part in parts.items():
        yield step, name, part
    yield from Task(**parts).options()


def _device_options(step: Any) -> Iterator[tuple[Any, str, Any]]:
    """(object, attribute, value on the device) of options that would travel at each step."""
    like = next(iter(step.model.params.values()))
    for owner, name in (
        (step.loss, "label_smoothing"),
        (step.loss, "_class_weights"),  # the properties would take them to the host
        (step.loss, "_pos_weight"),
        (step.penalty, "strength"),
    ):
        value = getattr(owner, name, None)
        if value is not None and (hasattr(value, "shape") or np.ndim(value)):
            yield owner, name, asarray_like(value, like)


def _in_short(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
