"""A sample of every layer, loss and optimizer, and calls that reach each kernel.

Tests go through them, and so does ``xpmlp selfcheck``. What is added to the library is added here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import losses
from ..choices import FloatName
from ..layers import (
    CELU,
    ELU,
    GELU,
    GLU,
    AvgPool2D,
    BatchNorm,
    BatchNorm2D,
    Conv2D,
    Dropout,
    EmbedColumns,
    Embedding,
    Flatten,
    GlobalAvgPool2D,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    Log,
    LogSoftmax,
    Matmul,
    MaxPool2D,
    Periodic,
    PiecewiseLinear,
    PReLU,
    PReLU2D,
    Residual,
    RMSNorm,
    Sequential,
    SharedLinear,
    SiLU,
    Softmax,
    SwiGLU,
    Tanh,
    Unflatten,
)
from ..layers.activations import ACTIVATIONS
from ..random import Generator

N, D, P = 4, 6, 3
CHANNELS, HEIGHT, WIDTH = 4, 7, 5


def _matmul(dtype: FloatName) -> Layer:
    values = np.random.default_rng(0).normal(size=(5, N))
    return Matmul(values.astype(dtype))


def _piecewise(dtype: FloatName, **options: Any) -> Layer:
    columns = [("bins", 2), ("linear", 1), ("bins", 1), ("levels", 2), ("bins", 3), ("linear", 1)]
    return PiecewiseLinear(columns, 5, rng=0, dtype=dtype, **options)


def _batch_norm(dtype: FloatName, **options: Any) -> Layer:
    layer = BatchNorm(D, dtype=dtype, **options)
    layer.running_var = 1.5 * layer.running_var  # so that evaluation does something
    return layer


def _batch_norm_2d(dtype: FloatName, **options: Any) -> Layer:
    layer = BatchNorm2D(CHANNELS, dtype=dtype, **options)
    layer.running_var = 1.5 * layer.running_var
    return layer


LAYERS: dict[str, Callable[[FloatName], Layer]] = {
    "linear": lambda dtype: Linear(D, 5, rng=0, dtype=dtype),
    "linear-nobias": lambda dtype: Linear(D, 5, bias=False, rng=0, dtype=dtype),
    "linear-trailing": lambda dtype: Linear(N * D, 5, rng=0, dtype=dtype),
    "piecewise": lambda dtype: _piecewise(dtype),
    "matmul": _matmul,
    **{name: lambda dtype, kind=kind: kind() for name, kind in ACTIVATIONS.items()},
    "leaky": lambda dtype: LeakyReLU(0.2),
    "elu of 0.7": lambda dtype: ELU(0.7),
    "celu of 0.7": lambda dtype: CELU(0.7),
    "gelu-tanh": lambda dtype: GELU("tanh"),
    "prelu": lambda dtype: PReLU(D, dtype=dtype),
    "prelu-one": lambda dtype: PReLU(dtype=dtype),
    "glu": lambda dtype: GLU(),
    "swiglu": lambda dtype: SwiGLU(),
    "softmax": lambda dtype: Softmax(),
    "softmax-columns": lambda dtype: Softmax(axis=-2),
    "logsoftmax": lambda dtype: LogSoftmax(),
    "log": lambda dtype: Log(eps=3.0),
    "batchnorm": _batch_norm,
    "layernorm": lambda dtype: LayerNorm(D, dtype=dtype),
    "rmsnorm": lambda dtype: RMSNorm(D, dtype=dtype),
    "dropout": lambda dtype: Dropout(0.4, rng=0),
    "flatten": lambda dtype: Flatten(),
    "flatten-axes": lambda dtype: Flatten(axes=2),
    "unflatten": lambda dtype: Unflatten((3, 2)),
    "residual": lambda dtype: Residual(Linear(D, D, rng=0, dtype=dtype)),
    "sequential": lambda dtype: Sequential(
        Linear(D, 5, rng=0, dtype=dtype),
        BatchNorm(5, dtype=dtype),
        Tanh(),
        Dropout(0.3, rng=0),
        Residual(Sequential(Linear(5, 5, rng=1, dtype=dtype), SiLU())),
    ),
    "periodic": lambda dtype: Periodic(D, 3, scale=1.0, rng=0, dtype=dtype),
    "periodic-mapped": lambda dtype: Periodic(D, 3, dim=4, scale=1.0, rng=0, dtype=dtype),
    "embedding": lambda dtype: Embedding(5, 3, rng=0, dtype=dtype),
    "embedding-columns": lambda dtype: EmbedColumns(D, {1: (5, 3), 4: (7, 2)}, rng=0, dtype=dtype),
    "prelu-population": lambda dtype: PReLU(D, population=P, dtype=dtype),
    "linear-population": lambda dtype: Linear(D, 5, population=P, rng=0, dtype=dtype),
    "piecewise-population": lambda dtype: _piecewise(dtype, population=P),
    "batchnorm-population": lambda dtype: _batch_norm(dtype, population=P),
    "layernorm-population": lambda dtype: LayerNorm(D, population=P, dtype=dtype),
    "rmsnorm-population": lambda dtype: RMSNorm(D, population=P, dtype=dtype),
    "periodic-population": lambda dtype: Periodic(
        D, 3, dim=4, scale=1.0, population=P, rng=0, dtype=dtype
    ),
    "embedding-population": lambda dtype: Embedding(5, 3, population=P, rng=0, dtype=dtype),
    "embedding-columns-population": lambda dtype: EmbedColumns(
        D, {0: (5, 3)}, population=P, rng=0, dtype=dtype
    ),
    "shared-population": lambda dtype: SharedLinear(
        D, 5, adapters="signs", population=P, rng=0, dtype=dtype
    ),
    "shared-population-nobias": lambda dtype: SharedLinear(
        D, 5, population=P, bias=False, rng=0, dtype=dtype
    ),
    "image-conv": lambda dtype: Conv2D(CHANNELS, 6, 3, padding=1, rng=0, dtype=dtype),
    "image-conv-options": lambda dtype: Conv2D(
        CHANNELS, 6, (2, 3), stride=(2, 1), padding=(1, 2), dilation=2, groups=2, rng=0, dtype=dtype
    ),
    "image-conv-nobias": lambda dtype: Conv2D(
        CHANNELS, 6, 2, stride=3, bias=False, rng=0, dtype=dtype
    ),
    "image-maxpool": lambda dtype: MaxPool2D(2),
    "image-maxpool-overlapping": lambda dtype: MaxPool2D(3, stride=(2, 1), padding=1),
    "image-avgpool": lambda dtype: AvgPool2D((2, 3)),
    "image-avgpool-overlapping": lambda dtype: AvgPool2D(
        3, stride=2, padding=1, count_padding=False
    ),
    "image-globalavgpool": lambda dtype: GlobalAvgPool2D(),
    "image-batchnorm": lambda dtype: _batch_norm_2d(dtype),
    "image-prelu": lambda dtype: PReLU2D(CHANNELS, dtype=dtype),
    "image-groupnorm": lambda dtype: GroupNorm(2, CHANNELS, dtype=dtype),
    "image-conv-population": lambda dtype: Conv2D(
        CHANNELS, 6, 3, padding=1, groups=2, population=P, rng=0, dtype=dtype
    ),
    "image-batchnorm-population": lambda dtype: _batch_norm_2d(dtype, population=P),
    "image-prelu-population": lambda dtype: PReLU2D(CHANNELS, population=P, dtype=dtype),
    "image-groupnorm-population": lambda dtype: GroupNorm(2, CHANNELS, population=P, dtype=dtype),
    "dropout-population": lambda dtype: Dropout([0.1, 0.5, 0.0], population=P, rng=0),
}
MODES = (
    "image-batchnorm",
    "image-batchnorm-population",
    "batchnorm",
    "dropout",
    "sequential",
    "batchnorm-population",
    "dropout-population",
)
"""Layers that do something else in training."""


def shape_of(name: str) -> tuple[int, ...]:
    """The shape of a layer's input."""
    if "image" in name:
        image = (N, CHANNELS, HEIGHT, WIDTH)
        return (P, *image) if "population" in name else image
    return (P, N, D) if "trailing" in name or "population" in name or "axes" in name else (N, D)


