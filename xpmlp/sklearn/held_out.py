"""The rows that early stopping looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from ..errors import ConfigError


def hold_out(
    estimator: Any, data: Sequence[np.ndarray], seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What to train on and what to validate on, of inputs, targets and, where given, weights.

    Every class is spread evenly over both, where both have room for all of them.

    Raises
    ------
    ConfigError
        If there are too few rows for that.
    """
    targets, share = data[1], estimator.validation_fraction
    rows = len(targets)
    held = math.ceil(share * rows)
    if held < 2 or rows - held < 1:
        raise ConfigError(
            f"`{type(estimator).__name__}.fit`: expected at least 2 rows to validate on and one to "
            f"train on, got {held} and {rows - held} of n_samples={rows}: the validation set is "
            "too small; raise validation_fraction, add rows, or turn early_stopping off"
        )
    stratify = None
    if targets.ndim == 1:
        _, counts = np.unique(targets, return_counts=True)
        if counts.min() > 1 and len(counts) <= min(held, rows - held):
            stratify = targets
    parts: Any = train_test_split(*data, test_size=share, random_state=seed, stratify=stratify)
    return parts[::2], parts[1::2]
