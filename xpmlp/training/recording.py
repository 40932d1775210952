"""The recordings of a captured step, and the places of everything that a step changes.

A recording fixes addresses and numbers. What changes has a place that stays: parameters, optimizer
slots and running statistics; and numbers that change are read from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from ..backend import Array, array_namespace, asarray_like, dtype_name
from ..errors import DTypeError, XpmlpError
from ..layers import Dropout, Linear
from ..layers.base import Layer
from ..losses import Loss, SoftmaxCrossEntropy
from ..ops import cuda_rules
from ..ops.dropout import check_rates
from ..optim import clip_by_global_norm
from .blocks import Alone, Block, Part, all_layers, group
from .metrics import correct
from .rates import Rates, flat_kind

_REHEARSALS = 2  # the first compiles kernels and fills the pool, the second finds all in place
_MOST_SHAPES = 8  # graphs kept, each with its buffers


class NotCaptured(Exception):
    """A step cannot be recorded; the message says why."""


@dataclass(eq=False)
class Recording:
    """A graph, what it reads, and what it writes."""

    x: Array
    y: Array
    replay: Callable[[], None]
    value: Array
    outputs: Array
    correct: Array | None
    grads: dict[str, Array]


class DeviceStep:
    """The number of a dropout mask: ``counter`` on the device plus an offset fixed by recording."""

    def __init__(self, counter: Array, offset: int = 0):
        self.counter, self.offset = counter, offset

    def __add__(self, other: int) -> DeviceStep:
        return DeviceStep(self.counter, self.offset + other)

    def __and__(self, mask: int) -> Array:
        """The number itself, as an array of one element, for the reference."""
        return (self.counter + self.offset) & mask


class Setup:
    """What all recordings of a step share: the places of everything that a step changes.

    It is stale, and made anew, once an option has changed that recordings have fixed.
    """

    def __init__(self, step: Any):
        self.step, self.cuda = step, step._cuda
        self.recordings: dict[tuple, Recording] = {}
        self.recorder = self.cuda.Recorder()
        model, optimizer = step.model, step.optimizer
        self._layers = all_layers(model)
        self._like = next(iter(model.params.values()))
        self._xp = array_namespace(self._like)
        self._held = self._hold()
        self._watched = list(_options(step, self._layers))
        self.drops = [
            layer
            for layer in dict.fromkeys(self._layers)
            if isinstance(layer, Dropout) and any(check_rates(layer.p, layer.population))
        ]
        self.counters = self.cuda.Counters([layer.step for layer in self.drops] + [0])
        self._steps_seen = [layer.step for layer in self.drops]
        self._batch_seen = 0
        self.half = _half_type(step)
        self._copies = self._make_copies()
        self.parts = self._group()
        self.scaler = self.cuda.LossScale() if step.precision == "fp16" else None
        self._swaps = list(self._device_options())
        kind = flat_kind(optimizer)
        self.rates: Rates | None = None
        if kind is not None:
            self.rates = Rates(kind, model, optimizer, self.cuda, self._copies_by_name())
        self._bound = None
        if step.clip_norm is not None and self.rates is not None:
            bound = np.asarray(step.clip_norm, np.float64).reshape(-1)
            self._bound = asarray_like(bound, self._like)

    # --- What does not move

    def _hold(self) -> list[tuple[Layer, str, str, Array]]:
        """(layer, ``"params"`` or ``"state"``, name, array), all dense."""
        held = []
        for layer in dict.fromkeys(self._layers):
            for group_name in ("params", "state"):
                arrays = getattr(layer, group_name)
                for name, array in arrays.items():
                    # Of its own: a view of, say, a checkpoint's array is not ours to write to.
                    arrays[name] = array.copy()
                    held.append((layer, group_name, name, arrays[name]))
        return held

    def _make_copies(self) -> dict[int, dict[str, Array]]:
        """Half-precision copies of linear layers' parameters, by the layers' identity."""
        if self.half is None:
            return {}
        return {
            id(layer): {name: _cast(array, self.half) for name, array in layer.params.items()}
            for layer in self._layers
            if type(layer) is Linear
        }

    def _copies_by_name(self) -> dict[str, Array]:
        names = {}
        for prefix, layer in self.step.model.named_layers():
            for name, copy in self._copies.get(id(layer), {}).items():
                names[prefix + name] = copy
        return names

    def _group(self) -> list[Part]:
        fused = self.cuda if getattr(self.cuda, "linear", None) is not None else None
        parts = group(self.step.model, fused)
        for part in parts:
            if isinstance(part, Block) and part.linear is not None:
                part.half = self._copies.get(id(part.linear), {})
            elif isinstance(part, Alone) and self.half is not None and part.layer.params:
                part.widened = "float32"
        return parts

    def _device_options(self) -> Iterator[tuple[Any, str, Any]]:
        """(object, attribute, value on the device) of options that would travel at each step."""
        loss, penalty = self.step.loss, self.step.penalty
        for owner, name in (
            (loss, "label_smoothing"),
            (loss, "class_weights"),
            (penalty, "strength"),
        ):
            value = getattr(owner, name, None)
            if value is not None and np.ndim(value):
                yield owner, name, asarray_like(value, self._like)

    # --- Staleness and outside changes

    def is_stale(self) -> bool:
        """Whether an option that recordings have fixed has changed, or the shape of a place."""
        if any(getattr(owner, name, None) is not value for owner, name, value in self._watched):
            return True
        for layer, group_name, name, array in self._held:
            current = getattr(layer, group_name).get(name)
            if current is not array and (
                current is None or current.shape != array.shape or current.dtype != array.dtype
            ):
                return True
        return self.rates is not None and self.rates.is_full()

    def before_replay(self, place: int | None = None) -> None:
        """Take over what was changed from outside since the last replay: copies to the device.

        ``place`` is the number of the batch of resident data that comes next.
        """
        changed = False
        for layer, group_name, name, array in self._held:
            arrays = getattr(layer, group_name)
            if arrays[name] is not array:
                array[...] = arrays[name]
                arrays[name] = array
                changed = True
        if changed:
            self._refresh_copies()
        steps = [layer.step for layer in self.drops]
        place = self._batch_seen if place is None else place
        if steps != self._steps_seen or place != self._batch_seen:
            self._steps_seen, self._batch_seen = steps, place
            self.counters.set([*steps, place])
        if self.rates is not None:
            self.rates.before_replay()

    def after_replay(self, recording: Recording) -> None:
        """What a replay has changed on the device, on the host."""
        for number, layer in enumerate(self.drops):
            layer.step += 1
            self._steps_seen[number] += 1
        self._batch_seen += 1
        if self.rates is not None:
            self.rates.after_replay()
        else:
            self._update_eagerly(recording.grads)

    def _refresh_copies(self) -> None:
        for layer in self._layers:
            for name, copy in self._copies.get(id(layer), {}).items():
                copy[...] = _cast(layer.params[name], copy.dtype)

    def _update_eagerly(self, grads: Mapping[str, Array]) -> None:
        """For optimizers that have no kernel."""
        model, step = self.step.model, self.step
        if step.clip_norm is not None:
            grads = clip_by_global_norm(grads, step.clip_norm, model.population)
        model.params = step.optimizer.update(model.params, grads, model.weight_params)
        # before_replay copies them to where the graph reads them.

    # --- Recording

    def record(self, key: tuple, x: Array, y: Array, batches: Any, place: int) -> Recording:
        """Rehearse, undo, record."""
        if len(self.recordings) >= _MOST_SHAPES:
            self.recordings.clear()
        xp = self._xp
        x_in, y_in = xp.empty_like(x), xp.empty_like(y)
        if batches is None:
            x_in[...], y_in[...] = x, y
        counter = self.counters[len(self.drops)]
        table = None if self.rates is None else self.rates.flat.table()

        def work() -> tuple:
            if batches is not None:
                batches.gather(x_in, y_in, step=counter)
            return self._work(x_in, y_in, table)

        self.before_replay(None if batches is None else place)
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
        recording = Recording(x_in, y_in, replay, value, outputs, hits, grads)
        self.recordings[key] = recording
        return recording

    def _snapshot(self) -> tuple:
        """Copies of everything that a rehearsal changes."""
        copy = [array.copy() for *_, array in self._held]
        scale = None if self.scaler is None else self.scaler.values()
        return copy, None if self.rates is None else self.rates.snapshot(), scale

    def _restore(self, saved: tuple) -> None:
        copies, rates, scale = saved
        for (layer, group_name, name, array), copy in zip(self._held, copies, strict=True):
            array[...] = copy
            getattr(layer, group_name)[name] = array
        self._refresh_copies()
        self.counters.set([*self._steps_seen, self._batch_seen])
        if self.rates is not None:
            self.rates.restore(rates)
        if self.scaler is not None:
            self.scaler.restore(scale)

    # --- The work itself, as it is recorded

    def _work(self, x: Array, y: Array, table: Any) -> tuple:
        with self._as_recorded():
            value, outputs, hits, grads = self._gradients(x, y)
            grads = {name: self.cuda.contiguous(grad) for name, grad in grads.items()}
            if self.rates is not None:
                self._update(grads, table)
            for layer, group_name, name, array in self._held:
                if group_name == "state" and layer.state[name] is not array:
                    array[...] = layer.state[name]
                    layer.state[name] = array
            self._check_drops()
            self.counters.advance()
        return value, outputs, hits, grads

    @contextmanager
    def _as_recorded(self) -> Iterator[None]:
        """Host numbers that change, and options that would travel, replaced by the device's."""
        with ExitStack() as stack:
            if self.step.precision == "tf32":
                stack.enter_context(self.cuda.tensor_float_32())
            for number, layer in enumerate(self.drops):
                stack.callback(setattr, layer, "step", layer.step)
                setattr(layer, "step", DeviceStep(self.counters[number]))  # noqa: B010
            for owner, name, value in self._swaps:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
            yield

    def _check_drops(self) -> None:
        for layer in self.drops:
            step: Any = layer.step
            if step.offset != 1:
                raise NotCaptured(f"{layer!r} runs {step.offset} times in one step")

    def _gradients(self, x: Array, y: Array) -> tuple[Array, Array, Array | None, dict[str, Array]]:
        """The loss, the outputs, the hits, and every parameter's gradient in its own type."""
        step = self.step
        model, loss = step.model, step.loss
        if x.dtype != self._like.dtype:
            raise DTypeError(
                f"`CapturedStep`: expected x of dtype {dtype_name(self._like.dtype)}, as the "
                f"parameters have, got {dtype_name(x.dtype)}; convert it with xpmlp.asarray(x, "
                f"dtype='{dtype_name(self._like.dtype)}')"
            )
        outputs = x if self.half is None else _cast(x, self.half)
        for part in self.parts:
            outputs = part.forward(outputs)
        outputs = _cast(outputs, self._like.dtype)
        value, dy, hits = self._loss(loss, outputs, y)
        if self.scaler is not None:
            dy = dy * self.scaler.scale
        if self.half is not None:
            dy = _cast(dy, self.half)
        for number in range(len(self.parts) - 1, -1, -1):
            dy = self.parts[number].backward(dy, number > 0)
        params = model.params
        grads = {name: _cast(grad, params[name].dtype) for name, grad in model.grads.items()}
        if step.penalty is not None:
            weights, population = model.weight_params, model.population
            value = value + step.penalty.forward(params, weights, population)
            for name, extra in step.penalty.backward(params, weights, population).items():
                if self.scaler is not None:
                    extra = extra * self.scaler.scale
                grads[name] = grads[name] + extra
        return value, outputs, hits, {name: grads[name] for name in params}

    def _loss(self, loss: Loss, outputs: Array, y: Array) -> tuple[Array, Array, Array | None]:
        fused = getattr(self.cuda, "cross_entropy", None)
        if fused is not None and type(loss) is SoftmaxCrossEntropy:
            options: dict[str, Any] = {
                "label_smoothing": loss.label_smoothing,
                "ignore_index": loss.ignore_index,
                "class_weights": loss.class_weights,
                "z_loss": loss.z_loss,
                "reduction": loss.reduction,
            }
            if not self.recorder.recording:
                loss.forward(outputs, y)  # checks the arguments; once is enough
            if cuda_rules.softmax_cross_entropy(outputs, y) is None:
                value, loss._gradient, hits = fused(outputs, y, **options)
                return value, loss.backward(), hits
        value = loss.forward(outputs, y)
        hits = correct(outputs, y) if are_classes(outputs, y) else None
        return value, loss.backward(), hits

    def _update(self, grads: dict[str, Array], table: Any) -> None:
        assert self.rates is not None
        flat, scaler = self.rates.flat, self.scaler
        if not self.recorder.recording:
            table.point_at(list(grads.values()))
        skip = inverse = None
        if scaler is not None:
            flat.find_nonfinite(table, scaler.found)
            skip, inverse = scaler.found, scaler.inverse
        factor = inverse
        if self._bound is not None:
            factor = flat.clip(table, self._bound, inverse)
        flat.tick(skip)
        flat.apply(table, factor, skip)
        if scaler is not None:
            scaler.adjust()


