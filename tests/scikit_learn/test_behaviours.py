"""What people rely on in scikit-learn's networks, in ours."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn import neural_network as theirs
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from xpmlp.errors import ConfigError
from xpmlp.sklearn import MLPClassifier, MLPRegressor

X, LABELS = load_iris(return_X_y=True)
KINDS = [MLPClassifier, MLPRegressor]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["fit", "partial_fit", "predict", "score"])
def test_methods_take_what_scikit_learns_take(kind, method):
    ours, other = (
        list(inspect.signature(getattr(owner, method)).parameters)
        for owner in (kind, getattr(theirs, kind.__name__))
    )
    assert ours == other
    names = [set(owner().get_params()) for owner in (kind, getattr(theirs, kind.__name__))]
    assert names[1] <= names[0]


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("kind", KINDS)
def test_epochs_are_those_of_the_last_fit(kind, solver):
    model = kind(
        solver=solver, warm_start=True, max_iter=5, n_iter_no_change=np.inf, random_state=0
    )
    for most in (5, 8):
        with pytest.warns(ConvergenceWarning):
            model.set_params(max_iter=most).fit(X, LABELS)
        assert model.n_iter_ == most
    assert len(model.loss_curve_) == 13


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_patience_without_end():
    model = MLPClassifier((3,), tol=1e9, n_iter_no_change=np.inf, max_iter=30).fit(X, LABELS)
    assert model.n_iter_ == 30
    with pytest.raises(ConfigError, match="n_iter_no_change"):
        MLPClassifier(n_iter_no_change=-np.inf).fit(X, LABELS)


DISPATCHED = """
import warnings
import numpy, sklearn, torch
from sklearn.datasets import load_iris
from xpmlp.sklearn import MLPClassifier, MLPRegressor
warnings.simplefilter("ignore")
X, labels = load_iris(return_X_y=True)
x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(labels)
with sklearn.config_context(array_api_dispatch=True):
    model = MLPClassifier((5,), max_iter=5, random_state=0).fit(x, y)
    number = MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0).fit(x, y)
    for found in (model.predict(x), model.predict_proba(x), model.predict_log_proba(x)):
        assert isinstance(found, torch.Tensor) and found.shape[0] == 150, found
    assert isinstance(number.predict(x), torch.Tensor)
    assert 0.0 <= model.score(x, y) <= 1.0 and numpy.isfinite(number.score(x, y))
    named = MLPClassifier((5,), max_iter=2).fit(x, numpy.array(["a", "b", "c"])[labels])
    assert isinstance(named.predict(x), numpy.ndarray)  # torch has no text
assert isinstance(model.predict(x), numpy.ndarray)
"""


def test_predictions_are_of_the_library_of_the_inputs():
    pytest.importorskip("torch")  # SciPy looks at its variable once, when it is imported
    given = {**os.environ, "SCIPY_ARRAY_API": "1"}
    run = [sys.executable, "-c", DISPATCHED]
    done = subprocess.run(run, capture_output=True, text=True, env=given)
    assert done.returncode == 0, done.stderr
