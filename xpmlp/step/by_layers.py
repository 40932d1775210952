"""One step of training, layer by layer: the definition, for every layer, loss and array library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..backend import Array, array_namespace, detached
from ..layers import Sequential
from ..layers.base import Layer
from ..metrics import as_rows, weights_of_rows
from ..optim import clip_by_global_norm
from .task import Task


def by_layers(task: Task, x: Array, y: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Forward, loss, backward, update: the loss before the update, and what the model gave.

    A batch that is refused leaves everything as it was.
    """
    x, y = detached(x), detached(y)
    weight = None if weight is None else detached(weight)
    with kept_state(task.model):
        value, outputs = forward_and_backward(task, x, y, weight)
        return update(task, value), outputs


def forward_and_backward(
    task: Task, x: Array, y: Array, weight: Array | None = None
) -> tuple[Array, Array]:
    """The loss and the outputs; leaves gradients in the layers."""
    outputs, *_, value = forward(task, x, y, weight)
    backward(task, task.loss.backward(), outputs)
    return value, outputs


def forward(
    task: Task, x: Array, y: Array, weight: Array | None
) -> tuple[Array, Array, Array, list[Array], Array]:
    """The outputs, as rows too, targets and weights (none or one) to match, and the loss."""
    outputs = task.model.forward(x, training=True)
    rows, targets = as_rows(outputs, y, task.model.population)
    if weight is None:
        return outputs, rows, targets, [], task.loss.forward(rows, targets)
    weight = weights_of_rows(weight, outputs, rows)
    return outputs, rows, targets, [weight], task.loss.weighted(rows, targets, weight)


def backward(task: Task, dy: Array, outputs: Array) -> None:
    """Gradients in the layers, from that of the outputs as rows."""
    model = task.model
    if dy.shape != outputs.shape:
        dy = array_namespace(dy).reshape(dy, outputs.shape)
    if isinstance(model, Sequential):
        model.backward(dy, input_grad=False)
    else:
        model.backward(dy)


def update(task: Task, value: Array) -> Array:
    """Penalty, clipping and update; the loss with the penalty."""
    model = task.model
    value, grads = constrained(task, value)
    model.params = task.optimizer.update(model.params, grads, model.weight_params)
    return value


def constrained(task: Task, value: Array) -> tuple[Array, dict[str, Array]]:
    """The loss with the penalty, and the gradients of that, clipped."""
    model, penalty = task.model, task.penalty
    params, grads, weights = model.params, model.grads, model.weight_params
    if penalty is not None:
        value = value + penalty.forward(params, weights, model.independent)
        extra = penalty.backward(params, weights, model.independent)
        grads = {n: g + extra[n] if n in extra else g for n, g in grads.items()}
    if task.clip_norm is not None:
        grads = clip_by_global_norm(grads, task.clip_norm, model.independent)
    return value, grads


@contextmanager
def kept_state(model: Layer) -> Iterator[None]:
    """After an error, running statistics and masks are as if there had been no such batch."""
    before = _state_of(model)
    try:
        yield
    except Exception:
        _put_back(before)
        raise


def _state_of(model: Layer) -> list[tuple[Layer, dict[str, Any]]]:
    """What a forward changes in layers: running statistics, and which mask comes next."""
    found = []
    for _, layer in model.named_layers():
        if layer.state:
            found.append((layer, dict(layer.state)))
        elif layer.counter_names:
            found.append((layer, {name: getattr(layer, name) for name in layer.counter_names}))
    return found


def _put_back(found: list[tuple[Layer, dict[str, Any]]]) -> None:
    for layer, values in found:
        (layer.state if layer.state else vars(layer)).update(values)