def _options(step: Any, layers: Sequence[Layer]) -> Iterator[tuple[Any, str, Any]]:
    """(object, attribute, value) of everything that a recording fixes."""
    arrays = ("params", "grads", "state", "step", "layers", "children")
    for owner in (step.loss, step.penalty, *dict.fromkeys(layers)):
        for name, value in () if owner is None else vars(owner).items():
            if not name.startswith("_") and name not in arrays:
                yield owner, name, value
    for name in ("model", "loss", "optimizer", "penalty", "clip_norm", "precision"):
        yield step, name, getattr(step, name)
    for name in ("slots", "nesterov"):
        yield step.optimizer, name, getattr(step.optimizer, name, None)


def _half_type(step: Any) -> Any:
    if step.precision not in ("bf16", "fp16"):
        return None
    return step._cuda.half_dtype(step.precision)


def are_classes(outputs: Array, y: Array) -> bool:
    """Whether y holds the class number of every row of the outputs."""
    shape = tuple(outputs.shape)
    return "int" in dtype_name(y.dtype) and tuple(y.shape) in (shape[:-1], shape[-2:-1])


def _cast(x: Array, dtype: Any) -> Array:
    return x if x.dtype == dtype else array_namespace(x).astype(x, dtype)


def device_of(x: Array) -> Any:
    """The device that an array is on."""
    return array_api_compat.device(x)


def _in_short(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
