"""Export a trained network as ONNX, to run it where there is no Python.

The file holds what ``model.forward(x)`` computes in evaluation mode: dropout is gone, batch
normalization uses its running statistics. Only operators that ONNX has had since opset 17 are
written, so that old runtimes can read it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import layers as L
from ..backend import dtype_name
from ..ensemble import Ensemble
from ..errors import ConfigError, DTypeError, ShapeError
from ..files import write_atomically
from ..layers.base import Layer
from ..ops.shapes import check_choice
from .graph import BATCH, Graph, Value, import_onnx
from .layers import emit
from .shapes import WHERE

if TYPE_CHECKING:
    from ..data import Normalization

FLOATS = ("float16", "float32", "float64")
_LEAST = {"float16": 6e-8, "float32": 1e-37, "float64": 1e-300}
_ANY_SIZE = (
    L.Embedding,
    L.Conv2D,
    L.MaxPool2D,
    L.AvgPool2D,
    L.GlobalAvgPool2D,
    L.GroupNorm,
    L.BatchNorm2D,
    L.PReLU2D,
)
"""Layers that do not say how many codes a sample has, or how large an image is."""
INPUTS = (*FLOATS, "uint8", "int8", "int16", "uint16", "int32", "int64")


def export_onnx(
    model: Layer | Ensemble,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    normalization: Normalization | None = None,
    probabilities: bool = False,
    input_dtype: str | None = None,
) -> Path:
    """Write a network as an ONNX file that takes batches of any size.

    The graph has one input, ``input``, and one output, ``output`` (``probabilities`` if those were
    asked for). Weights keep the names they have in ``model.params``, and nodes start with the
    name of their layer.

    Parameters
    ----------
    model : Layer
        A FullyConnectedNet, Sequential, Residual, or any single layer of :mod:`xpmlp.layers`. A
        population becomes one graph: input (N, …) shared by all members, output (P, N, M). An
        :class:`~xpmlp.ensemble.Ensemble` becomes one graph with one answer: its probabilities, or
        the mean of its members' numbers, (N, M).
    path : path-like
        Where to write; by convention it ends in ``.onnx``. An existing file is replaced at once.
    input_shape : sequence of int, optional
        The shape of one sample, such as ``(28, 28)``. Default: ``(D,)`` of the first layer that
        has weights, or of an Unflatten before it. A network that starts with Matmul and has
        samples of one axis takes them as columns, (D, N).
    normalization : Normalization, optional
        Put before the network, ``(x - mean) / std``, so that the graph takes data as it was
        stored.
    probabilities : bool
        End with a softmax over classes, or with a sigmoid for ``output="sigmoid"``.
    input_dtype : str, optional
        What the input is given as, such as ``"uint8"`` for raw pixels. Default: the model's dtype.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ConfigError
        For a layer that is not of :mod:`xpmlp.layers`, or an option that does not fit the model.
    ShapeError
        If ``input_shape`` does not fit the layers or the normalization.
    DTypeError
        For parameters of a type other than float16, float32 and float64.
    CheckpointError
        If the file cannot be written; nothing is left behind then.
    MissingDependencyError
        Without the ``onnx`` library.

    Notes
    -----
    The constants of LeakyReLU and ELU are attributes, which ONNX keeps in float32 even in a
    float64 graph. Operators: https://onnx.ai/onnx/operators/.

    Examples
    --------
    >>> export_onnx(model, "digits.onnx", normalization=fitted, probabilities=True)
    """
    onnx = import_onnx()
    ensemble = model if isinstance(model, Ensemble) else None
    if isinstance(model, Ensemble):
        probabilities = probabilities or model.output != "identity"
        model = model.population
    if not isinstance(model, Layer):
        raise ConfigError(
            f"`{WHERE}`: expected a layer, a network or an Ensemble, got {type(model).__name__}; "
            "the network of a scikit-learn estimator is estimator.model_"
        )
    graph = Graph(onnx, _model_dtype(model))
    first, features = _first_weights(model)
    if input_shape is None:
        if features is None:
            raise ConfigError(
                f"`{WHERE}`: expected input_shape=, the shape of one sample, for a model whose "
                "weights do not say it; give it, such as input_shape=(784,)"
            )
        input_shape = (features,)
    sample = tuple(int(size) for size in input_shape)
    if not sample or min(sample) < 1:
        raise ShapeError(f"`{WHERE}`: expected input_shape of sizes ≥ 1, got {sample}")
    columns = len(sample) == 1 and isinstance(first, L.Matmul)
    shape = (*sample, BATCH) if columns else (BATCH, *sample)
    dtype = graph.dtype if input_dtype is None else input_dtype
    check_choice(WHERE, "input_dtype", dtype, INPUTS)

    x = graph.input("input", shape, dtype)
    if normalization is not None:
        x = _normalized(graph, x, normalization, sample, columns)
    y = emit(graph, model, x, "")
    if probabilities:
        y = _probabilities(graph, model, y)
    if ensemble is not None:
        y = _averaged(graph, ensemble, y)
    graph.output(y, "probabilities" if probabilities else "output")
    write_atomically(path, graph.finish())
    return Path(path)


def _normalized(
    graph: Graph, x: Value, normalization: Normalization, sample: tuple[int, ...], columns: bool
) -> Value:
    mean, std = normalization.arrays_for(np.empty((1, *sample), dtype=graph.dtype), graph.dtype)
    if columns:
        mean, std = np.reshape(mean, (-1, 1)), np.reshape(std, (-1, 1))
    at = "normalization"
    x = graph.node("Sub", [x, graph.constant(f"{at}.mean", mean)], at)
    return graph.node("Div", [x, graph.constant(f"{at}.std", std)], at)


def _probabilities(graph: Graph, model: Layer, y: Value) -> Value:
    kind = getattr(model, "output", "softmax")
    if kind == "identity":
        raise ConfigError(
            f"`{WHERE}`: expected a classifier for probabilities=True, got output='identity'; "
            "leave probabilities out"
        )
    if kind == "sigmoid":
        return graph.node("Sigmoid", [y], "probabilities")
    return graph.node("Softmax", [y], "probabilities", axis=-2 if y.shape[-1] == BATCH else -1)


def _averaged(graph: Graph, ensemble: Ensemble, y: Value) -> Value:
    """The members' (P, N, M) as the ensemble's (N, M)."""
    y = graph.node("ReduceMean", [y], "ensemble", y.shape[1:], axes=[0], keepdims=0)
    if ensemble.output != "softmax" or ensemble.temperature == 1.0:
        return y
    # As in calibration.temper; the bound keeps the logarithm of 0 finite.
    least = graph.constant("ensemble.least", _LEAST[graph.dtype])
    y = graph.node("Log", [graph.node("Max", [y, least], "ensemble")], "ensemble")
    inverse = graph.constant("ensemble.inverse_temperature", 1.0 / ensemble.temperature)
    return graph.node("Softmax", [graph.node("Mul", [y, inverse], "ensemble")], "ensemble", axis=-1)


def _first_weights(model: Layer) -> tuple[Layer | None, int | None]:
    """The first layer that fixes the number of inputs, and that number."""
    for _, layer in model.named_layers():
        if isinstance(layer, L.Linear | L.SharedLinear):
            return layer, layer.W.shape[-2]
        if isinstance(layer, L.PiecewiseLinear):
            return layer, len(layer.columns)
        if isinstance(layer, L.Matmul):
            return layer, layer.W.shape[-1]
        if isinstance(layer, L.Unflatten):
            return layer, math.prod(layer.shape)
        if isinstance(layer, _ANY_SIZE):
            break
        if isinstance(layer, L.Periodic):
            return layer, layer.c.shape[-2]
        if isinstance(layer, L.BatchNorm | L.LayerNorm | L.RMSNorm):
            return layer, layer.features
    return None, None


def _model_dtype(model: Layer) -> str:
    """The one dtype of all parameters; float32 if there are none."""
    dtypes = {dtype_name(p.dtype) for p in model.params.values()} or {"float32"}
    if len(dtypes) > 1 or not dtypes <= set(FLOATS):
        raise DTypeError(
            f"`{WHERE}`: expected all parameters in one of {', '.join(FLOATS)}, got "
            f"{', '.join(sorted(dtypes))}; make the model with one of these as dtype="
        )
    return dtypes.pop()
