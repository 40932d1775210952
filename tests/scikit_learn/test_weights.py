"""Weights of rows and classes in the estimators, as scikit-learn has them."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_blobs, make_regression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as TheirClassifier

from xpmlp.errors import ConfigError
from xpmlp.sklearn import MLPClassifier, MLPRegressor
from xpmlp.sklearn.scaling import Moments
from xpmlp.training import TrainStep

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, LABELS = make_blobs(60, 4, centers=3, cluster_std=4.0, random_state=0)
NUMBERS = X[:, 0] - 2.0 * X[:, 1] + 1.0
RNG = np.random.default_rng(7)
WEIGHT = RNG.integers(0, 4, 60).astype(float)
REPEATED = np.repeat(np.arange(60), WEIGHT.astype(int))


def outputs(model, x):
    return model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.filterwarnings("ignore:.*all rows make one batch:UserWarning")
@pytest.mark.parametrize("options", [{"solver": "lbfgs"}, {"batch_size": 1000}])
def test_a_whole_number_is_so_many_rows(kind, options):
    y = LABELS if kind is MLPClassifier else NUMBERS
    given = {"hidden_layer_sizes": (5,), "max_iter": 12, "random_state": 0, "alpha": 0.3} | options
    one = kind(**given).fit(X, y, sample_weight=WEIGHT)
    other = kind(**given).fit(X[REPEATED], y[REPEATED])
    np.testing.assert_allclose(outputs(one, X), outputs(other, X), rtol=1e-6, atol=1e-8)
    assert one.loss_ == pytest.approx(other.loss_)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_weighted_steps_are_those_of_scikit_learn(solver):
    options = {
        "hidden_layer_sizes": (7, 5), "solver": solver, "alpha": 3.0, "batch_size": 60,
        "shuffle": False, "random_state": 0, "learning_rate_init": 0.01, "max_iter": 1,
    }  # fmt: skip
    weight = RNG.random(60) + 0.1
    ours = MLPClassifier(scale_inputs=False, **options).fit(X, LABELS)
    theirs = TheirClassifier(**options).fit(X, LABELS)
    for i, (W, b) in enumerate(zip(ours.coefs_, ours.intercepts_, strict=True)):
        theirs.coefs_[i], theirs.intercepts_[i] = W.copy(), b.copy()
    for estimator in (ours, theirs):
        estimator.set_params(warm_start=True, max_iter=5).fit(X, LABELS, sample_weight=weight)
    rtol = 1e-9 if solver == "sgd" else 1e-5  # their Adam adds epsilon elsewhere
    np.testing.assert_allclose(ours.loss_curve_[-5:], theirs.loss_curve_[-5:], rtol=rtol)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=100 * rtol)


def test_equal_weights_are_none_at_all():
    options = {"hidden_layer_sizes": 6, "early_stopping": True, "random_state": 0, "max_iter": 6}
    for kind, y in ((MLPClassifier, LABELS), (MLPRegressor, NUMBERS)):
        one, other = (kind(**options).fit(X, y, w) for w in (None, np.ones(60)))
        np.testing.assert_array_equal(outputs(one, X), outputs(other, X))


def test_rows_without_weight_are_as_if_not_there():
    weight = np.r_[np.zeros(20), np.ones(40)]
    spoilt = X.copy()
    spoilt[:20] = 1e9
    for kind, y in ((MLPClassifier, LABELS), (MLPRegressor, NUMBERS)):
        for stop in (False, True):
            options = {"hidden_layer_sizes": (6,), "early_stopping": stop, "random_state": 0}
            weighted = kind(max_iter=5, **options).fit(spoilt, y, weight)
            without = kind(max_iter=5, **options).fit(X[20:], y[20:])
            np.testing.assert_array_equal(outputs(weighted, X), outputs(without, X))
    labels = np.r_[np.full(20, 9), LABELS[20:]]
    assert 9 in MLPClassifier((4,), max_iter=1).fit(X, labels, weight).classes_


def test_early_stopping_scores_by_weights(monkeypatch):
    from xpmlp.sklearn import estimator

    kept, hold_out = [], estimator.hold_out

    def watched(*arguments):
        parts = hold_out(*arguments)
        kept.append(parts[1])
        return parts

    monkeypatch.setattr(estimator, "hold_out", watched)
    weight = RNG.random(60) + 0.05
    for kind, y in ((MLPClassifier, LABELS), (MLPRegressor, NUMBERS)):
        options = {"hidden_layer_sizes": (6,), "early_stopping": True, "random_state": 0}
        model = kind(max_iter=8, validation_fraction=0.3, **options).fit(X, y, weight)
        x_held, y_held, weights = kept[-1]
        if kind is MLPRegressor:
            y_held = model._targets.undo(y_held)[:, 0]
        score = model.score(x_held, y_held, sample_weight=weights)
        assert score == pytest.approx(model.best_validation_score_)
        assert score != pytest.approx(model.score(x_held, y_held))


def test_partial_fit_takes_weights():
    one = MLPClassifier((5,), random_state=0).partial_fit(X, LABELS, classes=[0, 1, 2])
    other = MLPClassifier((5,), random_state=0)
    other.partial_fit(X, LABELS, np.ones(60), [0, 1, 2])  # in scikit-learn's order
    np.testing.assert_array_equal(outputs(one, X), outputs(other, X))
    one.partial_fit(X, LABELS, WEIGHT)
    other.partial_fit(X, LABELS)
    assert not np.allclose(outputs(one, X), outputs(other, X))
    MLPRegressor(hidden_layer_sizes=(5,)).partial_fit(X, NUMBERS, WEIGHT)


def test_metadata_is_routed():
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier((4,), max_iter=2, random_state=0)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scores = cross_val_score(model, X, LABELS, params={"sample_weight": WEIGHT}, cv=3)
        assert np.isfinite(scores).all()
        search = GridSearchCV(model, {"alpha": [0.1, 1.0]}, cv=3)
        search.fit(X, LABELS, sample_weight=WEIGHT)
        model.set_partial_fit_request(sample_weight=True, classes=True)


@pytest.mark.parametrize(
    "weight",
    [np.zeros(60), -np.ones(60), np.ones(59), np.full(60, np.nan), np.ones((60, 1))],
)
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(ValueError, match=r"weight"):
        MLPClassifier((4,)).fit(X, LABELS, weight)


def test_class_weights_are_weights_of_rows():
    given = {"hidden_layer_sizes": (5,), "max_iter": 5, "random_state": 0}
    names = np.array(["a", "b", "c"])[LABELS]
    for kind, weight in ((LABELS, {0: 3.0}), (names, {"a": 3.0})):
        one = MLPClassifier(class_weight=weight, **given).fit(X, kind)
        other = MLPClassifier(**given).fit(X, kind, np.where(LABELS == 0, 3.0, 1.0))
        np.testing.assert_array_equal(outputs(one, X), outputs(other, X))
    rare = np.r_[np.zeros(50), np.ones(10)]
    one = MLPClassifier(class_weight="balanced", **given).fit(X, rare)
    other = MLPClassifier(**given).fit(X, rare, np.where(rare == 1, 3.0, 0.6))
    np.testing.assert_allclose(outputs(one, X), outputs(other, X), rtol=1e-9)
    both = MLPClassifier(class_weight={0: 2.0}, **given).fit(X, rare, WEIGHT)
    other = MLPClassifier(**given).fit(X, rare, WEIGHT * np.where(rare == 0, 2.0, 1.0))
    np.testing.assert_allclose(outputs(both, X), outputs(other, X), rtol=1e-9)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("classes", [2, 3])
def test_weights_are_taken_by_compiled_steps(monkeypatch, solver, classes):
    monkeypatch.setattr(TrainStep, "by_layers", lambda *_: pytest.fail("ran layer by layer"))
    options = {"hidden_layer_sizes": (4,), "max_iter": 2, "solver": solver, "random_state": 0}
    y = np.minimum(LABELS, classes - 1)
    model = MLPClassifier(class_weight="balanced", **options)
    assert np.isfinite(model.fit(X, y, sample_weight=WEIGHT).loss_)
    assert np.isfinite(MLPRegressor(**options).fit(X, NUMBERS, sample_weight=WEIGHT).loss_)


def test_class_weights_in_partial_fit():
    model = MLPClassifier((4,), class_weight={0: 2.0, 2: 5.0})
    few = LABELS < 2  # not every class comes in every call
    model.partial_fit(X[few], LABELS[few], classes=[0, 1, 2]).partial_fit(X, LABELS)
    with pytest.raises(ConfigError, match="partial_fit"):
        MLPClassifier((4,), class_weight="balanced").partial_fit(X, LABELS, classes=[0, 1, 2])


@pytest.mark.parametrize("weight", ["even", {7: 2.0}, [1.0, 2.0]])
def test_class_weights_that_are_none_are_refused(weight):
    with pytest.raises(ConfigError, match="class_weight"):
        MLPClassifier((4,), class_weight=weight).fit(X, LABELS)
    with pytest.raises(ConfigError, match="several labels"):
        MLPClassifier((4,), class_weight={0: 2.0}).fit(X, np.eye(3)[LABELS])


def test_weighted_moments_are_those_of_repeated_rows():
    one, other = Moments.of(X, WEIGHT), Moments.of(X[REPEATED])
    for name in ("count", "mean", "variance"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name))
    x, y = make_regression(50, 3, random_state=0)
    model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=1).fit(x, y, np.arange(50.0))
    assert model._targets.mean[0] == pytest.approx(np.average(y, weights=np.arange(50.0)))