def fixed_of(name: str) -> np.ndarray | None:
    """Which columns of x are codes, if any."""
    if "embedding" not in name:
        return None
    columns = {"embedding-columns": [1, 4], "embedding-columns-population": [0]}
    fixed = np.zeros(shape_of(name), bool)
    fixed[..., columns.get(name, slice(None))] = True
    return fixed


def input_of(name: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers away from kinks, and codes."""
    x, fixed = away_from_kinks(rng, shape_of(name)), fixed_of(name)
    return x if fixed is None else np.where(fixed, rng.integers(0, 5, x.shape), x)


def away_from_kinks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that are not near 0."""
    return rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.1, 2.0, size=shape)


ROWS, C = 6, 4  # of the outputs that losses are given

CLASSIFIERS: dict[str, Callable[..., losses.Loss]] = {
    "ce": losses.SoftmaxCrossEntropy,
    "ce-options": lambda **options: losses.SoftmaxCrossEntropy(
        label_smoothing=0.1, class_weights=[0.5, 1.0, 2.0, 1.5], z_loss=1e-2, **options
    ),
    "nll": losses.NLL,
    "nll-options": lambda **options: losses.NLL(
        ignore_index=1, class_weights=[0.5, 1.0, 2.0, 1.5], **options
    ),
    "hinge": losses.MulticlassHinge,
}
REGRESSIONS: dict[str, Callable[..., losses.Loss]] = {
    "mse": losses.MSE,
    "halfsse": losses.HalfSSE,
    "mae": losses.MAE,
    "huber": losses.Huber,
    "bce": losses.BCEWithLogits,
    "bce-options": lambda **options: losses.BCEWithLogits(
        pos_weight=[0.5, 1.0, 2.0, 1.5], ignore_index=0.5, **options
    ),
    "kl": losses.KLDivergence,
    "poisson": losses.PoissonNLL,
}
LOSSES = {**CLASSIFIERS, **REGRESSIONS}


