"""Ready-made networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from . import ops
from .backend import Array, array_namespace, asarray, has_wide_types, to_numpy
from .data.dataset import check_finite
from .data.loader import as_array
from .errors import ConfigError, DataError, ShapeError
from .initializers import DEFAULT, DEFAULT_OUTPUT, Initializer
from .layers import (
    BatchNorm,
    Dropout,
    Layer,
    LayerNorm,
    Linear,
    PiecewiseLinear,
    RMSNorm,
    Sequential,
    SharedLinear,
)
from .layers.activations import ACTIVATIONS
from .layers.masked import Mask, MaskedLayerNorm, MaskedRMSNorm
from .layers.normalization import CONVENTIONS
from .memory_budget import bytes_to_make, check_fits
from .network_members import copy_members, take_members
from .network_options import (
    Sizes,
    check_can_share,
    check_inputs,
    check_sizes,
    options_of_one,
    options_of_some,
    plain,
)
from .ops.dropout import RATE, check_rates
from .ops.piecewise_linear import Columns, check_columns, count_codes
from .ops.shapes import check_choice
from .options import FLAG
from .random import as_generator
from .step import Evaluation

NORMALIZATIONS: dict[str, Callable[..., Layer]] = {
    "batchnorm": BatchNorm,
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
}
_MASKED = {"layernorm": MaskedLayerNorm, "rmsnorm": MaskedRMSNorm}
_NOT_ZERO_AT_ZERO = ("sigmoid", "softplus")
OUTPUTS = ("softmax", "sigmoid", "identity")


class FullyConnectedNet(Sequential):
    """Linear – [normalization] – activation – [dropout], repeated, and a last Linear.

    Parameters
    ----------
    sizes : sequence of int
        ``[784, 256, 128, 10]``: inputs, hidden widths, outputs. In a population a hidden width may
        be a list of P: ``[784, [32, 64, 64], 10]``. Narrow members are padded to the widest with
        units that stay exactly 0.
    activation : str
        A name in ``xpmlp.layers.activations.ACTIVATIONS`` (relu, gelu, …), or ``identity`` for
        none.
    normalization : {None, "batchnorm", "layernorm", "rmsnorm"}
        Between each hidden Linear and its activation.
    dropout : float or P floats
        The probability to drop, after each hidden activation.
    output : {"softmax", "sigmoid", "identity"}
        What the outputs mean, for ``predict`` and ``predict_proba``: logits of classes, of
        independent yes/no questions, or plain numbers (regression). ``forward`` gives them raw.
    init : str, float or Initializer, optional
        How weights start; by default ``"glorot_uniform"``, and ``"fan_in_uniform"`` in the last
        layer.
    bias_init : str, float or Initializer, optional
        How biases start; by default like the weights, but at 0 beside an ``init`` of another name.
        See :class:`xpmlp.layers.Linear` for both.
    bias : bool
    batchnorm : str
        The convention of batch normalization; see :class:`xpmlp.layers.BatchNorm`.
    population : int, optional
        P: train P networks at once. Outputs then have shape (P, N, M).
    shared : bool
        Whether the networks of a population have the matrices of their hidden layers in common,
        each with vectors of its own around them: see :class:`~xpmlp.layers.SharedLinear`. The last
        layer is each one's own. Not with ``columns`` or hidden widths of each member.
    seed : int or P ints
        Of the initial weights and dropout masks. For a population, s stands for s, s+1, …
    columns : sequence of (str, int), optional
        What the inputs are, each a number, a position among bins or a level: the first layer is
        then a :class:`~xpmlp.layers.PiecewiseLinear` of them.
    dtype : str

    Examples
    --------
    >>> model = FullyConnectedNet([784, 256, 128, 10], normalization="batchnorm", dropout=0.2)
    >>> logits = model.forward(x)                  # x (N, 784) or (N, 28, 28)
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        activation: str = "relu",
        normalization: str | None = None,
        dropout: float | Sequence[float] = 0.0,
        output: str = "softmax",
        init: str | float | Initializer | None = None,
        bias_init: str | float | Initializer | None = None,
        bias: bool = True,
        batchnorm: str = "torch",
        population: int | None = None,
        shared: bool = False,
        seed: int | Sequence[int] = 0,
        columns: Sequence[tuple[str, int]] | None = None,
        dtype: str = "float32",
    ):
        where = "FullyConnectedNet"
        if population is not None and (not isinstance(population, int) or population < 1):
            raise ConfigError(
                f"`{where}`: expected population to be None or an integer ≥ 1, got {population!r}"
            )
        sizes = check_sizes(sizes, population)
        check_choice(where, "activation", activation, (*ACTIVATIONS, "identity"))
        check_choice(where, "normalization", normalization, (None, *NORMALIZATIONS))
        check_choice(where, "output", output, OUTPUTS)
        widest = [size if isinstance(size, int) else max(size) for size in sizes]
        if columns is not None:
            columns = check_columns(where, columns)
            check_inputs(sizes, len(columns))
            widest[0] = count_codes(columns)
        if FLAG.check(where, "shared", shared):
            check_can_share(sizes, population, columns)
        elif population is not None:
            check_fits(where, population, bytes_to_make(widest), "while it is made")
        starts: dict[str, Any] = {"init": init, "bias_init": bias_init}
        hidden, last = (
            starts | {"bias": bias, "init": default if init is None else init}
            for default in (DEFAULT, DEFAULT_OUTPUT)
        )
        rng = as_generator(seed, population)
        common: dict[str, Any] = {"population": population, "dtype": dtype}
        dropout, seed = plain(RATE.check(where, "dropout", dropout)), plain(seed)
        check_rates(dropout, population)
        check_choice(where, "batchnorm", batchnorm, tuple(CONVENTIONS))
        rates = dropout if isinstance(dropout, list) else [dropout]
        layers: list[Layer] = []
        own: dict[str, Any] = hidden | common | {"rng": rng}
        for (inputs, outputs), widths in zip(pairwise(widest[:-1]), sizes[1:], strict=False):
            if shared:
                adapters = "ones" if layers else "signs"
                layers.append(SharedLinear(inputs, outputs, adapters=adapters, **own))
            else:
                layers.append(_affine(layers, columns, inputs, outputs, own))
            if normalization == "batchnorm":
                layers.append(BatchNorm(outputs, convention=batchnorm, **common))
            elif normalization is not None and isinstance(widths, list):
                layers.append(_MASKED[normalization](outputs, widths, dtype=dtype))
            elif normalization is not None:
                layers.append(NORMALIZATIONS[normalization](outputs, **common))
            if activation != "identity":
                layers.append(ACTIVATIONS[activation]())
            if activation in _NOT_ZERO_AT_ZERO and isinstance(widths, list):
                layers.append(Mask(outputs, widths, dtype=dtype))
            if any(rates):
                layers.append(Dropout(dropout, population=population, rng=rng))
            else:
                rng.spawn()  # the next layer starts the same with and without dropout
        layers.append(_affine(layers, columns, widest[-2], widest[-1], own | last))
        super().__init__(*layers)
        self.output = output
        self.dtype = dtype
        self.config: dict[str, Any] = {
            "sizes": sizes,
            "activation": activation,
            "normalization": normalization,
            "dropout": dropout,
            "output": output,
            **{
                name: start if isinstance(start, str | int | float) else None
                for name, start in starts.items()
            },
            "bias": bias,
            "batchnorm": batchnorm,
            "population": population,
            "shared": shared,
            "seed": seed,
            "columns": columns and [list(column) for column in columns],
            "dtype": dtype,
        }
        """Everything needed to build this network again: ``FullyConnectedNet(**model.config)``."""
        if any(isinstance(size, list) for size in sizes):
            options = self.config | starts
            single = (options_of_one(options, number) for number in range(len(rng.seeds)))
            take_members(self, [FullyConnectedNet(**each) for each in single])

    def member(self, number: int) -> FullyConnectedNet:
        """One member of a population as a plain network, with copies of its arrays.

        Parameters
        ----------
        number : int
            0 … P − 1; negative numbers count from the end.

        Returns
        -------
        FullyConnectedNet
            With the member's own widths, dropout rate and seed. It gives the predictions of the
            population's row ``number``, to rounding.

        Raises
        ------
        ConfigError
            If this is no population, or has no such member.
        """
        (number,) = self._check_members([number])
        if self.shared_params:
            return self.select([number]).separate().member(0)
        chosen = FullyConnectedNet(**options_of_one(self.config, number))
        copy_members(self, chosen, number)
        return chosen

    def select(self, members: Sequence[int]) -> FullyConnectedNet:
        """Some members of a population, in that order, as a smaller population with its own arrays.

        Parameters
        ----------
        members : sequence of int
            At least one.

        Raises
        ------
        ConfigError
            If this is no population, or has no such members.
        """
        numbers = self._check_members(members)
        chosen = FullyConnectedNet(**options_of_some(self.config, numbers))
        copy_members(self, chosen, numbers)
        return chosen

    def separate(self) -> FullyConnectedNet:
        """A population that predicts the same, and whose networks share nothing, with copies.

        Raises
        ------
        ConfigError
            If this is no population whose networks share matrices.
        """
        if not self.shared_params:
            raise ConfigError("`separate`: expected a population with shared=True, got another")
        options: dict[str, Any] = self.config | {"shared": False}
        apart = FullyConnectedNet(**options)
        for mine, theirs in zip(self.layers, apart.layers, strict=True):
            own = mine.separate() if isinstance(mine, SharedLinear) else mine
            theirs.load_state_dict(own.state_dict())
            theirs.set_counters(own.counters())
        return apart

    def _check_members(self, members: Sequence[int]) -> list[int]:
        P = self.population
        if P is None:
            raise ConfigError("`member`: expected a population, got a single network")
        numbers = [int(number) for number in members]
        if not numbers or not all(-P <= number < P for number in numbers):
            raise ConfigError(f"`member`: expected members in 0…{P - 1}, got {numbers or 'none'}")
        return [number % P for number in numbers]

    def predict_proba(self, x: Any, batch_size: int = 4096) -> Array:
        """Class probabilities.

        Parameters
        ----------
        x : array_like, shape (N, …)
            Put on the current backend, in the model's dtype.
        batch_size : int
            Rows at a time, to bound memory; in a population those of all members together.

        Returns
        -------
        array, shape (N, M), or (P, N, M) for a population

        Raises
        ------
        ConfigError
            For a network whose outputs are plain numbers.
        DataError
            If inputs on the host, or outputs, are not finite. Looking at outputs waits for the
            device.
        """
        if self.output == "identity":
            raise ConfigError(
                "`predict_proba`: expected a classifier, got output='identity'; use predict"
            )
        outputs = _finite("predict_proba", self.outputs(x, batch_size))
        return ops.sigmoid(outputs) if self.output == "sigmoid" else ops.softmax(outputs)

    def predict(self, x: Any, batch_size: int = 4096) -> Array:
        """Class numbers (N,) for softmax, 0/1 (N, M) for sigmoid, numbers (N, M) otherwise.

        With a population, the leading axis is P. Parameters and errors as in
        :meth:`predict_proba`.
        """
        outputs = self.outputs(x, batch_size)
        if self.output == "identity":
            return outputs
        xp = array_namespace(_finite("predict", outputs))
        if self.output == "softmax":
            return xp.argmax(outputs, axis=-1)
        return xp.astype(outputs > 0, xp.int64 if has_wide_types(xp) else xp.int32)

    def outputs(self, x: Any, batch_size: int = 4096) -> Array:
        """The raw outputs for x, in evaluation mode; parameters as in :meth:`predict_proba`."""
        batch_size = max(1, batch_size // (self.population or 1))
        x = as_array(x)
        if len(x.shape) < 2:
            raise ShapeError(
                f"`{type(self).__name__}`: expected x of shape (N, …), got {tuple(x.shape)}; "
                "a single sample is x[None]"
            )
        axis = 0
        if self.population is not None and x.ndim > 2 and x.shape[0] == self.population:
            axis = 1 if math.prod(x.shape[1:]) != self.config["sizes"][0] else 0
        evaluation, parts = Evaluation(self), []
        for start in range(0, x.shape[axis], batch_size):
            stop = min(start + batch_size, x.shape[axis])
            rows = x[start:stop, ...] if axis == 0 else x[:, start:stop, ...]
            if isinstance(rows, np.ndarray):
                check_finite(rows, f"{type(self).__name__}: x", first_row=start if axis == 0 else 0)
            parts.append(evaluation.outputs(asarray(rows, self.dtype)))
        if not parts:
            raise ShapeError(f"`{type(self).__name__}`: expected at least one sample, got none")
        if len(parts) == 1:
            return parts[0]
        return array_namespace(*parts).concat(parts, axis=0 if self.population is None else 1)

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


def _affine(
    before: Sequence[Layer], columns: Columns | None, inputs: int, outputs: int, options: dict
) -> Layer:
    """A fully connected layer; with columns, the first one is of these."""
    if before or columns is None:
        return Linear(inputs, outputs, **options)
    return PiecewiseLinear(columns, outputs, **options)


def _finite(where: str, outputs: Array) -> Array:
    """Outputs that a class may be read from; of NaN, class 0 would be."""
    xp = array_namespace(outputs)
    wrong = ~xp.isfinite(outputs)
    if bool(xp.any(wrong)):
        places = np.argwhere(to_numpy(xp.any(wrong, axis=-1)))
        raise DataError(
            f"`{where}`: expected finite outputs, got NaN or infinity in {len(places)} rows, the "
            f"first {places[0].tolist()}; check the inputs of that row, and that the network's "
            "parameters are finite"
        )
    return outputs


def _shape_text(shape: tuple[int, ...]) -> str:
    return "(N, " + ", ".join(str(size) for size in shape) + ")"
