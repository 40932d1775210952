"""What people rely on in scikit-learn's networks, in ours."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn import neural_network as theirs
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from xpmlp.errors import ConfigError, DataError
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
    assert model.predict(x).dtype == y.dtype and model.predict_proba(x).dtype == x.dtype
    whole = torch.round(x).to(torch.int64)
    assert 0.0 < float(model.predict_proba(whole).max()) < 1.0
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


BRIEF = {"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 0, "tol": 0}


def norm_of(model):
    return sum(float((W**2).sum()) for W in model.coefs_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
class TestTraining:
    def test_a_larger_penalty_leaves_smaller_weights(self):
        norms = [
            norm_of(MLPClassifier((6,), alpha=alpha, max_iter=40, random_state=0).fit(X, LABELS))
            for alpha in (0.0, 10.0, 100.0)
        ]
        assert norms[0] > norms[1] > norms[2]

    @pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
    def test_lbfgs_learns_with_every_activation(self, activation):
        options = {"solver": "lbfgs", "activation": activation, "max_iter": 150, "random_state": 1}
        assert MLPClassifier((20,), **options).fit(X, LABELS).score(X, LABELS) > 0.95
        target = X[:, 0] + 2 * X[:, 2]
        model = MLPRegressor(hidden_layer_sizes=(20,), **options).fit(X, target)
        assert model.score(X, target) > 0.98

    @pytest.mark.parametrize("kind", KINDS)
    def test_lbfgs_ends_at_its_number_of_evaluations(self, kind):
        options = {"hidden_layer_sizes": (20,), "solver": "lbfgs", "random_state": 0}
        few = kind(max_fun=5, **options).fit(X, LABELS)
        many = kind(max_fun=300, **options).fit(X, LABELS)
        assert few.n_iter_ <= 5 < many.n_iter_ and many.loss_ < few.loss_

    @pytest.mark.parametrize(
        "rate, falls", [("constant", False), ("adaptive", False), ("invscaling", True)]
    )
    def test_which_rates_have_fallen_at_a_warm_start(self, rate, falls, monkeypatch):
        rates = []
        record = MLPClassifier._record

        def watched(self, history, *rest):
            rates.append(history["lr"][0])
            record(self, history, *rest)

        monkeypatch.setattr(MLPClassifier, "_record", watched)
        model = MLPClassifier(
            (4,), solver="sgd", learning_rate=rate, power_t=0.25, max_iter=3, warm_start=True
        )
        model.fit(X, LABELS).fit(X, LABELS)
        assert (rates[1] < rates[0]) == falls and (falls or rates[0] == rates[1])

    @pytest.mark.parametrize("kind", KINDS)
    def test_fit_is_as_many_calls_of_partial_fit(self, kind):
        options = {"hidden_layer_sizes": (6,), "solver": "sgd", "random_state": 1}
        options |= {"shuffle": False, "max_iter": 20, "tol": 0, "learning_rate_init": 0.01}
        whole, part = kind(**options).fit(X, LABELS), kind(**options)
        classes = [[0, 1, 2]] if kind is MLPClassifier else []
        for _ in range(20):
            part.partial_fit(X, LABELS, None, *classes)
        np.testing.assert_allclose(whole.predict(X), part.predict(X), rtol=1e-9)

    def test_partial_fit_learns_classes_that_come_later(self):
        model = MLPClassifier((10,), learning_rate_init=0.02, random_state=3)
        model.partial_fit(X[:50], LABELS[:50], classes=[0, 1, 2])  # of class 0 alone
        for _ in range(60):
            model.partial_fit(X[50:], LABELS[50:])
        assert model.score(X[50:], LABELS[50:]) > 0.9

    def test_shuffled_rows_make_another_network(self):
        options = {"hidden_layer_sizes": (3,), "max_iter": 3, "batch_size": 20, "random_state": 0}
        fits = [
            MLPClassifier(shuffle=shuffle, **options).fit(X, LABELS).coefs_[0]
            for shuffle in (False, False, True, True)
        ]
        np.testing.assert_array_equal(fits[0], fits[1])
        np.testing.assert_array_equal(fits[2], fits[3])
        assert np.abs(fits[0] - fits[2]).max() > 1e-6

    @pytest.mark.parametrize("patience", [2, 6])
    def test_training_ends_after_so_many_epochs_without_improvement(self, patience):
        model = MLPClassifier((3,), tol=1e9, n_iter_no_change=patience, max_iter=30)
        assert model.fit(X, LABELS).n_iter_ == patience + 1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
class TestHoldingOut:
    def test_what_is_shown_of_it(self, kind):
        model = kind(early_stopping=True, **BRIEF).fit(X, LABELS)
        assert len(model.validation_scores_) == model.n_iter_ and model.best_loss_ is None
        assert model.best_validation_score_ == max(model.validation_scores_)
        model = kind(**BRIEF).fit(X, LABELS)
        assert model.validation_scores_ is None and model.best_validation_score_ is None
        assert model.best_loss_ == min(model.loss_curve_)

    def test_a_warm_start_adds_its_scores(self, kind):
        model = kind(early_stopping=True, warm_start=True, **BRIEF).fit(X, LABELS)
        first = list(model.validation_scores_)
        model.set_params(max_iter=3).fit(X, LABELS)
        assert model.validation_scores_[: len(first)] == first
        assert len(model.validation_scores_) == len(first) + model.n_iter_

    def test_names_of_columns_are_kept_without_a_warning(self, kind):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=list("abcd"))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = kind(early_stopping=True, **BRIEF).fit(frame, LABELS)
            model.predict(frame)
        assert model.feature_names_in_.tolist() == list("abcd")

    def test_weights_are_held_out_with_their_rows(self, kind):
        rng = np.random.default_rng(0)
        noise = np.where(rng.random(150) < 0.5, rng.permutation(LABELS), LABELS)
        weight = np.where(noise == LABELS, 1.0, 1e-6)
        options = BRIEF | {"max_iter": 60, "learning_rate_init": 0.02}
        model = kind(early_stopping=True, n_iter_no_change=60, **options)
        plain = model.fit(X, noise).best_validation_score_
        assert model.fit(X, noise, weight).best_validation_score_ > plain + 0.1


def test_labels_that_are_text_go_with_early_stopping():
    text = np.array(["setosa", "versicolor", "virginica"], dtype=object)[LABELS]
    model = MLPClassifier((8,), early_stopping=True, learning_rate_init=0.02, random_state=0)
    model.fit(X, text)
    assert set(model.predict(X)) <= set(text) and model.score(X, text) > 0.8


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_go_with_predictions(classes):
    rows = np.isin(LABELS, range(classes))
    model = MLPClassifier((5,), max_iter=20, random_state=0).fit(X[rows], LABELS[rows])
    found = model.predict_proba(X[rows])
    assert found.shape == (rows.sum(), classes)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_array_equal(found.argmax(axis=1), model.predict(X[rows]))
    np.testing.assert_allclose(np.log(found), model.predict_log_proba(X[rows]))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("labels", [LABELS % 2, LABELS + 1, [*LABELS[:-1], 3]])
def test_a_warm_start_is_for_the_same_classes(labels):
    model = MLPClassifier((4,), max_iter=3, warm_start=True, random_state=0).fit(X, LABELS)
    before = model.coefs_[0]
    with pytest.raises(DataError, match=r"classes of the last fit for warm_start, \[0, 1, 2\]"):
        model.fit(X, labels)
    np.testing.assert_array_equal(model.coefs_[0], before)
    assert model.set_params(warm_start=False).fit(X, labels).classes_.tolist() == sorted(
        set(labels)
    )
    some = MLPClassifier((4,)).partial_fit(X, LABELS, classes=[0, 1, 2])
    some.partial_fit(X[:50], LABELS[:50])  # which may lack some