def loss_inputs(
    name: str, rng: np.random.Generator, lead: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and targets that fit the loss."""
    outputs = 2.0 * rng.normal(size=(*lead, ROWS, C))
    if name in CLASSIFIERS:
        return outputs, rng.integers(C, size=(*lead, ROWS))
    targets = rng.uniform(0.05, 0.95, size=(*lead, ROWS, C))
    if name == "bce-options":
        targets[..., ::3, 1] = 0.5  # which is ignored
    return outputs, targets


def kernel_calls(rng: np.random.Generator) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments and options for each op that has a kernel, arrays of float32."""

    def array(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype("float32")

    def positive(*shape: int) -> np.ndarray:
        return (0.1 + rng.random(shape)).astype("float32")

    x, dy, y = array(40, 32), array(40, 24), array(40, 24)
    W, b, gamma, beta = array(32, 24), array(24), array(32), array(32)
    w, g, m, v = array(32, 24), array(32, 24), array(32, 24), positive(32, 24)
    adam = {"gain1": 0.1, "gain2": 0.01, "correction1": 0.2, "correction2": 0.02}
    columns = (("bins", 4), ("linear", 1), ("levels", 3))
    positions = np.stack(
        [4 * rng.random(40), rng.normal(size=40), rng.integers(-1, 3, 40)], axis=1
    ).astype("float32")
    return {
        "softmax_cross_entropy": ((array(40, 10), rng.integers(0, 10, 40)), {}),
        "matmul": ((array(16, 40, 32), array(16, 32, 24)), {}),
        "piecewise_linear": ((positions, array(8, 24), b), {"columns": columns}),
        "linear": ((x, W, b, "relu"), {}),
        "linear_backward": ((dy, x, W, y, "relu"), {}),
        "dropout": ((x, 0.4, Generator(3), 5), {}),
        "relu": ((x,), {}),
        "relu_backward": ((x, array(40, 32), array(40, 32)), {}),
        "sgd_update": ((w, g), {"lr": 0.1}),
        "momentum_update": ((w, g, m), {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        "adagrad_update": ((w, g, v), {"lr": 0.1, "eps": 1e-8}),
        "rmsprop_update": ((w, g, v), {"lr": 0.1, "gain": 0.1, "eps": 1e-8}),
        "adam_update": ((w, g, m, v), {"lr": 0.1, "eps": 1e-8, **adam}),
        "batch_norm": ((x, gamma, beta), {}),
        "batch_norm_backward": ((x, array(40, 32), gamma, beta, positive(32)), {}),
        "layer_norm": ((x, gamma, beta), {}),
        "layer_norm_backward": ((x, array(40, 32), gamma, array(40, 1), positive(40, 1)), {}),
        "gather_rows": (
            (x, rng.integers(0, 40, 16), array(32), positive(32)),
            {"dtype": "float32"},
        ),
    }
