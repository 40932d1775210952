"""What the parameters of an estimator may be."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from ..choices import HiddenActivation, NormalizationName, OptimizerName, ScheduleName
from ..errors import ConfigError
from ..ops.shapes import check_choice
from ..optim import OPTIMIZERS, SGD, Optimizer
from ..options import FLAG, Flag, Number
from .network import network_activation
from .rates import OF_SGD

Activation = Literal[HiddenActivation, "logistic"]
Solver = Literal[OptimizerName, "lbfgs"]
LearningRate = Literal[ScheduleName, "invscaling", "adaptive"]
RegressionLoss = Literal["squared_error", "poisson"]
Float = Literal["float32", "float64"]

LOSSES, DTYPES = get_args(RegressionLoss), get_args(Float)
DECOUPLED = ("adamw", "muon", "lion")  # shrink the weights themselves
STEPS_PER_EPOCH = 3
"""As many batches make an epoch of few rows, where batches of 200 would make one or two."""


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "activation": get_args(Activation),
    "solver": get_args(Solver),
    "learning_rate": get_args(LearningRate),
    "normalization": (None, *get_args(NormalizationName)),
    "dtype": (None, *DTYPES),
}
COUNT = Number("[1, inf)", whole=True)
_BOUNDS: dict[str, Number | Flag] = {
    **dict.fromkeys(("max_iter", "max_fun"), COUNT),
    **dict.fromkeys(("alpha", "tol", "power_t"), Number("[0, inf)")),
    **dict.fromkeys(("learning_rate_init", "epsilon"), Number("(0, inf)")),
    **dict.fromkeys(("momentum", "beta_1", "beta_2", "dropout"), Number("[0, 1)")),
    "validation_fraction": Number("(0, 1)"),
    **dict.fromkeys(("shuffle", "warm_start", "nesterovs_momentum"), FLAG),
    **dict.fromkeys(("early_stopping", "scale_inputs"), FLAG),
}


def check_parameters(estimator: Any, incremental: bool) -> None:
    """Raise ConfigError naming the first parameter that is out of range.

    Parameters
    ----------
    estimator : BaseMLP
    incremental : bool
        Whether ``partial_fit`` was called, which some do not go with.
    """
    where = type(estimator).__name__
    loss = vars(estimator).get("loss", LOSSES[0])
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ConfigError(
            f"`{where}`: expected loss to be one of {', '.join(LOSSES)} (sizes are "
            f"hidden_layer_sizes=), got {loss!r}"
        )
    check_sizes(where, estimator.hidden_layer_sizes)
    check_batch_size(where, estimator.batch_size)
    for name, choices in _CHOICES.items():
        check_choice(where, name, getattr(estimator, name), choices)
    for name, option in _BOUNDS.items():
        option.check(where, name, getattr(estimator, name))
    if estimator.n_iter_no_change != np.inf:  # which is: as long as max_iter
        COUNT.check(where, "n_iter_no_change", estimator.n_iter_no_change)
    if incremental and estimator.early_stopping:
        raise ConfigError(
            f"`{where}`: expected early_stopping to be False for partial_fit, got "
            f"{estimator.early_stopping!r}"
        )
    if incremental:
        check_choice(
            f"{where}.partial_fit", "learning_rate", estimator.learning_rate, ("constant", *OF_SGD)
        )
    if estimator.solver == "lbfgs" and estimator.dropout > 0:  # each loss would be another one
        raise ConfigError(
            f"`{where}`: expected dropout to be 0 for lbfgs, got {estimator.dropout!r}"
        )


def check_sizes(where: str, sizes: Any) -> None:
    """Raise ConfigError unless they are one width of a hidden layer, or a sequence of them."""
    several = isinstance(sizes, Sequence | np.ndarray) and getattr(sizes, "ndim", 1) > 0
    several = several and not isinstance(sizes, str | bytes)
    for size in sizes if several else [sizes]:
        COUNT.check(where, "hidden_layer_sizes", size)


def check_batch_size(where: str, size: Any) -> None:
    """Raise ConfigError unless it is "auto" or a number of rows."""
    if not isinstance(size, str) or size != "auto":
        Number("[1, inf)", whole=True, hint="or 'auto'").check(where, "batch_size", size)


def with_more(init: Any, first: Any = (), last: Any = ()) -> inspect.Signature:
    """A constructor's signature with more parameters and their defaults.

    Parameters
    ----------
    init : function
    first, last : dict of str to value
        Those that come before its own, also by their place, and those behind, by keyword alone.
    """
    signature, kinds = inspect.signature(init), inspect.Parameter
    own, *rest = signature.parameters.values()
    before, behind = (
        [kinds(name, kind, default=value) for name, value in dict(given).items()]
        for given, kind in ((first, kinds.POSITIONAL_OR_KEYWORD), (last, kinds.KEYWORD_ONLY))
    )
    return signature.replace(parameters=[own, *before, *rest, *behind])


def check_same_network(estimator: Any, config: dict[str, Any]) -> None:
    """Raise ConfigError if parameters ask for another network than training goes on with.

    Parameters
    ----------
    estimator : BaseMLP
    config : dict
        Of the network.
    """
    hidden = estimator.hidden_layer_sizes
    hidden = list(hidden) if np.iterable(hidden) else [hidden]
    for name, has, wanted in (
        ("hidden_layer_sizes", config["sizes"][1:-1], hidden),
        ("activation", config["activation"], network_activation(estimator.activation)),
        ("normalization", config["normalization"], estimator.normalization),
        ("dropout", config["dropout"], estimator.dropout),
        ("dtype", config["dtype"], estimator.dtype or config["dtype"]),
    ):
        if has != wanted:
            raise ConfigError(
                f"`{type(estimator).__name__}`: expected {name} {has!r}, as the network has that "
                f"training goes on with, got {wanted!r}; for another network call fit with "
                "warm_start=False"
            )


def optimizer_of(estimator: Any) -> Optimizer:
    """What an estimator's solver and its numbers stand for; the schedule comes with the data."""
    if estimator.solver == "lbfgs":
        return SGD(0.0)  # which changes nothing
    kind, options = OPTIMIZERS[estimator.solver], {}
    if hasattr(kind, "momentum"):
        options["momentum"] = estimator.momentum
        options["nesterov"] = estimator.nesterovs_momentum and estimator.momentum > 0
    if hasattr(kind, "beta1"):
        options |= {"beta1": estimator.beta_1, "beta2": estimator.beta_2}
    if hasattr(kind, "eps"):
        options["eps"] = estimator.epsilon
    if estimator.solver in DECOUPLED:
        options["weight_decay"] = estimator.alpha
    return kind(estimator.learning_rate_init, **options)


def batch_rows(estimator: Any, rows: int) -> int:
    """How many rows a minibatch has, of so many."""
    if isinstance(estimator.batch_size, str):
        return min(200, rows, max(32, -(-rows // STEPS_PER_EPOCH)))
    if estimator.batch_size > rows:
        warnings.warn(
            f"{type(estimator).__name__}: batch_size={estimator.batch_size} is more than the "
            f"{rows} rows there are; all rows make one batch",
            stacklevel=6,
        )
    return min(int(estimator.batch_size), rows)
