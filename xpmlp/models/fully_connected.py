"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from ..choices import (
    BiasInitializerName,
    Convention,
    FloatName,
    HiddenActivation,
    InitializerName,
    NormalizationName,
    Output,
)
from ..errors import ConfigError
from ..initializers import DEFAULT, DEFAULT_OUTPUT, Initializer
from ..layers import (
    BatchNorm,
    Dropout,
    Layer,
    LayerNorm,
    Linear,
    PiecewiseLinear,
    RMSNorm,
    SharedLinear,
)
from ..layers.activations import ACTIVATIONS
from ..layers.masked import Mask, MaskedLayerNorm, MaskedRMSNorm
from ..layers.normalization import CONVENTIONS
from ..memory_budget import bytes_to_make, check_fits
from ..network_members import copy_members, take_members
from ..network_options import (
    Sizes,
    check_can_share,
    check_inputs,
    check_sizes,
    options_of_one,
    options_of_some,
    plain,
)
from ..ops.dropout import RATE, check_rates
from ..ops.piecewise_linear import Columns, check_columns, count_codes
from ..ops.shapes import check_choice
from ..options import FLAG
from ..random import as_generator
from .network import OUTPUTS, Network

NORMALIZATIONS: dict[str, Callable[..., Layer]] = {
    "batchnorm": BatchNorm,
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
}
_MASKED = {"layernorm": MaskedLayerNorm, "rmsnorm": MaskedRMSNorm}
_NOT_ZERO_AT_ZERO = ("sigmoid", "softplus")


class FullyConnectedNet(Network):
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
        activation: HiddenActivation = "relu",
        normalization: NormalizationName | None = None,
        dropout: float | Sequence[float] = 0.0,
        output: Output = "softmax",
        init: InitializerName | float | Initializer | None = None,
        bias_init: BiasInitializerName | float | Initializer | None = None,
        bias: bool = True,
        batchnorm: Convention = "torch",
        population: int | None = None,
        shared: bool = False,
        seed: int | Sequence[int] = 0,
        columns: Sequence[tuple[str, int]] | None = None,
        dtype: FloatName = "float32",
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

    @classmethod
    def blank(cls, config: dict[str, Any]) -> FullyConnectedNet:
        """The network of a ``config`` with zeros for weights, which are to be replaced: nothing is
        drawn for it."""
        empty: dict[str, Any] = config | {"init": "zeros", "bias_init": "zeros"}
        network = cls(**empty)
        network.config |= {name: config[name] for name in ("init", "bias_init")}
        return network

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
        chosen = FullyConnectedNet.blank(options_of_one(self.config, number))
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
        chosen = FullyConnectedNet.blank(options_of_some(self.config, numbers))
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
        apart = FullyConnectedNet.blank(options)
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


def _affine(
    before: Sequence[Layer], columns: Columns | None, inputs: int, outputs: int, options: dict
) -> Layer:
    """A fully connected layer; with columns, the first one is of these."""
    if before or columns is None:
        return Linear(inputs, outputs, **options)
    return PiecewiseLinear(columns, outputs, **options)
