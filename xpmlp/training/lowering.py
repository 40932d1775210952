"""Each layer, loss and optimizer as instructions: what it does in a compiled training step.

One function for each type. A layer's gets the program and its input, appends the forward's
instructions, and gives its output and a function that appends the backward's. Types that are not
in the tables here, subclasses among them, make the step run layer by layer as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import layers, losses, optim
from ..layers.base import Layer
from .program import Activation, Backward, NotCompiled, Program

Lowered = tuple[Activation, Backward]


# --- Layers ---------------------------------------------------------------------------------------


def _linear(program: Program, name: str, layer: layers.Linear, x: Activation) -> Lowered:
    D, M = layer.W.shape[-2:]
    if x.features != D:
        raise NotCompiled(f"{name}Linear takes {D} inputs, not {x.features}")
    N, members, has_bias = program.rows, program.members, layer.b is not None
    memory, shape = program.memory, (members, D, M)
    W, dW = (memory.view(buffer, name + "W", shape) for buffer in (memory.params, memory.grads))
    b = memory.view(memory.params, name + "b", (members, M)) if has_bias else 0
    y = program.activation(M)
    made_by = program.product(N, M, D, (x, x.batch, D, 1), (W, D * M, M, 1), y.array, bias=b)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        program.product(D, M, N, (x, x.batch, 1, D), (dy, N * M, M, 1), dW)
        if has_bias:
            db = memory.view(memory.grads, name + "b", (members, M))
            sums = program.instructions.column_sums
            program.add(sums, dy, N * M, members, N, M, db, work=N * M / 20)
        if not wanted:
            return None
        dx = program.buffer(members, N, D)
        gate = x if x.gated else 0
        program.product(N, D, M, (dy, N * M, M, 1), (W, D * M, 1, M), dx, gate=gate)
        return dx

    return Activation(y.array, M, y.batch, product=made_by), backward


def _relu(program: Program, name: str, layer: Layer, x: Activation) -> Lowered:
    if x.array is None:
        raise NotCompiled("ReLU would write into the batch")
    # Whoever computes the gradient of its output heeds the gate.
    return program.rectify(x), lambda dy, wanted: dy


def _flatten(program: Program, name: str, layer: Layer, x: Activation) -> Lowered:
    return x, lambda dy, wanted: dy


def _dropout(program: Program, name: str, layer: layers.Dropout, x: Activation) -> Lowered:
    program.watch(layer, "p", "rng")
    members, size = program.members, program.rows * x.features
    if layer.rng.population != program.population:
        raise NotCompiled(f"{name}Dropout is for {layer.rng.population or 1} members")
    if x.array is None and x.batch == 0 and members > 1:
        raise NotCompiled("Dropout acts on a batch that all members share")
    rates = np.broadcast_to(np.asarray(layer.p, np.float64), (members,))
    seeds = program.buffer(members, 2, dtype=np.uint32)
    seeds[:] = [(seed & 0xFFFFFFFF, seed >> 32) for seed in layer.rng.seeds]
    thresholds, scales = program.buffer(members, dtype=np.uint32), program.buffer(members)
    thresholds[:] = np.rint(rates * (1 << 24))
    scales[:] = 1.0 / (1.0 - rates)
    counter = program.buffer(2, dtype=np.uint32)
    counter[1] = layer.rng.stream & 0xFFFFFFFF
    y = program.activation(x.features, gated=x.gated)
    draw, mask = program.instructions.dropout, (seeds, counter, thresholds, scales)
    program.add(draw, x, y, members, size, *mask, work=size / 2)

    def next_mask() -> None:
        layer.step += 1
        counter[0] = layer.step & 0xFFFFFFFF

    program.before.append(next_mask)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if not wanted:
            return None
        if y.gated:  # what was dropped is 0 in y, so its gradient was set to 0 already
            program.add(program.instructions.scaled, dy, members, size, scales, work=size / 15)
            return dy
        program.add(draw, dy, dy, members, size, *mask, work=size / 2)
        return dy

    return y, backward


LAYERS: dict[type, Callable[[Program, str, Any, Activation], Lowered]] = {
    layers.Linear: _linear,
    layers.ReLU: _relu,
    layers.Flatten: _flatten,
    layers.Dropout: _dropout,
}


def in_order(model: Layer, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """A Sequential's layers, those of nested ones too, with the prefix of their parameters."""
    plain = isinstance(model, layers.Sequential) and all(
        getattr(type(model), method) is getattr(layers.Sequential, method)
        for method in ("forward", "backward")
    )
    if not plain:
        raise NotCompiled(f"{type(model).__name__} is not a Sequential")
    for number, layer in enumerate(model.layers):
        if isinstance(layer, layers.Sequential):
            yield from in_order(layer, f"{prefix}{number}.")
        else:
            yield f"{prefix}{number}.", layer


def lower_layers(program: Program, model: Layer) -> tuple[Activation, Callable[[np.ndarray], None]]:
    """The forward of all layers; the outputs, and what appends the backward of all."""
    x = program.x
    steps: list[tuple[Backward, Activation, bool]] = []
    trained = False
    for name, layer in in_order(model):
        lower = LAYERS.get(type(layer))
        if lower is None:
            raise NotCompiled(f"there are no instructions for {type(layer).__name__}")
        y, backward = lower(program, name, layer, x)
        steps.append((backward, x, trained))
        trained = trained or bool(layer.params)
        x = y

    def append_backward(dy: np.ndarray) -> None:
        dy = program.gate(dy, x)
        for backward, _, wanted in reversed(steps):
            dx = backward(dy, wanted)
            if dx is None:
                return
            dy = dx

    return x, append_backward


