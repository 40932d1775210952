"""scikit-learn's own checks of estimators, in six settings of ours."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from xpmlp.sklearn import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::sklearn.exceptions.ConvergenceWarning",
        "ignore::sklearn.exceptions.SkipTestWarning",
        "ignore:.*all rows make one batch:UserWarning",
    ),
]

SMALL = {"hidden_layer_sizes": (20,), "learning_rate_init": 0.01, "max_iter": 60}
SETTINGS = {
    "default": {},
    "small": SMALL,
    "early stopping": SMALL
    | {"solver": "sgd", "early_stopping": True, "learning_rate_init": 0.1, "max_iter": 200},
    "warm start": SMALL | {"warm_start": True},
    "torch": SMALL | {"backend": "torch"},
    "jax": SMALL | {"backend": "jax"},
}
ESTIMATORS = [
    kind(**options) for kind in (MLPClassifier, MLPRegressor) for options in SETTINGS.values()
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_contract(estimator, check):
    if estimator.backend is not None:
        pytest.importorskip(estimator.backend)
    check(estimator)
