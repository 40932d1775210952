"""What rows count for: their own weights times those of their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import _check_sample_weight

from ..errors import ConfigError
from .host import numbers_on_host


def checked_weights(estimator: Any, sample_weight: Any, rows: int) -> np.ndarray | None:
    """Weights (N,) in float64, none below 0 and one above; None stays None.

    Raises
    ------
    ValueError
        Of scikit-learn's own check.
    """
    if sample_weight is None:
        return None
    given = numbers_on_host(estimator, "sample_weight", sample_weight)
    like = np.empty((rows, 1))
    return _check_sample_weight(given, like, dtype=np.float64, ensure_non_negative=True)


def with_class_weights(
    estimator: Any, targets: np.ndarray, sample_weight: np.ndarray | None
) -> np.ndarray | None:
    """Weights times ``estimator.class_weight`` of each row's class.

    Parameters
    ----------
    estimator : classifier
        With ``class_weight`` and ``classes_``.
    targets : ndarray of int, shape (N,)
        Class numbers.
    sample_weight : ndarray, shape (N,), or None

    Raises
    ------
    ConfigError
        If ``class_weight`` is neither None, "balanced", nor weights by label.
    """
    if estimator.class_weight is None:
        return sample_weight
    wanted, present = estimator.class_weight, np.unique(targets)
    numbers = present if isinstance(wanted, str) else np.arange(len(estimator.classes_))
    each = np.ones(len(estimator.classes_))
    try:
        each[numbers] = compute_class_weight(
            wanted,
            classes=estimator.classes_[numbers],
            y=estimator.classes_[targets],
            sample_weight=sample_weight,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"`{type(estimator).__name__}`: expected class_weight to be None, 'balanced' or a dict "
            f"from labels to weights, got {estimator.class_weight!r} ({error})"
        ) from error
    weights = each[targets]
    return weights if sample_weight is None else weights * sample_weight
