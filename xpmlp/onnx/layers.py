"""How each layer is written in ONNX operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers as L
from ..backend import to_numpy
from ..errors import ConfigError, ShapeError
from ..layers.base import Layer
from ..layers.masked import Mask, MaskedLayerNorm, MaskedRMSNorm
from ..ops.activations import SELU_ALPHA, SELU_SCALE
from ..ops.piecewise_linear import BINS, LEVELS, Columns
from . import gated, images
from .graph import BATCH, Graph, Value
from .shapes import WHERE, axes_kept, check_features, per_feature, with_members


def emit(graph: Graph, layer: Layer, x: Value, at: str) -> Value:
    """Add a layer's operators; ``at`` is its name inside the model."""
    # A subclass of Sequential, such as FullyConnectedNet, is one as long as it computes like one.
    if isinstance(layer, L.Sequential) and type(layer).forward is L.Sequential.forward:
        for name, child in layer.children.items():
            x = emit(graph, child, x, f"{at}.{name}" if at else name)
        return x
    emitter = EMITTERS.get(type(layer))
    if emitter is None:
        known = ", ".join(sorted(cls.__name__ for cls in (*EMITTERS, L.Sequential)))
        raise ConfigError(
            f"`{WHERE}`: expected layers among {known}; got {type(layer).__name__} "
            f"(layer {at or 'at the top'}); replace it by a combination of these"
        )
    return emitter(graph, layer, x, at or type(layer).__name__)


def _linear(graph: Graph, layer: L.Linear, x: Value, at: str) -> Value:
    return _affine(graph, layer, _flattened(graph, x, layer.W.shape[-2], at), at)


def _shared_linear(graph: Graph, layer: L.SharedLinear, x: Value, at: str) -> Value:
    x = _flattened(graph, x, layer.W.shape[0], at)
    shape, shared = with_members(x, (layer.r.shape[0],), at), to_numpy(layer.W)
    own = {name: per_feature(array) for name, array in layer.params.items() if name != "W"}
    r, s, *b = (graph.constant(f"{at}.{name}", array) for name, array in own.items())
    x = graph.node("Mul", [x, r], at, (*shape, shared.shape[0]))
    W = graph.constant(f"{at}.W", shared)
    y = graph.node("MatMul", [x, W], at, (*shape, shared.shape[1]))
    y = graph.node("Mul", [y, s], at)
    return graph.node("Add", [y, *b], at) if b else y


def _flattened(graph: Graph, x: Value, features: int, at: str) -> Value:
    """x with its trailing axes as one of so many features."""
    if x.shape[-1] == features:
        return x
    return graph.reshape(x, (*x.shape[: axes_kept(x, features, at)], features), at)


def _affine(graph: Graph, layer: L.Linear | L.PiecewiseLinear, x: Value, at: str) -> Value:
    """``x W + b`` of the layer's parameters."""
    M = layer.W.shape[-1]
    W = graph.constant(f"{at}.W", to_numpy(layer.W))
    shape = (*with_members(x, layer.W.shape[:-2], at), M)
    if layer.b is None:
        return graph.node("MatMul", [x, W], at, shape)
    if len(shape) == 2:
        return graph.node("Gemm", [x, W, graph.constant(f"{at}.b", to_numpy(layer.b))], at, shape)
    b = graph.constant(f"{at}.b", per_feature(layer.b))
    return graph.node("Add", [graph.node("MatMul", [x, W], at, shape), b], at)


def _piecewise_linear(graph: Graph, layer: L.PiecewiseLinear, x: Value, at: str) -> Value:
    D = len(layer.columns)
    if x.shape[-1] != D or len(x.shape) < 2:
        raise ShapeError(f"`{WHERE}`: expected {D} columns at the layer {at}, got {x.text()}")
    return _affine(graph, layer, write_codes(graph, layer.columns, x, at), at)


def write_codes(graph: Graph, columns: Columns, x: Value, at: str) -> Value:
    """What x's columns are written as: :func:`xpmlp.ops.piecewise_linear.codes`."""
    D = len(columns)
    kinds, counts = zip(*columns, strict=True)
    of_code = np.repeat(kinds, counts)
    places = graph.constant(f"{at}.column", np.repeat(np.arange(D), counts), "int64")
    starts = graph.constant(f"{at}.start", np.concatenate([np.arange(n) for n in counts]))
    shape = (*x.shape[:-1], len(of_code))
    own = graph.node("Gather", [x, places], at, shape, axis=len(x.shape) - 1)
    away = graph.node("Sub", [own, starts], at)
    zero, one = graph.constant(f"{at}.zero", 0.0), graph.constant(f"{at}.one", 1.0)
    inside = graph.node("Clip", [away, zero, one], at)
    is_level = graph.cast(graph.node("Equal", [away, zero], at), graph.dtype, at)
    in_bins = graph.constant(f"{at}.in_bins", of_code == BINS, "bool")
    of_level = graph.constant(f"{at}.of_level", of_code == LEVELS, "bool")
    coded = graph.node("Where", [of_level, is_level, away], at, shape)
    return graph.node("Where", [in_bins, inside, coded], at, shape)


