"""What the parameters of a table's estimator may be."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..models import ACTIVATIONS


def check_parameters(estimator: Any) -> None:
    """Raise ConfigError naming the first parameter that is out of range."""

    def check(fits: bool, name: str, expected: str) -> None:
        if not fits:
            raise ConfigError(
                f"`{type(estimator).__name__}`: expected {name} to be {expected}, got "
                f"{getattr(estimator, name)!r}"
            )

    def whole(value: Any, least: int) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least

    for name, least in (
        ("n_members", 2),
        ("folds", 2),
        ("max_iter", 1),
        ("n_iter_no_change", 1),
        ("bins", 0),
        ("max_levels", 1),
    ):
        check(whole(getattr(estimator, name), least), name, f"a whole number ≥ {least}")
    hidden: Any = estimator.hidden_layer_sizes
    sizes = hidden if np.iterable(hidden) and not isinstance(hidden, str) else [hidden]
    check(all(whole(size, 1) for size in sizes), "hidden_layer_sizes", "whole numbers ≥ 1")
    names = (*ACTIVATIONS, "identity")
    check(estimator.activation in names, "activation", f"one of {', '.join(names)}")
    size = estimator.batch_size
    check(size == "auto" or whole(size, 1), "batch_size", "'auto' or a whole number ≥ 1")
    for name in ("learning_rate_init", "alpha"):
        value = getattr(estimator, name)
        low = np.nextafter(0.0, 1.0) if name == "learning_rate_init" else 0.0
        fits = isinstance(value, Real) and low <= float(value) < np.inf
        check(fits, name, f"a finite number {'≥' if low == 0.0 else '>'} 0")
    dropout = estimator.dropout
    fits = isinstance(dropout, Real) and 0.0 <= float(dropout) < 1.0
    check(fits, "dropout", "a number in [0, 1)")
    limit = estimator.time_limit
    fits = limit is None or (isinstance(limit, Real) and float(limit) > 0.0)
    check(fits, "time_limit", "None or seconds > 0")
