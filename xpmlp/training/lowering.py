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
    W, dW = program.parameter(name + "W"), program.gradient(name + "W")
    row = program.memory.row(name + "W")
    b = program.parameter(name + "b") if has_bias else 0
    y = program.activation(M)
    ways = program.instructions
    if members == 1 and D >= 2 * N and D >= 128:
        halves = program.buffer(2, N, M)
        operands = program.gemm_program, N, M, D, x, D, W, row, halves, b
        program.add(ways.half_products, *operands, work=N * M * D / 100)
        made_by = program.add(ways.joined_halves, halves, N * M, y, 0, work=N * M / 25)
    else:
        x_W, to = ((x, x.batch, D, 1), (W, D * row, row, 1)), (y.array, N * M, M)
        cut = ways.ROWS if N >= 2 * ways.TALL else ways.COLUMNS
        made_by = program.product(N, M, D, *x_W, to, cut=cut, bias=b)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        program.product(
            D, M, N, (x, x.batch, 1, D), (dy, N * M, M, 1), (dW, D * row, row), cut=ways.ROWS
        )
        if has_bias:
            db = program.gradient(name + "b")
            program.add(ways.column_sums, dy, N * M, members, N, M, db, work=N * M / 25)
        if not wanted:
            return None
        dx = program.buffer(members, N, D)
        gate = x if x.gated else 0
        dy_W = (dy, N * M, M, 1), (W, D * row, 1, row)
        program.product(N, D, M, *dy_W, (dx, N * D, D), cut=ways.ROWS, gate=gate)
        return dx

    return Activation(y.array, M, y.batch, product=made_by), backward


def _relu(program: Program, name: str, layer: Layer, x: Activation) -> Lowered:
    if x.array is None:
        raise NotCompiled("ReLU would write into the batch")
    # Whoever computes the gradient of its output heeds the gate.
    return program.rectify(x), lambda dy, wanted: dy


def _activation(kind: str, constant: str | None = None) -> Callable[..., Lowered]:
    """The lowering of an elementwise layer, whose one constant is an attribute of it."""

    def lower(program: Program, name: str, layer: Layer, x: Activation) -> Lowered:
        if x.array is None and x.batch == 0 and program.members > 1:
            raise NotCompiled(f"{name}{type(layer).__name__} acts on a batch that members share")
        value = program.buffer(1, dtype=np.float64)
        if constant is not None:
            program.watch(layer, constant)
            value[0] = getattr(layer, constant)
        forward, backward_of = program.instructions.ACTIVATIONS[kind]
        y, size = program.activation(x.features), program.rows * x.features
        program.add(forward, x, y, program.members, size, value, work=size)

        def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
            if not wanted:
                return None
            program.add(backward_of, dy, x, y, program.members, size, value, work=size / 4)
            return program.gate(dy, x)

        return y, backward

    return lower


def _flatten(program: Program, name: str, layer: Layer, x: Activation) -> Lowered:
    return x, lambda dy, wanted: dy


def _dropout(program: Program, name: str, layer: layers.Dropout, x: Activation) -> Lowered:
    program.watch(layer, "p", "rng")
    members, N = program.members, program.rows
    size = N * x.features
    if layer.rng.population != program.population:
        raise NotCompiled(f"{name}Dropout is for {layer.rng.population or 1} members")
    if x.array is None and x.batch == 0 and members > 1:
        raise NotCompiled("Dropout acts on a batch that members share")
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
    program.add(draw, x, y, members, size, *mask, work=size / 1.5)

    def next_mask() -> None:
        layer.step += 1
        counter[0] = layer.step & 0xFFFFFFFF

    program.before.append(next_mask)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if not wanted:
            return None
        if y.gated:  # what was dropped is 0 in y, so its gradient was set to 0 already
            program.add(program.instructions.scaled, dy, members, size, scales, work=size / 40)
            return dy
        dx = program.buffer(members, N, x.features)
        program.add(draw, dy, dx, members, size, *mask, work=size / 1.5)
        return dx

    return y, backward