def _matmul(graph: Graph, layer: L.Matmul, x: Value, at: str) -> Value:
    *members, M, D = layer.W.shape
    if len(x.shape) < 2 or x.shape[-2] != D:
        raise ShapeError(
            f"`{WHERE}`: expected ({D}, N) at the layer {at}, samples as columns, got {x.text()}; "
            "give input_shape= as the layer needs it"
        )
    lead = with_members(x, tuple(members), at)[:-1]
    W = graph.constant(f"{at}.W", to_numpy(layer.W))
    return graph.node("MatMul", [W, x], at, (*lead, M, x.shape[-1]))


def _batch_norm(graph: Graph, layer: L.BatchNorm, x: Value, at: str) -> Value:
    check_features(x, layer, at)
    # Three plain operators, as the layer itself does it: BatchNormalization wants its channels on
    # axis 1 and may fold the mean into the shift, which cancels where the mean is large.
    gamma, var = to_numpy(layer.gamma), to_numpy(layer.running_var)
    scale = per_feature(gamma / np.sqrt(var + layer.eps))
    x = graph.node("Sub", [x, graph.constant(f"{at}.mean", per_feature(layer.running_mean))], at)
    x = graph.node("Mul", [x, graph.constant(f"{at}.scale", scale)], at)
    return graph.node("Add", [x, graph.constant(f"{at}.beta", per_feature(layer.beta))], at)


def _row_norm(graph: Graph, layer: Any, x: Value, at: str) -> Value:
    """LayerNorm and RMSNorm: float64 and populations, which LayerNormalization has not, too."""
    check_features(x, layer, at)
    half = graph.dtype == "float16"
    if half:  # as the layer does: sums of squares would overflow
        x = graph.cast(x, "float32", at)
    wide = "float32" if half else graph.dtype
    rows = (*x.shape[:-1], 1)
    mask = share = None
    if isinstance(layer, MaskedLayerNorm | MaskedRMSNorm):  # means over the member's own features
        mask = graph.constant(f"{at}.mask", to_numpy(layer.mask), wide)
        counts = to_numpy(layer.counts).astype(np.float64)
        share = graph.constant(f"{at}.share", layer.features / counts, wide)

    def mean_of(values: Value) -> Value:
        mean = graph.node("ReduceMean", [values], at, rows, axes=[-1])
        return mean if share is None else graph.node("Mul", [mean, share], at)

    if isinstance(layer, L.LayerNorm):
        x = graph.node("Sub", [x, mean_of(x)], at)
        x = x if mask is None else graph.node("Mul", [x, mask], at)
    mean = mean_of(graph.node("Mul", [x, x], at))
    eps = graph.constant(f"{at}.eps", layer.eps, wide)
    root = graph.node("Sqrt", [graph.node("Add", [mean, eps], at)], at)
    x = graph.node("Div", [x, root], at)
    x = graph.node("Mul", [x, graph.constant(f"{at}.gamma", per_feature(layer.gamma), wide)], at)
    if isinstance(layer, L.LayerNorm):
        x = graph.node("Add", [x, graph.constant(f"{at}.beta", per_feature(layer.beta), wide)], at)
    return graph.cast(x, graph.dtype, at) if half else x


def _operator(op: str, *options: tuple[str, str]) -> Callable[..., Value]:
    """An emitter for one operator, with attributes taken from the layer's options."""

    def emit(graph: Graph, layer: Layer, x: Value, at: str) -> Value:
        attributes = {name: getattr(layer, option) for name, option in options}
        return graph.node(op, [x], at, **attributes)

    return emit


def _gelu(graph: Graph, layer: L.GELU, x: Value, at: str) -> Value:
    def times(a: Value, factor: float, name: str) -> Value:
        return graph.node("Mul", [a, graph.constant(f"{at}.{name}", factor)], at)

    if layer.approximate == "none":
        inner = graph.node("Erf", [times(x, math.sqrt(0.5), "root")], at)
    else:
        cubic = graph.node("Mul", [graph.node("Mul", [x, x], at), x], at)
        total = graph.node("Add", [x, times(cubic, 0.044715, "cubic")], at)
        inner = graph.node("Tanh", [times(total, math.sqrt(2.0 / math.pi), "root")], at)
    one_more = graph.node("Add", [inner, graph.constant(f"{at}.one", 1.0)], at)
    return graph.node("Mul", [times(x, 0.5, "half"), one_more], at)


