"""What the parameters of an estimator may be."""

from __future__ import annotations

import inspect
import warnings
from numbers import Real
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..models import NORMALIZATIONS
from ..optim import OPTIMIZERS, SGD, Optimizer
from .network import ACTIVATION_NAMES, network_activation
from .rates import LEARNING_RATES, OF_SGD

LOSSES = ("squared_error", "poisson")
DTYPES = ("float32", "float64")
DECOUPLED = ("adamw", "muon", "lion")  # shrink the weights themselves
STEPS_PER_EPOCH = 3
"""As many batches make an epoch of few rows, where batches of 200 would make one or two."""
_ABOVE_0 = np.nextafter(0.0, 1.0)


def check_parameters(estimator: Any, incremental: bool) -> None:
    """Raise ConfigError naming the first parameter that is out of range.

    Parameters
    ----------
    estimator : BaseMLP
    incremental : bool
        Whether ``partial_fit`` was called, which some do not go with.
    """

    def check(fits: Any, name: str, expected: str) -> None:
        if not fits:
            raise ConfigError(
                f"`{type(estimator).__name__}`: expected {name} to be {expected}, got "
                f"{getattr(estimator, name)!r}"
            )

    if "loss" in vars(estimator):
        known = isinstance(estimator.loss, str) and estimator.loss in LOSSES
        check(known, "loss", f"one of {', '.join(LOSSES)} (sizes are hidden_layer_sizes=)")
    hidden: Any = estimator.hidden_layer_sizes
    hidden = hidden if np.iterable(hidden) else [hidden]
    whole = all(isinstance(size, int | np.integer) and size >= 1 for size in hidden)
    check(whole, "hidden_layer_sizes", "whole numbers ≥ 1")
    for name, choices in (
        ("activation", ACTIVATION_NAMES),
        ("solver", (*OPTIMIZERS, "lbfgs")),
        ("learning_rate", LEARNING_RATES),
        ("dtype", (None, *DTYPES)),
    ):
        check(getattr(estimator, name) in choices, name, f"one of {', '.join(map(str, choices))}")
    size = estimator.batch_size
    check(
        size == "auto" or (isinstance(size, int | np.integer) and size >= 1),
        "batch_size",
        "'auto' or a whole number ≥ 1",
    )
    flag = isinstance(estimator.scale_inputs, bool | np.bool_)
    check(flag, "scale_inputs", "True or False")
    for name in ("max_iter", "n_iter_no_change", "max_fun"):
        value = getattr(estimator, name)
        check(isinstance(value, int | np.integer) and value >= 1, name, "a whole number ≥ 1")
    for name, low, high, expected in (
        ("alpha", 0.0, np.inf, "a finite number ≥ 0"),
        ("tol", 0.0, np.inf, "a finite number ≥ 0"),
        ("power_t", 0.0, np.inf, "a finite number ≥ 0"),
        ("learning_rate_init", _ABOVE_0, np.inf, "a finite number > 0"),
        ("epsilon", _ABOVE_0, np.inf, "a finite number > 0"),
        ("validation_fraction", _ABOVE_0, 1.0, "a number between 0 and 1"),
        ("momentum", 0.0, 1.0, "a number in [0, 1)"),
        ("beta_1", 0.0, 1.0, "a number in [0, 1)"),
        ("beta_2", 0.0, 1.0, "a number in [0, 1)"),
        ("dropout", 0.0, 1.0, "a number in [0, 1)"),
    ):
        value = getattr(estimator, name)
        check(isinstance(value, Real) and low <= float(value) < high, name, expected)
    norm = (None, *NORMALIZATIONS)
    check(estimator.normalization in norm, "normalization", f"one of {', '.join(map(str, norm))}")
    if incremental:
        check(not estimator.early_stopping, "early_stopping", "False for partial_fit")
        stepwise = ("constant", *OF_SGD)
        names = ", ".join(map(repr, stepwise))
        check(estimator.learning_rate in stepwise, "learning_rate", f"{names} for partial_fit")
    if estimator.solver == "lbfgs":  # each evaluation would be of another loss
        check(estimator.dropout == 0.0, "dropout", "0 for lbfgs")


def with_first(init: Any, **parameters: Any) -> inspect.Signature:
    """A constructor's signature with more parameters before its own, and their defaults."""
    signature = inspect.signature(init)
    own, *rest = signature.parameters.values()
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    first = [inspect.Parameter(n, kind, default=value) for n, value in parameters.items()]
    return signature.replace(parameters=[own, *first, *rest])


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
            stacklevel=5,
        )
    return min(int(estimator.batch_size), rows)
