"""Gates, and a rectifier with learned slopes, in ONNX operators."""

from __future__ import annotations

import numpy as np

from .. import layers as L
from .graph import Graph, Value
from .shapes import per_feature


def glu(graph: Graph, layer: L.GLU | L.SwiGLU, x: Value, at: str) -> Value:
    """One half of the features, times the sigmoid of a half."""
    *rows, last = x.shape
    features = int(last)
    shape = (*rows, *layer.output_shape((features,)))

    def half(name: str, first: int) -> Value:
        places = graph.constant(f"{at}.{name}", first + np.arange(features // 2), "int64")
        return graph.node("Gather", [x, places], at, shape, axis=len(shape) - 1)

    a, b = half("first", 0), half("second", features // 2)
    if isinstance(layer, L.GLU):
        return graph.node("Mul", [a, graph.node("Sigmoid", [b], at)], at)
    return graph.node("Mul", [graph.node("Mul", [a, graph.node("Sigmoid", [a], at)], at), b], at)


def prelu(graph: Graph, layer: L.PReLU, x: Value, at: str) -> Value:
    """``Relu(x) − a Relu(−x)``, for float64 and populations too."""
    a = per_feature(layer.a)
    if isinstance(layer, L.PReLU2D):  # over the pixels of each channel
        a = a[..., None, None]
    slopes = graph.constant(f"{at}.slope", a)
    below = graph.node("Relu", [graph.node("Neg", [x], at)], at)
    below = graph.node("Mul", [below, slopes], at)
    return graph.node("Sub", [graph.node("Relu", [x], at), below], at)