def _silu(graph: Graph, layer: L.SiLU, x: Value, at: str) -> Value:
    return graph.node("Mul", [x, graph.node("Sigmoid", [x], at)], at)


def _celu(graph: Graph, layer: L.CELU, x: Value, at: str) -> Value:
    alpha = graph.constant(f"{at}.alpha", layer.alpha)  # Celu itself is there for float32 alone
    y = graph.node("Elu", [graph.node("Div", [x, alpha], at)], at, alpha=1.0)
    return graph.node("Mul", [y, alpha], at)


def _mish(graph: Graph, layer: L.Mish, x: Value, at: str) -> Value:
    gate = graph.node("Tanh", [graph.node("Softplus", [x], at)], at)  # Mish came with opset 18
    return graph.node("Mul", [x, gate], at)


def _log(graph: Graph, layer: L.Log, x: Value, at: str) -> Value:
    if layer.eps:
        x = graph.node("Add", [x, graph.constant(f"{at}.eps", layer.eps)], at)
    return graph.node("Log", [x], at)


def _embedding(graph: Graph, layer: L.Embedding, x: Value, at: str) -> Value:
    W = to_numpy(layer.W)
    codes = graph.cast(x, "int64", at)
    if W.ndim == 3:  # rows of all members, one member's after another's
        P, V = W.shape[:2]
        own = len(x.shape) > 2
        if own and x.shape[-3] != P:
            raise ShapeError(
                f"`{WHERE}`: expected codes (N, K), or {P} batches of them, at the layer {at} of a "
                f"population of {P}, got {x.text()}"
            )
        first = V * np.arange(P).reshape(-1, *[1] * min(2, len(x.shape)))
        shape = x.shape if own else (P, *x.shape)
        first = graph.constant(f"{at}.first", first, "int64")
        codes = graph.node("Add", [codes, first], at, shape)
    table = graph.constant(f"{at}.W", W.reshape(-1, W.shape[-1]))
    return graph.node("Gather", [table, codes], at, (*codes.shape, W.shape[-1]))


def _embed_columns(graph: Graph, layer: L.EmbedColumns, x: Value, at: str) -> Value:
    if len(x.shape) < 2 or x.shape[-1] != layer.features:
        raise ShapeError(
            f"`{WHERE}`: expected {layer.features} features at the layer {at}, got {x.text()}; "
            "give input_shape=, the shape of one sample"
        )
    lead = with_members(x, () if layer.population is None else (layer.population,), at)
    parts = []
    for piece in layer.pieces:
        own = f"{at}.{piece.first}"
        count = piece.last - piece.first
        columns = graph.constant(f"{own}.columns", np.arange(piece.first, piece.last), "int64")
        part = graph.node("Gather", [x, columns], own, (*x.shape[:-1], count), axis=-1)
        size = piece.end - piece.begin
        if piece.layer is not None:
            part = graph.reshape(_embedding(graph, piece.layer, part, own), (*lead, size), own)
        elif lead != x.shape[:-1]:  # one batch for all members
            zeros = graph.constant(f"{own}.members", np.zeros((int(lead[0]), 1, 1)))
            part = graph.node("Add", [part, zeros], own, (*lead, size))
        parts.append(part)
    return graph.node("Concat", parts, at, (*lead, layer.pieces[-1].end), axis=-1)


def _periodic(graph: Graph, layer: L.Periodic, x: Value, at: str) -> Value:
    *members, F, K = layer.c.shape
    if len(x.shape) < 2 or x.shape[-1] != F:
        raise ShapeError(
            f"`{WHERE}`: expected {F} features at the layer {at}, got {x.text()}; "
            "give input_shape=, the shape of one sample"
        )
    lead = with_members(x, members, at)
    last = graph.constant(f"{at}.last", [-1], "int64")
    x = graph.node("Unsqueeze", [x, last], at, (*x.shape, 1))
    c = graph.constant(f"{at}.c", to_numpy(layer.c).reshape(*members, 1, F, K))
    turns = graph.node("Mul", [x, c], at, (*lead, F, K))
    part = graph.node("Sub", [turns, graph.node("Round", [turns], at)], at)
    angle = graph.node("Mul", [part, graph.constant(f"{at}.turn", 2.0 * math.pi)], at)
    waves = [graph.node(wave, [angle], at) for wave in ("Sin", "Cos")]
    y = graph.node("Concat", waves, at, (*lead, F, 2 * K), axis=-1)
    if layer.W is None:
        return graph.reshape(y, (*lead, F * 2 * K), at)
    E, axes = layer.W.shape[-1], [*range(len(lead) + 2)]
    axes[-3], axes[-2] = axes[-2], axes[-3]
    y = graph.node("Transpose", [y], at, (*lead[:-1], F, lead[-1], 2 * K), perm=axes)
    W = graph.constant(f"{at}.W", to_numpy(layer.W))
    y = graph.node("MatMul", [y, W], at, (*y.shape[:-1], E))
    b = graph.constant(f"{at}.b", to_numpy(layer.b)[..., None, :])
    y = graph.node("Relu", [graph.node("Add", [y, b], at)], at)
    y = graph.node("Transpose", [y], at, (*lead, F, E), perm=axes)
    return graph.reshape(y, (*lead, F * E), at)


