"""A training step on JAX arrays as one jitted function, traced from the layers themselves.

JAX calls :func:`~xpmlp.step.by_layers.forward_and_backward` and the optimizer's rule once for each
shape of batch, with stand-ins for arrays in the layers' and the optimizer's places, and makes one
program of what they do. What changes from step to step goes in as arguments: parameters, state and
slots, the optimizer's numbers, and which dropout mask is next. All else is fixed by the trace, and
traced anew when it has changed. Nothing is written in place, so that what was read stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, dtype_name, jit, on_host
from ..errors import XpmlpError
from ..layers import Dropout
from ..layers.base import Layer
from ..layers.containers import Container
from ..ops.shapes import working_dtype
from ..ops.targets import check_weight
from ..optim.base import is_set
from .by_layers import constrained, forward_and_backward
from .captured.counters import DeviceStep
from .task import Task, all_layers


class NotJitted(Exception):
    """A step cannot be traced; the message says why."""


class TracedStep(DeviceStep):
    """The number of a dropout mask: an argument of the step, plus what the trace has added."""

    def __and__(self, mask: int) -> Array:
        """The number's 32 bits; where there are no wider integers, as they are."""
        number = self.counter + self.offset
        return number if "int32" in dtype_name(number.dtype) else number & mask


class JittedStep:
    """``loss = step(x, y)`` by one jitted function, for a task whose arrays are JAX's.

    Parameters
    ----------
    task : Task

    Raises
    ------
    NotJitted
        If a part of it is somebody else's: what it changes besides arrays, a trace would miss.

    Attributes
    ----------
    outputs : array
        What the model gave in the last step, before the update.
    """

    def __init__(self, task: Task):
        _check_ours(task)
        self._task = task
        self._layers = list(dict.fromkeys(all_layers(task.model)))
        self._drops = [layer for layer in self._layers if isinstance(layer, Dropout)]
        self._watched = list(task.options())
        self._drawn: list[int] = []  # by each dropout in a step
        self._classes = 0  # outputs of a row
        self._decay = task.optimizer.weight_decay
        self._run = jit(self._traced)
        self._run_backward = jit(self._traced_grads)
        self.outputs: Any = None

    def is_stale(self) -> bool:
        """Whether an option that the trace has fixed has changed."""
        if any(getattr(owner, name, None) is not value for owner, name, value in self._watched):
            return True
        now = self._task.optimizer.weight_decay
        return now is not self._decay and is_set(now) is not is_set(self._decay)

    def __call__(self, x: Array, y: Array, weight: Array | None = None) -> Array:
        """The loss of the batch, after which everything is updated.

        Raises
        ------
        NotJitted
            If the layers or the loss need values that a trace does not have.
        """
        optimizer = self._task.optimizer
        arrays, counts = self._arrays(), self._counts()
        optimizer.steps += 1
        try:
            numbers = self._numbers()
            try:
                after, dy, value, outputs = self._run(arrays, counts, numbers, x, y, weight)
            except XpmlpError:
                raise
            except Exception as error:
                first = str(error).strip().splitlines()
                raise NotJitted(f"{type(error).__name__}: {first[0] if first else ''}") from error
            if on_host(y):
                self._task.loss.check_targets(y, self._classes)
            if weight is not None:
                check_weight("TrainStep", weight)
        except BaseException:
            optimizer.steps -= 1  # and nothing else has changed
            raise
        self._put(after)
        optimizer.state.update(after[2])
        for layer, drawn in zip(self._drops, self._drawn, strict=True):
            layer.step += drawn
        self._task.loss._gradient = dy
        grads = _Later(partial(self._run_backward, arrays, counts, x, y, weight))
        for number, layer in enumerate(self._layers):
            if layer.params:
                layer.grads = partial(grads.of, number)  # type: ignore[assignment]
        self.outputs = outputs
        return value

    # --- What goes in -----------------------------------------------------------------------------

    def _arrays(self) -> tuple:
        """Parameters and state, a dict a layer, and the optimizer's slots."""
        known = self._task.optimizer.state
        if not known:
            named = self._task.model.params
            known = {name: self._zeros(w) for name, w in named.items()}
        params = [dict(layer.params) for layer in self._layers]
        return params, [dict(layer.state) for layer in self._layers], dict(known)

    def _zeros(self, w: Array) -> tuple[Array, ...]:
        xp = array_namespace(w)
        wide = working_dtype(xp, w)
        return tuple(xp.zeros_like(w, dtype=wide) for _ in range(self._task.optimizer.slots))

    def _counts(self) -> tuple[int, ...]:
        """Which mask each dropout drew last, as 32 bits with a sign."""
        return tuple((layer.step + (1 << 31)) % (1 << 32) - (1 << 31) for layer in self._drops)

    def _numbers(self) -> list[np.ndarray | float]:
        """The optimizer's numbers of this step."""
        optimizer = self._task.optimizer
        lr = optimizer.lr * optimizer.factor(optimizer.steps - 1)
        return _flat(optimizer.rates(lr)) + list(optimizer.decay_of_weights(lr))

    # --- What is traced ---------------------------------------------------------------------------

    def _traced(
        self,
        arrays: tuple,
        counts: tuple[Array, ...],
        numbers: list,
        x: Array,
        y: Array,
        weight: Array | None,
    ) -> tuple:
        """Everything after the step, the loss's gradient, the loss, and the outputs."""
        task, optimizer = self._task, self._task.optimizer
        with self._in_their_places(arrays, counts):
            value, outputs = forward_and_backward(task, x, y, weight)
            self._classes = outputs.shape[-1]
            value, grads = constrained(task, value)
            *rates, added, shrink = numbers
            rates = _like(optimizer.rates(optimizer.lr), iter(rates))
            params, weights, decay = task.model.params, task.model.weight_params, (added, shrink)
            if optimizer.state:
                optimizer.check_memory(params)
            params, slots = optimizer.pure_update(params, grads, weights, arrays[2], rates, decay)
            self._drawn = [_drawn(layer) for layer in self._drops]
            state = [dict(layer.state) for layer in self._layers]
            task.model.params = params
            own = [dict(layer.params) for layer in self._layers]
            slots = {name: tuple(values) for name, values in slots.items()}
            return (own, state, slots), task.loss.backward(), value, outputs

    def _traced_grads(
        self, arrays: tuple, counts: tuple[Array, ...], x: Array, y: Array, weight: Array | None
    ) -> list[dict]:
        """The gradients alone: of a step that has been made, for who asks for them."""
        with self._in_their_places(arrays, counts):
            forward_and_backward(self._task, x, y, weight)
            return [dict(layer.grads) for layer in self._layers]

    @contextmanager
    def _in_their_places(self, arrays: tuple, counts: tuple[Array, ...]) -> Iterator[None]:
        """Inside, layers hold these; outside, nothing of a trace is left."""
        layers, loss = self._layers, self._task.loss
        before = [(dict(a.params), dict(a.state), a._grads, a._saved) for a in layers]
        steps, gradient = [layer.step for layer in self._drops], loss._gradient
        try:
            for layer, params, state in zip(layers, *arrays[:2], strict=True):
                layer.params.update(params)
                layer.state.update(state)
            for number, layer in enumerate(self._drops):
                layer.step = TracedStep(counts[number])  # type: ignore[assignment]
            yield
        finally:
            for layer, (params, state, grads, saved) in zip(layers, before, strict=True):
                layer.params.update(params)
                layer.state.update(state)
                layer._grads, layer._saved = grads, saved
            for layer, step in zip(self._drops, steps, strict=True):
                layer.step = step
            loss._gradient = gradient

    def _put(self, after: tuple) -> None:
        for layer, params, state in zip(self._layers, *after[:2], strict=True):
            layer.params.update(params)
            layer.state.update(state)
            layer._saved = None  # what an earlier forward left must not be taken for this step's


