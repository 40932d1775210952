"""Layers as instructions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ... import layers
from ...layers import masked
from ...layers.activations import ACTIVATIONS
from ...layers.base import Layer
from ...ops.dispatch import load_kernels
from . import embedding, gated, images, normalization, periodic, shared_linear
from .normalization import Lowered, mask_of, refuse_shared_batch, scaled_by
from .program import Activation, Backward, NotCompiled, Program
from .shared import dropout_by_mask


def _linear(program: Program, name: str, layer: layers.Linear, x: Activation) -> Lowered:
    D, M = layer.W.shape[-2:]
    if x.features != D:
        raise NotCompiled(f"{name}Linear takes {D} inputs, not {x.features}")
    N, members, has_bias = program.rows, program.members, layer.b is not None
    W, row = program.parameter(name + "W"), program.memory.row(name + "W")
    b = program.parameter(name + "b") if has_bias else 0
    y = program.activation(M)
    ways, work = program.instructions, N * M * D / 100
    of_x, of_W, of_y = (x, x.batch, D, 1), (W, D * row, row, 1), (y.array, N * M, M)
    if program.training and members == 1 and D >= 2 * N and D >= 128:
        halves, product = program.buffer(2, N, M), program.multiply(program.dtype)
        problem = program.problem(N, M, D, of_x, of_W, (halves, 0, M), bias=b)
        given = {"product": product, "problem": program.multiply.record(**problem)}
        program.add(ways.half_products, **given, work=work)
        given = {"columns": M, "c": halves, "y": y, "rectified": 0}
        made_by = program.add(ways.joined_halves, **given, work=N * M / 25)
    else:
        cut = ways.ROWS if N >= 2 * ways.TALL else ways.COLUMNS
        made_by = program.product(N, M, D, of_x, of_W, of_y, cut=cut, bias=b)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        of_dW = program.gradient(name + "W"), D * row, row
        of_dy = dy, N * M, M, 1
        program.product(D, M, N, (x, x.batch, 1, D), of_dy, of_dW, cut=ways.ROWS)
        if has_bias:
            db = program.gradient(name + "b")
            program.add(ways.column_sums, columns=M, x=dy, out=db, work=N * M / 25)
        if not wanted:
            return None
        dx, gate = program.buffer(members, N, D), x if x.gated else 0
        of_dx, turned = (dx, N * D, D), (W, D * row, 1, row)
        program.product(N, D, M, of_dy, turned, of_dx, cut=ways.ROWS, gate=gate)
        return dx

    return Activation(y.array, M, y.batch, product=made_by), backward


def _piecewise_linear(
    program: Program, name: str, layer: layers.PiecewiseLinear, x: Activation
) -> Lowered:
    if x.array is not None:
        raise NotCompiled(f"{name}PiecewiseLinear is not the first layer")
    program.watch(layer, "columns")
    (J, M), D, N = layer.W.shape[-2:], len(layer.columns), program.rows
    if x.features != D:
        raise NotCompiled(f"{name}PiecewiseLinear takes {D} columns, not {x.features}")
    W = program.parameter(name + "W")
    b = program.buffer(program.members, M) if layer.b is None else program.parameter(name + "b")
    ways, work, y = program.instructions, N * M * D / 10, program.activation(M)
    T = program.buffer(program.members, J, M)
    sizes: Any = {"width": D, "depth": J, "columns": M}
    sizes["table"] = load_kernels("numba", "piecewise_linear").table(layer.columns)
    of_W: Any = {"stride": program.memory.row(name + "W")}
    program.add(ways.running_sums, **sizes, **of_W, W=W, T=T, work=J * M / 10)
    coded: Any = {**sizes, "x": x, "apart": x.batch}
    made_by = program.add(ways.coded_rows, **coded, T=T, b=b, y=y, rectified=0, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        dW = program.gradient(name + "W")
        program.add(ways.coded_gradient, **coded, **of_W, dy=dy, dW=dW, work=2 * work)
        if layer.b is not None:
            db = program.gradient(name + "b")
            program.add(ways.column_sums, columns=M, x=dy, out=db, work=N * M / 25)
        return None

    return Activation(y.array, M, y.batch, product=made_by), backward


def _relu(program: Program, name: str, layer: Layer, x: Activation) -> Lowered:
    refuse_shared_batch(program, name, layer, x)
    # Whoever computes the gradient of its output heeds the gate.
    return program.rectify(x), lambda dy, wanted: dy


def _activation(program: Program, name: str, layer: layers.Activation, x: Activation) -> Lowered:
    refuse_shared_batch(program, name, layer, x)
    constants = layer.options()
    program.watch(layer, "op", *constants)
    forward = program.instructions.ACTIVATIONS.get(layer.op)
    if forward is None:
        raise NotCompiled(f"there are no instructions for {type(layer).__name__}")
    F, size, y = x.features, program.rows * x.features, program.activation(x.features)
    slopes = program.buffer(program.members, program.rows, F)
    given: Any = {"x": x, "y": y, "constant": [*constants.values(), 0.0][0]}
    program.add(forward, columns=F, **given, slopes=slopes, work=size)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if not wanted:
            return None
        dy, multiplied = program.own(dy), program.instructions.multiplied
        program.add(multiplied, columns=F, dy=dy, slopes=slopes, work=size / 25)
        return program.gate(dy, x)

    return y, backward


def _flatten(program: Program, name: str, layer: layers.Flatten, x: Activation) -> Lowered:
    if x.channels_last:
        turned = images.channels_first(program, x)
        return images.after(turned, lambda x: _flatten(program, name, layer, x))
    if x.axes:
        lead = (program.rows,) if program.population is None else (program.members, program.rows)
        if layer._joined((*lead, *x.axes)) != (*lead, x.features):
            raise NotCompiled(f"{name}Flatten joins other axes than those of a sample")
        x = replace(x, axes=())
    return x, lambda dy, wanted: dy


def _unflatten(program: Program, name: str, layer: layers.Unflatten, x: Activation) -> Lowered:
    if x.channels_last:
        turned = images.channels_first(program, x)
        return images.after(turned, lambda x: _unflatten(program, name, layer, x))
    if x.features != math.prod(layer.shape):
        raise NotCompiled(f"{name}Unflatten is for other inputs")
    return replace(x, axes=layer.shape, product=None), lambda dy, wanted: dy


def _dropout(program: Program, name: str, layer: layers.Dropout, x: Activation) -> Lowered:
    if not program.training:
        return x, lambda dy, wanted: dy
    program.watch(layer, "p", "rng")
    members, N, F = program.members, program.rows, x.features
    if layer.rng.population != program.population:
        raise NotCompiled(f"{name}Dropout is for {layer.rng.population or 1} members")
    refuse_shared_batch(program, name, layer, x)
    rates = np.broadcast_to(np.asarray(layer.p, np.float64), (members,))
    seeds = program.buffer(members, 2, dtype=np.uint32)
    seeds[:] = [(seed & 0xFFFFFFFF, seed >> 32) for seed in layer.rng.seeds]
    thresholds, scales = program.buffer(members, dtype=np.uint32), program.buffer(members)
    thresholds[:] = np.rint(rates * (1 << 24))
    scales[:] = 1.0 / (1.0 - rates)
    counter = program.buffer(3, dtype=np.uint32)
    counter[1] = layer.rng.stream & 0xFFFFFFFF
    if program.share is not None:
        counter[2], apart = divmod(program.share.first * F, 4)
        if apart:
            return dropout_by_mask(program, layer, x)
    y = program.activation(x.features, gated=x.gated)
    draw, work = program.instructions.dropped, N * F / 1.5
    mask: Any = {"seed": seeds, "counter": counter, "threshold": thresholds, "scale": scales}
    program.add(draw, columns=F, x=x, y=y, **mask, work=work)

    def next_mask() -> None:
        layer.step += 1
        counter[0] = layer.step & 0xFFFFFFFF

    program.before.append(next_mask)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if not wanted:
            return None
        if y.gated:  # what was dropped is 0 in y, so its gradient was set to 0 already
            dy = program.own(dy)
            scaled = program.instructions.scaled
            program.add(scaled, columns=F, x=dy, factor=scales, work=N * F / 40)
            return dy
        dx = program.buffer(members, N, F)
        program.add(draw, columns=F, x=dy, y=dx, **mask, work=work)
        return dx

    return y, backward


def _softmax(kind: str) -> Callable[..., Lowered]:
    """The lowering of a softmax layer over the features."""

    def lower(
        program: Program, name: str, layer: layers.Softmax | layers.LogSoftmax, x: Activation
    ) -> Lowered:
        refuse_shared_batch(program, name, layer, x)
        program.watch(layer, "axis")
        last = 1 if program.population is None else 2  # of rows, or of each member's
        if layer.axis not in (-1, last):
            raise NotCompiled(f"{name}{type(layer).__name__} is over axis {layer.axis}")
        F, y = x.features, program.activation(x.features)
        forward, backward_of = program.instructions.SOFTMAXES[kind]
        work = 4 * program.rows * F
        program.add(forward, columns=F, x=x, y=y, work=work)

        def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
            if not wanted:
                return None
            dx = program.buffer(program.members, program.rows, F)
            program.add(backward_of, columns=F, dy=dy, y=y, dx=dx, work=work / 4)
            return program.gate(dx, x)

        return y, backward

    return lower


def _mask(program: Program, name: str, layer: masked.Mask, x: Activation) -> Lowered:
    F = x.features
    if layer.mask.shape[-1] != F or layer.population != program.population:
        raise NotCompiled(f"{name}Mask is for other inputs")
    refuse_shared_batch(program, name, layer, x)
    mask = mask_of(program, layer)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        return program.gate(scaled_by(program, dy, mask, F), x) if wanted else None

    return Activation(scaled_by(program, x, mask, F), F, program.rows * F), backward


def _sequential(program: Program, name: str, model: layers.Sequential, x: Activation) -> Lowered:
    steps: list[tuple[Backward, bool]] = []
    trained = False
    for number, layer in enumerate(model.layers):
        x, backward = lower_layer(program, f"{name}{number}.", layer, x)
        steps.append((backward, trained))
        trained = trained or bool(layer.params)

    def backward_of_all(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        for backward, needed in reversed(steps):
            dx = backward(dy, wanted or needed)
            if dx is None:
                return None
            dy = dx
        return dy

    return x, backward_of_all


def _residual(program: Program, name: str, layer: layers.Residual, x: Activation) -> Lowered:
    refuse_shared_batch(program, name, layer, x)
    # The inner layers may not rectify x in place, and x's own gate is for the sum of both ways.
    inner = x if x.array is None else replace(x, gated=False, product=None, shared=True)
    z, inner_backward = lower_layer(program, name + "inner.", layer.inner, inner)
    if z.features != x.features or z.axes:
        raise NotCompiled(f"{name}Residual adds {x.features} features to {z.features}")
    y = program.sum(x, z, x.features)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        with program.holding(dy):
            dx = inner_backward(program.gate(dy, z), wanted)
        if dx is None or not wanted:
            return None
        return program.gate(program.sum(dy, dx, x.features), x)

    return Activation(y, x.features, program.rows * x.features), backward


LAYERS: dict[type, Callable[[Program, str, Any, Activation], Lowered]] = {
    **dict.fromkeys(ACTIVATIONS.values(), _activation),
    layers.ReLU: _relu,
    layers.Linear: _linear,
    layers.PiecewiseLinear: _piecewise_linear,
    layers.Softmax: _softmax("softmax"),
    layers.LogSoftmax: _softmax("log_softmax"),
    layers.BatchNorm: normalization.batch_norm,
    layers.LayerNorm: normalization.layer_norm,
    layers.RMSNorm: normalization.narrow_norm,
    masked.MaskedLayerNorm: normalization.narrow_norm,
    masked.MaskedRMSNorm: normalization.narrow_norm,
    masked.Mask: _mask,
    layers.Embedding: embedding.embedding,
    layers.EmbedColumns: embedding.embed_columns,
    layers.Flatten: _flatten,
    layers.Unflatten: _unflatten,
    layers.Dropout: _dropout,
    layers.Periodic: periodic.periodic,
    layers.GLU: gated.gate,
    layers.SwiGLU: gated.gate,
    layers.PReLU: gated.prelu,
    layers.Residual: _residual,
    **images.LAYERS,
    layers.SharedLinear: shared_linear.shared_linear,
}


def lower_layer(program: Program, name: str, layer: Layer, x: Activation) -> Lowered:
    """The forward of a layer whose parameters' names begin with ``name``; its output and backward.

    Raises
    ------
    NotCompiled
        If there are no instructions for it, or for one inside it.
    """
    lower: Callable[..., Lowered] | None = LAYERS.get(type(layer))
    if lower is None and layers.containers.is_sequential(layer):
        lower = _sequential
    if lower is None:
        raise NotCompiled(f"there are no instructions for {type(layer).__name__}")
    if type(layer) in images.LAYERS:
        turned = images.channels_last(program, x)
        return images.after(turned, lambda x: lower(program, name, layer, x))
    if not x.axes or lower in (_flatten, _unflatten, _sequential):
        return lower(program, name, layer, x)
    return _lower_axes(program, name, layer, x, lower)


def _lower_axes(
    program: Program, name: str, layer: Layer, x: Activation, lower: Callable[..., Lowered]
) -> Lowered:
    """A layer of rows, on samples of several axes."""
    if lower is _linear and layer.params["W"].shape[-2] == x.features != x.axes[-1]:
        flat = _flatten(program, name, layers.Flatten(len(x.axes)), x)
        return images.after(flat, lambda x: lower(program, name, layer, x))
    if len(x.axes) != 3 or lower not in (_relu, _activation, _dropout, gated.prelu):
        raise NotCompiled(f"{name}{type(layer).__name__} acts on samples of several axes")
    if lower is _dropout and program.training and x.channels_last:  # draws by place
        turned = images.channels_first(program, x)
        return images.after(turned, lambda x: _lower_axes(program, name, layer, x, lower))
    y, backward = lower(program, name, layer, x)
    return replace(y, axes=x.axes, channels_last=x.channels_last), backward
