"""Ready-made networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from . import ops
from .backend import Array, array_namespace, asarray, has_wide_types
from .errors import ConfigError, ShapeError
from .initializers import Initializer
from .layers import (
    ELU,
    GELU,
    BatchNorm,
    Dropout,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    ReLU,
    RMSNorm,
    Sequential,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from .ops.shapes import check_choice
from .random import as_generator

ACTIVATIONS: dict[str, Callable[..., Layer]] = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SiLU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "softplus": Softplus,
}
NORMALIZATIONS: dict[str, Callable[..., Layer]] = {
    "batchnorm": BatchNorm,
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
}
OUTPUTS = ("softmax", "sigmoid", "identity")


class FullyConnectedNet(Sequential):
    """Linear – [normalization] – activation – [dropout], repeated, and a last Linear.

    Parameters
    ----------
    sizes : sequence of int
        ``[784, 256, 128, 10]``: inputs, hidden widths, outputs.
    activation : str
        One of ``relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, softplus``, or ``identity`` for
        none.
    normalization : {None, "batchnorm", "layernorm", "rmsnorm"}
        Between each hidden Linear and its activation.
    dropout : float or P floats
        The probability to drop, after each hidden activation.
    output : {"softmax", "sigmoid", "identity"}
        What the outputs mean, for ``predict`` and ``predict_proba``: logits of classes, of
        independent yes/no questions, or plain numbers (regression). ``forward`` gives them raw.
    init : str, float or Initializer, optional
        How weights start; by default He's for rectifiers and Glorot's for tanh and sigmoid.
    bias : bool
    batchnorm : str
        The convention of batch normalization; see :class:`xpmlp.layers.BatchNorm`.
    population : int, optional
        P: train P networks at once. Outputs then have shape (P, N, M).
    seed : int or P ints
        Of the initial weights and dropout masks. For a population, s stands for s, s+1, …
    dtype : str

    Examples
    --------
    >>> model = FullyConnectedNet([784, 256, 128, 10], normalization="batchnorm", dropout=0.2)
    >>> logits = model.forward(x)                  # x (N, 784) or (N, 28, 28)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str = "relu",
        normalization: str | None = None,
        dropout: float | Sequence[float] = 0.0,
        output: str = "softmax",
        init: str | float | Initializer | None = None,
        bias: bool = True,
        batchnorm: str = "torch",
        population: int | None = None,
        seed: int | Sequence[int] = 0,
        dtype: str = "float32",
    ):
        where = "FullyConnectedNet"
        sizes = [int(size) for size in sizes]
        if len(sizes) < 2 or min(sizes) < 1:
            raise ConfigError(
                f"`{where}`: expected at least an input and an output size, all ≥ 1, got {sizes}"
            )
        if population is not None and (not isinstance(population, int) or population < 1):
            raise ConfigError(
                f"`{where}`: expected population to be None or an integer ≥ 1, got {population!r}"
            )
        check_choice(where, "activation", activation, (*ACTIVATIONS, "identity"))
        check_choice(where, "normalization", normalization, (None, *NORMALIZATIONS))
        check_choice(where, "output", output, OUTPUTS)
        if init is None:
            init = (
                "glorot_uniform" if activation in ("tanh", "sigmoid", "identity") else "he_normal"
            )
        rng = as_generator(seed, population)
        common: dict[str, Any] = {"population": population, "dtype": dtype}
        dropout, seed = _plain(dropout), _plain(seed)
        rates = dropout if isinstance(dropout, list) else [dropout]
        layers: list[Layer] = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers.append(Linear(inputs, outputs, bias=bias, init=init, rng=rng, **common))
            if normalization == "batchnorm":
                layers.append(BatchNorm(outputs, convention=batchnorm, **common))
            elif normalization is not None:
                layers.append(NORMALIZATIONS[normalization](outputs, **common))
            if activation != "identity":
                layers.append(ACTIVATIONS[activation]())
            if any(rates):
                layers.append(Dropout(dropout, population=population, rng=rng))
            else:
                rng.spawn()  # the next layer starts the same with and without dropout
        layers.append(Linear(*sizes[-2:], bias=bias, init=init, rng=rng, **common))
        super().__init__(*layers)
        self.output = output
        self.dtype = dtype
        self.config: dict[str, Any] = {
            "sizes": sizes,
            "activation": activation,
            "normalization": normalization,
            "dropout": dropout,
            "output": output,
            "init": init if isinstance(init, str | int | float) else None,
            "bias": bias,
            "batchnorm": batchnorm,
            "population": population,
            "seed": seed,
            "dtype": dtype,
        }
        """Everything needed to build this network again: ``FullyConnectedNet(**model.config)``."""

    def predict_proba(self, x: Any, batch_size: int = 4096) -> Array:
        """Class probabilities.

        Parameters
        ----------
        x : array_like, shape (N, …)
            Put on the current backend, in the model's dtype.
        batch_size : int
            Rows at a time, to bound memory.

        Returns
        -------
        array, shape (N, M), or (P, N, M) for a population

        Raises
        ------
        ConfigError
            For a network whose outputs are plain numbers.
        """
        if self.output == "identity":
            raise ConfigError(
                "`predict_proba`: expected a classifier, got output='identity'; use predict"
            )
        outputs = self.outputs(x, batch_size)
        return ops.sigmoid(outputs) if self.output == "sigmoid" else ops.softmax(outputs)

    def predict(self, x: Any, batch_size: int = 4096) -> Array:
        """Class numbers (N,) for softmax, 0/1 (N, M) for sigmoid, numbers (N, M) otherwise.

        With a population, the leading axis is P. Parameters as in :meth:`predict_proba`.
        """
        outputs = self.outputs(x, batch_size)
        xp = array_namespace(outputs)
        if self.output == "softmax":
            return xp.argmax(outputs, axis=-1)
        if self.output == "identity":
            return outputs
        return xp.astype(outputs > 0, xp.int64 if has_wide_types(xp) else xp.int32)

    def outputs(self, x: Any, batch_size: int = 4096) -> Array:
        """The raw outputs for x, in evaluation mode, ``batch_size`` rows at a time."""
        if not hasattr(x, "shape"):
            x = np.asarray(x)
        if len(x.shape) < 2:
            raise ShapeError(
                f"`{type(self).__name__}`: expected x of shape (N, …), got {tuple(x.shape)}; "
                "a single sample is x[None]"
            )
        axis = 0
        if self.population is not None and x.ndim > 2 and x.shape[0] == self.population:
            axis = 1 if math.prod(x.shape[1:]) != self.config["sizes"][0] else 0
        parts = []
        for start in range(0, x.shape[axis], batch_size):
            rows = x[start : start + batch_size] if axis == 0 else x[:, start : start + batch_size]
            parts.append(self.forward(asarray(rows, self.dtype)))
        if not parts:
            raise ShapeError(f"`{type(self).__name__}`: expected at least one sample, got none")
        return parts[0] if len(parts) == 1 else array_namespace(*parts).concat(parts, axis=-2)

    def summary(self) -> str:
        """A table of the layers, the shapes of their outputs and their parameter counts."""
        shape: tuple[int, ...] = (self.config["sizes"][0],)
        rows = [("layer", "output", "parameters"), ("input", _shape_text(shape), "")]
        total = 0
        for number, layer in enumerate(self.layers):
            shape = layer.output_shape(shape)
            count = sum(math.prod(p.shape) for p in layer.params.values())
            total += count
            rows.append((f"{number} {layer!r}", _shape_text(shape), f"{count:,}" if count else ""))
        rows.append(("total", "", f"{total:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        layout = f"{{:<{widths[0]}}}  {{:<{widths[1]}}}  {{:>{widths[2]}}}"
        lines = [layout.format(*row).rstrip() for row in rows]
        rule = "-" * (sum(widths) + 4)
        text = "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
        return text + (f"\n{self.population} networks" if self.population else "")


def _plain(value: Any) -> Any:
    """A number or a list of numbers, as JSON can hold them, from a number, sequence or array."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, Sequence) else value


def _shape_text(shape: tuple[int, ...]) -> str:
    return "(N, " + ", ".join(str(size) for size in shape) + ")"
