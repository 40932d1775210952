"""The rows that early stopping looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from ..errors import ConfigError


def hold_out(
    estimator: Any, X: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[Any, Any, tuple[Any, Any]]:
    """Inputs and targets to train on, and both to validate on.

    Raises
    ------
    ConfigError
        If there are too few rows for that.
    """
    try:
        X_train, X_val, y_train, y_val = train_test_split(
            X,
            targets,
            test_size=estimator.validation_fraction,
            random_state=seed,
            stratify=targets if targets.ndim == 1 else None,
        )
    except ValueError as error:
        raise ConfigError(
            f"`{type(estimator).__name__}.fit`: expected rows to hold out for early_stopping, of "
            f"every class at least one, got {str(error).rstrip('.')}; raise "
            "validation_fraction, add rows, or turn early_stopping off"
        ) from error
    if len(X_val) < 2:
        raise ConfigError(
            f"`{type(estimator).__name__}.fit`: expected at least 2 rows to validate on, got "
            f"{len(X_val)}; raise validation_fraction or turn early_stopping off"
        )
    return X_train, y_train, (X_val, y_val)