def _batch_norm(program: Program, name: str, layer: layers.BatchNorm, x: Activation) -> Lowered:
    program.watch(layer, "keep", "eps", "unbiased")
    N, F, members = program.rows, x.features, program.members
    _check_features(program, name, layer, x)
    options = program.buffer(3, dtype=np.float64)
    options[:] = layer.eps, layer.keep, N / (N - 1) if layer.unbiased and N > 1 else 1.0
    gamma, beta = program.parameter(name + "gamma"), program.parameter(name + "beta")
    mean, var = program.buffer(members, F), program.buffer(members, F)
    running = program.state(name + "running_mean"), program.state(name + "running_var")
    y = program.activation(F)
    sizes, kinds, work = (members, N, F), program.instructions, N * F / 20
    program.add(kinds.batch_statistics, x, *sizes, options, mean, var, *running, work=work)
    program.add(kinds.batch_norm, x, *sizes, gamma, beta, options, mean, var, y, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        slopes = program.gradient(name + "gamma"), program.gradient(name + "beta")
        statistics = options, mean, var
        program.add(kinds.batch_norm_slopes, dy, x, *sizes, *statistics, *slopes, work=work)
        if not wanted:
            return None
        dx = program.buffer(members, N, F)
        arguments = dy, x, *sizes, gamma, *statistics, *slopes, dx
        program.add(kinds.batch_norm_backward, *arguments, work=work)
        return program.gate(dx, x)

    return y, backward


def _layer_norm(program: Program, name: str, layer: layers.LayerNorm, x: Activation) -> Lowered:
    program.watch(layer, "eps")
    N, F, members = program.rows, x.features, program.members
    _check_features(program, name, layer, x)
    options = program.buffer(1, dtype=np.float64)
    options[:] = layer.eps
    gamma, beta = program.parameter(name + "gamma"), program.parameter(name + "beta")
    mean, inv_std = program.buffer(members, N), program.buffer(members, N)
    y = program.activation(F)
    sizes, kinds, work = (members, N, F), program.instructions, N * F / 20
    program.add(kinds.layer_norm, x, *sizes, gamma, beta, options, y, mean, inv_std, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        slopes = program.gradient(name + "gamma"), program.gradient(name + "beta")
        program.add(kinds.layer_norm_slopes, dy, x, *sizes, mean, inv_std, *slopes, work=work)
        if not wanted:
            return None
        dx = program.buffer(members, N, F)
        arguments = dy, x, *sizes, gamma, mean, inv_std, dx
        program.add(kinds.layer_norm_backward, *arguments, work=work)
        return program.gate(dx, x)

    return y, backward


def _check_features(program: Program, name: str, layer: Any, x: Activation) -> None:
    if layer.features != x.features or layer.population != program.population:
        raise NotCompiled(f"{name}{type(layer).__name__} is for other inputs")
    if x.array is None and x.batch == 0 and program.members > 1:
        raise NotCompiled(f"{name}{type(layer).__name__} acts on a batch that members share")


LAYERS: dict[type, Callable[[Program, str, Any, Activation], Lowered]] = {
    layers.Linear: _linear,
    layers.ReLU: _relu,
    layers.LeakyReLU: _activation("leaky_relu", "slope"),
    layers.SiLU: _activation("silu"),
    layers.Tanh: _activation("tanh"),
    layers.Sigmoid: _activation("sigmoid"),
    layers.BatchNorm: _batch_norm,
    layers.LayerNorm: _layer_norm,
    layers.Flatten: _flatten,
    layers.Dropout: _dropout,
}


def in_order(model: Layer, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """A Sequential's layers, those of nested ones too, with the prefix of their parameters."""
    if not isinstance(model, layers.Sequential) or any(
        getattr(type(model), method) is not getattr(layers.Sequential, method)
        for method in ("forward", "backward")
    ):
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
    program.watch(loss, "label_smoothing", "ignore_index", "class_weights", "z_loss", "reduction")
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
    program.add(
        kinds.cross_entropy,
        *(outputs, labels, 0 if shared else rows, members, rows, C, *options),
        *(scales, smoothing, z_loss, gradient, values),
        work=rows * C * 4,
    )
    program.add(kinds.row_total, values, members, rows, to, work=rows)
    program.hits = program.buffer(members, dtype=np.int64)
    where = outputs, labels, 0 if shared else rows, members, rows, C
    program.add(kinds.hits, *where, program.hits, work=0)
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
        work=rows * M,
    )
    program.add(program.instructions.row_total, values, members, rows, to, work=rows)
    return gradient


LOSSES: dict[type, Callable[[Program, Any, Activation, np.ndarray, Any], np.ndarray]] = {
    losses.SoftmaxCrossEntropy: _cross_entropy,
    losses.MSE: _mse,
}


# --- Optimizers -----------------------------------------------------------------------------------


# What an update instruction needs to know at each step, but for weight decay.


def _sgd(o: optim.SGD, lr: Any) -> tuple[Any, ...]:
    return (lr, o.momentum, o.nesterov) if o.slots else (lr,)


def _adagrad(o: optim.AdaGrad, lr: Any) -> tuple[Any, ...]:
    return lr, o.eps


def _rmsprop(o: optim.RMSProp, lr: Any) -> tuple[Any, ...]:
    return lr, 1.0 - o.decay, o.eps


def _adam(o: optim.Adam, lr: Any) -> tuple[Any, ...]:
    corrections = 1.0 - o.beta1**o.steps, 1.0 - o.beta2**o.steps
    return lr, 1.0 - o.beta1, 1.0 - o.beta2, *corrections, o.eps


OPTIMIZERS: dict[type, tuple[str, Callable[[Any, Any], tuple[Any, ...]]]] = {
    optim.SGD: ("sgd", _sgd),
    optim.AdaGrad: ("adagrad", _adagrad),
    optim.RMSProp: ("rmsprop", _rmsprop),
    optim.Adam: ("adam", _adam),
    optim.AdamW: ("adam", _adam),
}


def can_update(optimizer: optim.Optimizer) -> bool:
    """Whether there are instructions for this optimizer."""
    return type(optimizer) in OPTIMIZERS


def lower_update(program: Program, optimizer: optim.Optimizer) -> None:
    """The update of all parameters, in place, each cut among the threads as its gradient was."""
    kind, rates = OPTIMIZERS[type(optimizer)]
    kind = "momentum" if kind == "sgd" and optimizer.slots else kind
    instruction = getattr(program.instructions, kind)
    memory, members = program.memory, program.members
    columns = len(rates(optimizer, optimizer.lr)) + 2
    of_weights, of_others = (program.buffer(members, columns, dtype=np.float64) for _ in range(2))
    for name in memory.names:
        begin, size = memory.offsets[name]
        is_weight = begin < memory.weights_end
        state = [b[begin:] for b in (memory.params, memory.grads, *memory.slots)]
        row = memory.row(name)
        program.add(
            instruction,
            *(*state, *[0] * (4 - len(state)), members, size // (members * row), row),
            *(of_weights if is_weight else of_others, columns),
            work=size / 10,
        )
    written: list[tuple[Any, ...]] = [()]

    def write_rates() -> None:
        lr = optimizer.lr * optimizer.schedule(optimizer.steps)
        optimizer.steps += 1
        decay, shrink = optimizer.weight_decay, 1.0
        if optimizer.decoupled:
            decay, shrink = 0.0, 1.0 - lr * decay
        values = *rates(optimizer, lr), decay, shrink
        if program.population is None:
            if values != written[0]:
                of_weights[0] = values
                of_others[0] = *values[:-2], 0.0, 1.0
                written[0] = values
            return
        for column, value in enumerate(values):
            of_weights[:, column] = value
        of_others[:] = of_weights
        of_others[:, -2:] = 0.0, 1.0

    program.before.append(write_rates)