def _check_ours(task: Task) -> None:
    for part in (*_with_containers(task.model), task.loss, task.penalty, task.optimizer):
        kind = type(part)
        if part is not None and kind.__module__.partition(".")[0] != __name__.partition(".")[0]:
            raise NotJitted(f"{kind.__name__} may change more than arrays")


def _with_containers(model: Layer) -> Iterator[Layer]:
    yield model
    if isinstance(model, Container):
        for child in model.children.values():
            yield from _with_containers(child)


class _Later:
    """The gradients of all layers, computed when the first of them is looked at."""

    def __init__(self, compute: Callable[[], list[dict]]):
        self._compute: Callable[[], list[dict]] | None = compute
        self._made: list[dict] = []

    def of(self, number: int) -> dict:
        if self._compute is not None:
            self._made, self._compute = self._compute(), None
        return self._made[number]


def _drawn(layer: Dropout) -> int:
    step: Any = layer.step
    return step.offset


def _flat(rates: dict[str, Any]) -> list[Any]:
    """The numbers of rates; what is true or false is no number."""
    found: list[Any] = []
    for value in rates.values():
        if isinstance(value, dict):
            found += _flat(value)
        elif not isinstance(value, bool):
            found.append(value)
    return found


def _like(rates: dict[str, Any], numbers: Iterator[Any]) -> dict[str, Any]:
    """Rates with other numbers, in the order of :func:`_flat`."""
    return {
        name: _like(value, numbers)
        if isinstance(value, dict)
        else (value if isinstance(value, bool) else next(numbers))
        for name, value in rates.items()
    }
