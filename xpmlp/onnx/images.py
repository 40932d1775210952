"""How layers of images are written in ONNX operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import layers as L
from ..backend import Array, to_numpy
from ..errors import ConfigError, ShapeError
from .graph import Graph, Value
from .shapes import WHERE


def convolution(graph: Graph, layer: L.Conv2D, x: Value, at: str) -> Value:
    """``Conv``."""
    _check(layer, x, layer.W.shape[-3] * layer.groups, at)
    inputs = [x, graph.constant(f"{at}.W", to_numpy(layer.W))]
    if layer.b is not None:
        inputs.append(graph.constant(f"{at}.b", to_numpy(layer.b)))
    shape = _shape_after(layer, x)
    more = {"dilations": layer.dilation, "group": layer.groups}
    return graph.node("Conv", inputs, at, shape, **_windows(layer, layer.W.shape[-2:]), **more)


def pooling(graph: Graph, layer: Any, x: Value, at: str) -> Value:
    """``MaxPool`` or ``AveragePool``."""
    _check(layer, x, None, at)
    windows = _windows(layer, layer.size)
    if isinstance(layer, L.MaxPool2D):
        return graph.node("MaxPool", [x], at, _shape_after(layer, x), **windows)
    counted = int(layer.count_padding)
    shape = _shape_after(layer, x)
    return graph.node("AveragePool", [x], at, shape, **windows, count_include_pad=counted)


def global_pooling(graph: Graph, layer: L.GlobalAvgPool2D, x: Value, at: str) -> Value:
    """``GlobalAveragePool``."""
    _check(layer, x, None, at)
    return graph.node("GlobalAveragePool", [x], at, _shape_after(layer, x))


def batch_norm(graph: Graph, layer: L.BatchNorm2D, x: Value, at: str) -> Value:
    """Three plain operators, for the reason that BatchNorm's are."""
    _check(layer, x, layer.features, at)
    scale = to_numpy(layer.gamma) / np.sqrt(to_numpy(layer.running_var) + layer.eps)
    mean = graph.constant(f"{at}.mean", _each_channel(layer.running_mean))
    x = graph.node("Sub", [x, mean], at)
    x = graph.node("Mul", [x, graph.constant(f"{at}.scale", _each_channel(scale))], at)
    return graph.node("Add", [x, graph.constant(f"{at}.beta", _each_channel(layer.beta))], at)


def group_norm(graph: Graph, layer: L.GroupNorm, x: Value, at: str) -> Value:
    """``InstanceNormalization`` of the groups: ``GroupNormalization`` came with opset 18."""
    _check(layer, x, layer.features, at)
    shape, G = x.shape, layer.groups
    size = math.prod(int(n) for n in shape[1:]) // G
    x = graph.reshape(x, (shape[0], G, size), at)
    ones = graph.constant(f"{at}.ones", np.ones(G))
    zeros = graph.constant(f"{at}.zeros", np.zeros(G))
    x = graph.node("InstanceNormalization", [x, ones, zeros], at, epsilon=layer.eps)
    x = graph.reshape(x, shape, f"{at}.out")
    x = graph.node("Mul", [x, graph.constant(f"{at}.gamma", _each_channel(layer.gamma))], at)
    return graph.node("Add", [x, graph.constant(f"{at}.beta", _each_channel(layer.beta))], at)


def _windows(layer: Any, size: tuple[int, ...]) -> dict[str, Any]:
    """The attributes that convolution and pooling share."""
    pads = [*layer.padding, *layer.padding]
    return {"kernel_shape": list(size), "strides": list(layer.stride), "pads": pads}


def _check(layer: Any, x: Value, channels: int | None, at: str) -> None:
    if layer.population is not None:
        raise ConfigError(
            f"`{WHERE}`: expected one network, got a population of {layer.population} at the layer "
            f"{at}, and ONNX has no convolutions of several networks; take model.member(number)"
        )
    if len(x.shape) != 4 or channels not in (None, x.shape[1]):
        wanted = "C" if channels is None else channels
        raise ShapeError(
            f"`{WHERE}`: expected (N, {wanted}, H, W) at the layer {at}, got {x.text()}; give "
            "input_shape=, the shape of one sample"
        )


def _shape_after(layer: Any, x: Value) -> tuple[int | str, ...]:
    return (x.shape[0], *layer.output_shape(tuple(int(n) for n in x.shape[1:])))


def _each_channel(p: Array) -> np.ndarray:
    return to_numpy(p).reshape(-1, 1, 1)