def _mask(graph: Graph, layer: Mask, x: Value, at: str) -> Value:
    return graph.node("Mul", [x, graph.constant(f"{at}.mask", to_numpy(layer.mask))], at)


def _dropout(graph: Graph, layer: L.Dropout, x: Value, at: str) -> Value:
    return x


def _flatten(graph: Graph, layer: L.Flatten, x: Value, at: str) -> Value:
    kept = 1 if layer.axes is None else len(x.shape) - layer.axes
    joined = x.shape[max(kept, 0) :]
    if kept < 1 or BATCH in joined:
        raise ShapeError(
            f"`{WHERE}`: expected Flatten to leave the batch axis alone, got {x.text()} at the "
            f"layer {at}; give its axes=, the number of axes to join"
        )
    size = math.prod(int(length) for length in joined)
    return graph.reshape(x, (*x.shape[:kept], size), at)


def _unflatten(graph: Graph, layer: L.Unflatten, x: Value, at: str) -> Value:
    if x.shape[-len(layer.shape) :] == layer.shape:
        return x
    kept = axes_kept(x, math.prod(layer.shape), at)
    return graph.reshape(x, (*x.shape[:kept], *layer.shape), at)


def _residual(graph: Graph, layer: L.Residual, x: Value, at: str) -> Value:
    y = emit(graph, layer.inner, x, f"{at}.inner")
    if y.shape != x.shape:
        raise ShapeError(
            f"`{WHERE}`: expected the layer {at}.inner to keep the shape {x.text()}, got {y.text()}"
        )
    return graph.node("Add", [x, y], at)


EMITTERS: dict[type[Layer], Callable[..., Value]] = {
    L.Linear: _linear,
    L.SharedLinear: _shared_linear,
    L.PiecewiseLinear: _piecewise_linear,
    L.Matmul: _matmul,
    L.ReLU: _operator("Relu"),
    L.LeakyReLU: _operator("LeakyRelu", ("alpha", "slope")),
    L.ELU: _operator("Elu", ("alpha", "alpha")),
    L.GELU: _gelu,
    L.SiLU: _silu,
    L.SELU: lambda graph, layer, x, at: graph.node(
        "Selu", [x], at, alpha=SELU_ALPHA, gamma=SELU_SCALE
    ),
    L.CELU: _celu,
    L.Mish: _mish,
    L.Hardswish: _operator("HardSwish"),
    L.Tanh: _operator("Tanh"),
    L.Sigmoid: _operator("Sigmoid"),
    L.Softplus: _operator("Softplus"),
    L.Softsign: _operator("Softsign"),
    L.PReLU: gated.prelu,
    L.PReLU2D: gated.prelu,
    L.GLU: gated.glu,
    L.SwiGLU: gated.glu,
    L.Softmax: _operator("Softmax", ("axis", "axis")),
    L.LogSoftmax: _operator("LogSoftmax", ("axis", "axis")),
    L.Log: _log,
    L.Conv2D: images.convolution,
    L.MaxPool2D: images.pooling,
    L.AvgPool2D: images.pooling,
    L.GlobalAvgPool2D: images.global_pooling,
    L.BatchNorm2D: images.batch_norm,
    L.GroupNorm: images.group_norm,
    L.BatchNorm: _batch_norm,
    L.LayerNorm: _row_norm,
    L.RMSNorm: _row_norm,
    L.Dropout: _dropout,
    L.Embedding: _embedding,
    L.EmbedColumns: _embed_columns,
    L.Flatten: _flatten,
    L.Unflatten: _unflatten,
    L.Periodic: _periodic,
    L.Residual: _residual,
    Mask: _mask,
    MaskedLayerNorm: _row_norm,
    MaskedRMSNorm: _row_norm,
}
# By exact type: a subclass may compute something else.