# --- Losses ---------------------------------------------------------------------------------------


def _cross_entropy(
    program: Program, loss: losses.SoftmaxCrossEntropy, outputs: Activation, y: np.ndarray, to: Any
) -> np.ndarray:
    program.watch(
        loss, "label_smoothing", "ignore_index", "class_weights", "z_loss", "reduction"
    )
    members, rows, C = program.members, program.rows, outputs.features
    if y.dtype.kind not in "iu":
        raise NotCompiled("targets are not class numbers")
    if loss.reduction == "none":
        raise NotCompiled("reduction is 'none'")
    labels = program.bind_targets(y, np.dtype(np.int64), ())
    shared = y.ndim == 1
    smoothing = program.buffer(members, dtype=np.float64)
    smoothing[:] = loss.label_smoothing
    z_loss = program.buffer(1, dtype=np.float64)
    z_loss[:] = loss.z_loss
    weighted = loss.class_weights is not None
    weights = program.buffer(C if weighted else 0)
    if weighted:
        weights[:] = loss.class_weights
    ignored = loss.ignore_index
    options = weights, weighted, ignored is not None, ignored or 0
    scales, values = program.buffer(members), program.buffer(members, rows)
    gradient = program.buffer(members, rows, C)
    kinds = program.instructions
    program.add(
        kinds.check_labels,
        *(labels, 1 if shared else members, members, rows, C, *options),
        *(loss.reduction == "mean", scales),
        work=rows,
        check=True,
    )
    tiled = C <= kinds.FEW_CLASSES and not smoothing.any()
    program.add(
        kinds.cross_entropy,
        *(outputs, labels, 0 if shared else rows, members, rows, C, *options),
        *(scales, smoothing, z_loss, gradient, values, tiled),
        work=rows * C,
    )
    program.add(kinds.row_total, values, members, rows, to, work=rows)
    return gradient


def _mse(program: Program, loss: losses.MSE, outputs: Activation, y: np.ndarray, to: Any):
    program.watch(loss, "reduction")
    members, rows, M = program.members, program.rows, outputs.features
    if loss.reduction == "none":
        raise NotCompiled("reduction is 'none'")
    targets = program.bind_targets(y, program.dtype, (M,))
    factor = program.buffer(1, dtype=np.float64)
    factor[:] = 1.0 / (rows * M) if loss.reduction == "mean" else 1.0
    values, gradient = program.buffer(members, rows), program.buffer(members, rows, M)
    program.add(
        program.instructions.squared_error,
        *(outputs, targets, 0 if y.ndim == 2 else rows * M, members, rows, M),
        *(factor, gradient, values),
        work=rows * M / 2,
    )
    program.add(program.instructions.row_total, values, members, rows, to, work=rows)
    return gradient


LOSSES: dict[type, Callable[[Program, Any, Activation, np.ndarray, Any], np.ndarray]] = {
    losses.SoftmaxCrossEntropy: _cross_entropy,
    losses.MSE: _mse,
}


# --- Optimizers -----------------------------------------------------------------------------------


def _sgd(optimizer: optim.SGD, lr: Any) -> tuple[Any, ...]:
    return lr, optimizer.weight_decay


Rates = Callable[[Any, Any], tuple[Any, ...]]
"""``rates(optimizer, lr)``: what an update instruction needs, weight decay last."""

OPTIMIZERS: dict[type, tuple[str, Rates]] = {optim.SGD: ("sgd", _sgd)}


def can_update(optimizer: optim.Optimizer) -> bool:
    """Whether there are instructions for this optimizer."""
    return type(optimizer) in OPTIMIZERS and not optimizer.slots


def lower_update(program: Program, optimizer: optim.Optimizer) -> None:
    """The update of all parameters, in place."""
    kind, rates = OPTIMIZERS[type(optimizer)]
    instruction = getattr(program.instructions, kind)
    memory, members = program.memory, program.members
    if members > 1:
        spans = [(*memory.offsets[n], memory.offsets[n][0] < memory.weights_end) for n in memory.names]
    else:
        end = memory.weights_end
        spans = [(0, end, True), (end, memory.size - end, False)]
    hypers = []
    for begin, size, is_weight in spans:
        if size == 0:
            continue
        state = [buffer[begin:] for buffer in (memory.params, memory.grads, *memory.slots)]
        hyper = program.buffer(members, len(rates(optimizer, optimizer.lr)))
        hypers.append((hyper, is_weight))
        arguments = *state, members, size // members, hyper
        program.add(instruction, *arguments, work=size / 10)
    written: list[tuple[Any, ...]] = [()]

    def write_rates() -> None:
        lr = optimizer.lr * optimizer.schedule(optimizer.steps)
        optimizer.steps += 1
        values = rates(optimizer, lr)
        if members == 1 and values == written[0]:
            return
        written[0] = values
        for hyper, is_weight in hypers:
            for column, value in enumerate(values):
                hyper[:, column] = value
            if not is_weight:
                hyper[:, -1] = 0.0

    program.before.append(write_rates)
