"""What the parameters of an estimator may be."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..models import NORMALIZATIONS
from ..optim import OPTIMIZERS
from ..schedules import BY_NAME as SCHEDULES
from .network import ACTIVATION_NAMES, network_activation

DTYPES = ("float32", "float64")
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

    hidden: Any = estimator.hidden_layer_sizes
    hidden = hidden if np.iterable(hidden) else [hidden]
    whole = all(isinstance(size, int | np.integer) and size >= 1 for size in hidden)
    check(whole, "hidden_layer_sizes", "whole numbers ≥ 1")
    for name, choices in (
        ("activation", ACTIVATION_NAMES),
        ("solver", tuple(OPTIMIZERS)),
        ("learning_rate", tuple(SCHEDULES)),
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
    for name in ("max_iter", "n_iter_no_change"):
        value = getattr(estimator, name)
        check(isinstance(value, int | np.integer) and value >= 1, name, "a whole number ≥ 1")
    for name, low, high, expected in (
        ("alpha", 0.0, np.inf, "a finite number ≥ 0"),
        ("tol", 0.0, np.inf, "a finite number ≥ 0"),
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
        check(estimator.learning_rate == "constant", "learning_rate", "'constant' for partial_fit")


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
