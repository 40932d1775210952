"""What the parameters of a table's estimator may be."""

from __future__ import annotations

from typing import Any

from ..models import ACTIVATIONS
from ..ops.shapes import check_choice
from ..options import FLAG, Flag, Number
from .parameters import COUNT, check_batch_size, check_sizes

_BOUNDS: dict[str, Number | Flag] = {
    **dict.fromkeys(("n_members", "folds"), Number("[2, inf)", whole=True)),
    **dict.fromkeys(("max_iter", "n_iter_no_change", "max_levels"), COUNT),
    "bins": Number("[0, inf)", whole=True),
    "learning_rate_init": Number("(0, inf)"),
    "alpha": Number("[0, inf)"),
    "dropout": Number("[0, 1)"),
    "time_limit": Number("(0, inf)", optional=True),
    "calibrate": FLAG,
}


def check_parameters(estimator: Any) -> None:
    """Raise ConfigError naming the first parameter that is out of range."""
    where = type(estimator).__name__
    check_sizes(where, estimator.hidden_layer_sizes)
    check_batch_size(where, estimator.batch_size)
    check_choice(where, "activation", estimator.activation, (*ACTIVATIONS, "identity"))
    for name, option in _BOUNDS.items():
        if hasattr(estimator, name):
            option.check(where, name, getattr(estimator, name))
