"""The estimators keep scikit-learn's contract, and learn as well as its own."""

from __future__ import annotations

import inspect
import io
import os
import pickle
import subprocess
import sys
import warnings
from typing import ClassVar

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import xpmlp
from xpmlp.errors import BackendError, ConfigError, DataError
from xpmlp.layers import BatchNorm, Dropout, ReLU
from xpmlp.optim import SGD
from xpmlp.sklearn import MLPClassifier, MLPRegressor
from xpmlp.sklearn.held_out import hold_out

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    # scikit-learn's own checks skip what does not apply (decision_function, array API).
    "ignore::sklearn.exceptions.SkipTestWarning",
)

# Small and quick, yet good enough for the accuracies that the checks ask for.
DTYPES = (None, "float32")
QUICK = {"hidden_layer_sizes": (20,), "learning_rate_init": 0.01, "max_iter": 60}


def only_to_rounding(estimator):
    """Weights and repeated rows are summed in another order, which the check has no room for."""
    return dict.fromkeys(
        (f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse"))
        if estimator.dtype == "float32"
        else (),
        "equal to the rounding of float32, where the check asks for that of float64",
    )


@parametrize_with_checks(
    [
        kind(**own, **QUICK)
        for kind in (MLPClassifier, MLPRegressor)
        for own in (*({"dtype": dtype} for dtype in DTYPES), {"solver": "lbfgs"})
    ],
    expected_failed_checks=only_to_rounding,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16.0, y, test_size=0.3, random_state=0, stratify=y)


@pytest.fixture(scope="module")
def blobs():
    X, y = make_classification(
        200, 8, n_informative=6, n_redundant=0, n_classes=3, class_sep=2.0, random_state=3
    )
    return X, y


def test_classifier_is_as_accurate_as_scikit_learns(digits):
    X_train, X_test, y_train, y_test = digits
    options = {"hidden_layer_sizes": (64,), "random_state": 0, "max_iter": 30, "batch_size": 64}
    theirs = TheirClassifier(**options).fit(X_train, y_train)
    for dtype in ("float32", "float64"):
        ours = MLPClassifier(dtype=dtype, **options).fit(X_train, y_train)
        assert ours.score(X_test, y_test) >= theirs.score(X_test, y_test) - 0.01
        assert ours.score(X_test, y_test) > 0.96
        assert ours.loss_curve_[-1] == pytest.approx(theirs.loss_curve_[-1], rel=0.5)


def test_regressor_is_as_accurate_as_scikit_learns():
    X, y = load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), (y - y.mean()) / y.std()
    parts = train_test_split(X, y, test_size=0.3, random_state=0)
    options = {"random_state": 0, "max_iter": 40, "alpha": 1.0, "learning_rate_init": 0.01}
    scores = []
    for kind in (MLPRegressor, TheirRegressor):
        model = kind(hidden_layer_sizes=(16,), batch_size=32, **options).fit(parts[0], parts[2])
        scores.append(model.score(parts[1], parts[3]))
    assert scores[0] >= scores[1] - 0.05
    assert scores[0] > 0.3


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_same_weights_take_the_same_steps_as_in_scikit_learn(solver, activation, blobs):
    X, y = blobs
    options = {
        "hidden_layer_sizes": (7, 5),
        "activation": activation,
        "solver": solver,
        "alpha": 3.0,  # large, so that a penalty counted otherwise would show
        "batch_size": 50,
        "learning_rate_init": 0.01,
        "momentum": 0.8,
        "shuffle": False,
        "random_state": 0,
        "max_iter": 5,
        "beta_1": 0.8,
        "beta_2": 0.95,
    }
    ours = MLPClassifier(scale_inputs=False, **options | {"max_iter": 1}).fit(X, y)
    ours.set_params(warm_start=True)
    theirs = TheirClassifier(**options | {"max_iter": 1}).fit(X, y).set_params(warm_start=True)
    for i, (W, b) in enumerate(zip(ours.coefs_, ours.intercepts_, strict=True)):
        theirs.coefs_[i], theirs.intercepts_[i] = W.copy(), b.copy()
    for estimator in (ours, theirs):
        estimator.set_params(max_iter=5).fit(X, y)
    # Their Adam adds epsilon before its bias correction, ours after: 1e-8 more or less.
    rtol = 1e-9 if solver == "sgd" else 1e-6
    np.testing.assert_allclose(ours.loss_curve_[-5:], theirs.loss_curve_[-5:], rtol=rtol)
    for name in ("coefs_", "intercepts_"):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            np.testing.assert_allclose(mine, other, rtol=100 * rtol, atol=rtol)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=100 * rtol)


def test_regressor_takes_the_same_steps_as_scikit_learns():
    X, y = make_regression(120, 5, noise=1.0, random_state=0)
    y = (y - y.mean()) / y.std()  # or ours would train on another target than theirs
    options = {"batch_size": 30, "shuffle": False, "random_state": 0, "alpha": 1.0, "max_iter": 1}
    ours, theirs = (
        kind(hidden_layer_sizes=(6,), **options).fit(X, y).set_params(warm_start=True, max_iter=4)
        for kind in (MLPRegressor, TheirRegressor)
    )
    theirs.coefs_ = [W.copy() for W in ours.coefs_]
    theirs.intercepts_ = [b.copy() for b in ours.intercepts_]
    ours.fit(X, y)
    theirs.fit(X, y)
    np.testing.assert_allclose(ours.loss_curve_[-4:], theirs.loss_curve_[-4:], rtol=1e-6)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-5, atol=1e-6)


def test_invscaling_takes_the_same_steps_as_in_scikit_learn(blobs):
    X, y = blobs
    options = {
        "hidden_layer_sizes": (7,),
        "solver": "sgd",
        "momentum": 0.0,  # theirs is of steps, so that a lowered rate acts later
        "learning_rate": "invscaling",
        "learning_rate_init": 0.5,
        "power_t": 0.3,
        "batch_size": 50,
        "shuffle": False,
    }
    ours, theirs = (kind(**options) for kind in (MLPClassifier, TheirClassifier))
    for estimator in (ours, theirs):
        estimator.partial_fit(X, y, classes=np.unique(y))
    theirs.coefs_ = [W.copy() for W in ours.coefs_]
    theirs.intercepts_ = [b.copy() for b in ours.intercepts_]
    for _ in range(3):
        ours.partial_fit(X, y)
        theirs.partial_fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    np.testing.assert_allclose(ours.loss_curve_[1:], theirs.loss_curve_[1:], rtol=1e-9)
    whole = MLPClassifier(**options, max_iter=3).fit(X, y)
    rates = [whole._optimizer.schedule(step) for step in (0, 3, 4, 8)]  # four batches an epoch
    np.testing.assert_allclose(rates, [1.0, 1.0, 201**-0.3, 401**-0.3])


def test_adaptive_lowers_the_rate_and_then_stops(blobs):
    options = {"learning_rate": "adaptive", "n_iter_no_change": 2, "tol": 10.0}
    model = MLPClassifier((4,), solver="sgd", learning_rate_init=1e-4, **options).fit(*blobs)
    # The first epoch is an improvement on nothing; then 2 for each of 1e-4 … 1e-4/5³ > 1e-6 and
    # for the first rate below it.
    assert model.n_iter_ == 1 + 2 * 4
    np.testing.assert_allclose(model._optimizer.lr, 1e-4 / 5**3)
    model = MLPClassifier((4,), solver="adam", learning_rate_init=1e-4, **options).fit(*blobs)
    assert model.n_iter_ == 3 and model._optimizer.lr == 1e-4


def test_lbfgs_finds_the_minimum_that_scikit_learns_finds():
    X, y = make_regression(120, 5, noise=20.0, random_state=0)
    y = (y - y.mean()) / y.std()
    options = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 20.0, "tol": 1e-9}
    ours, theirs = (kind(**options).fit(X, y) for kind in (MLPRegressor, TheirRegressor))
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-3)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=1e-6)
    assert ours.loss_curve_[0] > ours.loss_curve_[-1]
    assert 0 < len(ours.loss_curve_) == ours.n_iter_


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_lbfgs_learns_on_every_library(library, blobs):
    pytest.importorskip(library)
    X, y = blobs
    options = {"solver": "lbfgs", "random_state": 0, "early_stopping": True, "batch_size": 7}
    model = MLPClassifier((20,), dtype="float32", backend=library, **options).fit(X, y)
    assert model.score(X, y) > 0.97
    assert model.validation_scores_ is None  # all rows are trained on, in one batch


def counts():
    """Rows and Poisson counts, whose rate is exp of a linear function."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    return X, rng.poisson(np.exp(0.5 + X @ [0.6, -0.4, 0.2])).astype(float)


def test_poisson_finds_the_minimum_that_scikit_learns_finds():
    X, y = counts()
    options = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 5.0, "tol": 1e-9}
    theirs = TheirRegressor("poisson", **options).fit(X, y)
    ours = MLPRegressor("poisson", **options).fit(X, y)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-3)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-3)
    assert ours.out_activation_ == theirs.out_activation_ == "exp"


def test_poisson_by_batches_and_with_a_hold_out():
    X, y = counts()
    model = MLPRegressor("poisson", (16,), early_stopping=True, random_state=0, max_iter=400)
    model.fit(X, y)
    assert model.score(X, y) > 0.3 and (model.predict(X) > 0).all()
    held_out = 1 - np.sum((y - model.predict(X)) ** 2) / np.sum((y - y.mean()) ** 2)
    assert model.best_validation_score_ == pytest.approx(held_out, abs=0.25)
    with pytest.raises(ValueError, match="expected targets ≥ 0, got -1"):
        MLPRegressor("poisson").fit(X, y - 1)
    with pytest.raises(ConfigError, match="expected the loss that training began with"):
        model.set_params(loss="squared_error", warm_start=True).fit(X, y)
    with pytest.raises(ConfigError, match=r"sizes are hidden_layer_sizes="):
        MLPRegressor((30,)).fit(X, y)


def test_lbfgs_has_no_partial_fit_and_takes_no_dropout(blobs):
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    assert hasattr(MLPRegressor(solver="sgd"), "partial_fit")
    with pytest.raises(ConfigError, match="expected dropout to be 0 for lbfgs"):
        MLPClassifier(solver="lbfgs", dropout=0.1).fit(*blobs)
    with pytest.warns(ConvergenceWarning, match="reached max_iter=2"):
        MLPClassifier(solver="lbfgs", max_iter=2).fit(*blobs)


def test_pipeline_grid_search_and_cross_validation(blobs):
    X, y = blobs
    model = make_pipeline(StandardScaler(), MLPClassifier(**QUICK, random_state=0))
    assert cross_val_score(model, X, y, cv=3).mean() > 0.8
    search = GridSearchCV(
        model,
        {"mlpclassifier__alpha": [1e-4, 1e-2], "mlpclassifier__dropout": [0.0, 0.2]},
        cv=2,
    ).fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_estimator_.score(X, y) > 0.8


def test_clone_copies_parameters_and_nothing_else(blobs):
    model = MLPClassifier((5,), dropout=0.2, backend="numpy", max_iter=2).fit(*blobs)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(blobs[0])


def test_string_labels_and_the_order_of_columns(blobs):
    X, y = blobs
    names = np.array(["pear", "apple", "fig"])[y]
    model = MLPClassifier(**QUICK, random_state=0).fit(X, names)
    assert model.classes_.tolist() == ["apple", "fig", "pear"]
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (200, 3)
    np.testing.assert_array_equal(model.predict(X), model.classes_[probabilities.argmax(axis=1)])
    assert log_loss(names, probabilities, labels=model.classes_) < 0.5
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(probabilities))
    assert model.out_activation_ == "softmax"


def test_multilabel_targets(rng):
    X = rng.normal(size=(300, 4))
    Y = np.stack([X[:, 0] > 0, X[:, 1] + X[:, 2] > 0, X[:, 3] > 1], axis=1).astype(int)
    model = MLPClassifier(**QUICK, random_state=0).fit(X, Y)
    predicted = model.predict(X)
    assert predicted.shape == Y.shape
    assert (predicted == Y).mean() > 0.95
    np.testing.assert_array_equal(predicted, model.predict_proba(X) > 0.5)
    assert model.out_activation_ == "logistic"
    stopped = MLPClassifier(**QUICK, early_stopping=True, random_state=0).fit(X, Y)
    # Minus the binary cross-entropy: better than that of a coin, worse than perfect.
    assert -np.log(2) < stopped.best_validation_score_ == max(stopped.validation_scores_) < 0
    with pytest.raises(DataError, match="3 labels a row, got 2"):
        model.partial_fit(X, Y[:, :2])
    with pytest.raises(DataError, match="kind seen before"):
        model.partial_fit(X, Y[:, 0])


def test_several_targets(rng):
    X = rng.normal(size=(300, 4))
    Y = np.stack([X[:, 0], X[:, 1] * X[:, 2], X.sum(axis=1)], axis=1)
    model = MLPRegressor(hidden_layer_sizes=(30,), learning_rate_init=0.01, random_state=0).fit(
        X, Y
    )
    assert model.predict(X).shape == (300, 3)
    assert model.score(X, Y) > 0.95
    assert model.predict(X).dtype == np.float64
    assert MLPRegressor(**QUICK).fit(X, Y[:, 0]).predict(X).shape == (300,)
    with pytest.warns(DataConversionWarning):
        column = MLPRegressor(**QUICK).fit(X, Y[:, :1])
    assert column.predict(X).shape == (300,)
    with pytest.raises(DataError, match="3 targets"):
        model.partial_fit(X, Y[:, :2])


def test_data_frames_keep_their_column_names(blobs):
    X, y = blobs
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(8)])
    model = MLPClassifier(**QUICK).fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[frame.columns[::-1]])


def test_partial_fit_is_one_epoch_and_goes_on(blobs):
    X, y = blobs
    model = MLPClassifier((10,), learning_rate_init=0.01, batch_size=50, random_state=0)
    model.partial_fit(X[:100], y[:100], classes=[0, 1, 2, 3])
    assert model.predict_proba(X).shape == (200, 4)
    before = model.coefs_[0].copy()
    for _ in range(30):
        model.partial_fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == 31
    assert model.t_ == 100 + 30 * 200
    assert model._optimizer.steps == 2 + 30 * 4
    assert not np.array_equal(model.coefs_[0], before)
    assert model.score(X, y) > 0.8


class RecordedSGD(SGD):
    """Remembers the gradients of its batches."""

    seen: ClassVar[list] = []

    def update(self, params, grads, weights=None):
        self.seen.append({name: np.array(g) for name, g in grads.items()})
        return super().update(params, grads, weights)


@pytest.mark.parametrize("shuffle", [True, False])
def test_partial_fit_shuffles_anew_in_every_call(blobs, monkeypatch, shuffle):
    X, y = blobs
    monkeypatch.setattr(RecordedSGD, "seen", [])
    # Steps of next to nothing: gradients differ only by the rows in the batch.
    make = "xpmlp.sklearn.estimator.optimizer_of"
    monkeypatch.setattr(make, lambda estimator: RecordedSGD(1e-12))
    model = MLPClassifier((10,), batch_size=20, random_state=0, solver="sgd", shuffle=shuffle)
    for _ in range(2):
        model.partial_fit(X, y, classes=[0, 1, 2])
    difference = RecordedSGD.seen[0]["0.W"] - RecordedSGD.seen[10]["0.W"]
    assert (np.abs(difference).max() > 1e-3) == shuffle


def test_partial_fit_needs_to_know_the_classes(blobs):
    X, y = blobs
    with pytest.raises(ConfigError, match="classes="):
        MLPClassifier().partial_fit(X, y)
    model = MLPClassifier((4,)).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(DataError, match=r"classes of the first call, \[0, 1, 2\], got \[0, 1\]"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(DataError, match=r"labels among \[0, 1, 2\], got \[7\]"):
        model.partial_fit(X[:2], [1, 7])
    with pytest.raises(ConfigError, match="early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ConfigError, match="learning_rate"):
        MLPRegressor(learning_rate="cosine").partial_fit(X, y)


def test_warm_start_goes_on_and_a_cold_one_starts_again(blobs):
    X, y = blobs
    model = MLPClassifier((10,), random_state=0, max_iter=5, tol=0).fit(X, y)
    curve = list(model.loss_curve_)
    assert model.fit(X, y).loss_curve_ == curve
    model.set_params(warm_start=True).fit(X, y)
    assert len(model.loss_curve_) == 10
    assert model.loss_curve_[5] < curve[-1]


def test_early_stopping_keeps_the_best_weights(digits, monkeypatch):
    X_train, X_test, y_train, y_test = digits
    held_out = []

    def watched(*arguments):
        parts = hold_out(*arguments)
        held_out.extend(parts[1])
        return parts

    monkeypatch.setattr("xpmlp.sklearn.estimator.hold_out", watched)
    model = MLPClassifier(
        (32,), early_stopping=True, random_state=0, learning_rate_init=0.02, n_iter_no_change=5
    )
    model.fit(X_train, y_train)
    X_held, y_held = held_out
    assert len(X_held) == pytest.approx(0.1 * len(X_train), abs=1)
    assert model.score(X_held, y_held) == pytest.approx(model.best_validation_score_)
    assert model.best_validation_score_ > model.validation_scores_[-1]
    assert len(model.validation_scores_) == model.n_iter_ < model.max_iter
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.best_loss_ is None
    assert model.score(X_test, y_test) > 0.93
    regressor = MLPRegressor(
        "squared_error",
        (10,),
        early_stopping=True,
        random_state=0,
        learning_rate_init=0.01,
        max_iter=30,
    ).fit(X_train[:300], y_train[:300])
    assert regressor.best_validation_score_ == max(regressor.validation_scores_)


def test_training_stops_when_the_loss_does_not_improve(blobs):
    X, y = blobs
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = MLPClassifier((10,), tol=0.05, n_iter_no_change=3, random_state=0).fit(X, y)
    assert model.n_iter_ < 200
    assert model.best_loss_ == min(model.loss_curve_)
    assert model.loss_ == model.loss_curve_[-1]
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        MLPClassifier((10,), max_iter=2).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        MLPClassifier((10,), max_iter=2, learning_rate="cosine").fit(X, y)


def test_attributes_are_those_of_scikit_learn(blobs):
    X, y = blobs
    options = {"hidden_layer_sizes": (7, 5), "max_iter": 3, "random_state": 0}
    ours, theirs = (kind(**options).fit(X, y) for kind in (MLPClassifier, TheirClassifier))
    names = {name for name in vars(theirs) if name.endswith("_") and not name.startswith("_")}
    assert {name for name in names if not hasattr(ours, name)} == set()
    for name in ("n_layers_", "n_outputs_", "n_iter_", "t_", "n_features_in_", "out_activation_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("coefs_", "intercepts_"):
        shapes = [[a.shape for a in getattr(e, name)] for e in (ours, theirs)]
        assert shapes[0] == shapes[1]
    assert MLPClassifier((), max_iter=2).fit(X, y).n_layers_ == 2
    assert MLPClassifier(9, max_iter=2).fit(X, y).coefs_[0].shape == (8, 9)


def test_shared_parameters_have_scikit_learns_defaults():
    theirs = TheirClassifier().get_params()
    ours = MLPClassifier().get_params()
    shared = theirs.keys() & ours.keys()
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
    assert theirs.keys() <= ours.keys()
    both = {name: value for name, value in ours.items() if name != "class_weight"}
    assert MLPRegressor().get_params() == both | {"loss": "squared_error"}
    assert (
        list(inspect.signature(MLPRegressor).parameters)[:3]
        == (list(inspect.signature(TheirRegressor).parameters)[:3])
    )


def test_dropout_and_normalization_reach_the_network(blobs):
    X, y = blobs
    model = MLPClassifier((6, 5), dropout=0.25, normalization="batchnorm", max_iter=3).fit(X, y)
    kinds = [type(layer) for layer in model.model_.layers]
    assert kinds.count(BatchNorm) == kinds.count(Dropout) == 2
    assert model.model_.layers[3].p == 0.25
    linear = MLPClassifier((6,), activation="identity", dropout=0.1, max_iter=3).fit(X, y)
    assert not any(isinstance(layer, ReLU) for layer in linear.model_.layers)


def test_dtype_follows_x_unless_given(blobs):
    X, y = blobs
    for given, dtype, expected in (
        (X, None, "float64"),
        (X.astype(np.float32), None, "float32"),
        (X.astype(np.float16), None, "float64"),
        (X, "float32", "float32"),
        (X.astype(np.float32), "float64", "float64"),
    ):
        model = MLPClassifier((4,), max_iter=2, dtype=dtype).fit(given, y)
        assert model.coefs_[0].dtype == model.predict_proba(given).dtype == expected
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="too large for dtype"):
        MLPClassifier(dtype="float32").fit(X * 1e300, y)


@pytest.mark.parametrize("solver", ["sgd", "adagrad", "rmsprop", "adam", "adamw", "muon"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_every_solver_learns(solver, schedule, blobs):
    X, y = blobs
    model = MLPClassifier(
        (20,),
        solver=solver,
        learning_rate=schedule,
        learning_rate_init=0.03,
        batch_size=32,
        max_iter=40,
        random_state=0,
    )
    assert model.fit(X, y).score(X, y) > 0.85


def test_plain_gradient_descent_needs_no_other_switch_than_momentum(blobs):
    X, y = blobs
    model = MLPClassifier((4,), solver="sgd", momentum=0.0, max_iter=2).fit(X, y)
    assert (model._optimizer.momentum, model._optimizer.nesterov) == (0.0, False)


def test_alpha_of_a_decoupled_solver_is_its_weight_decay(blobs):
    model = MLPClassifier((4,), solver="adamw", alpha=0.3, max_iter=2).fit(*blobs)
    assert model._optimizer.weight_decay == 0.3


def test_same_seed_gives_the_same_estimator(blobs):
    X, y = blobs
    one, same, other = (
        MLPClassifier((8,), random_state=seed, max_iter=4, dropout=0.1).fit(X, y).predict_proba(X)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("save", [pickle, joblib])
def test_saved_estimator_predicts_and_trains_on_the_same(save, blobs):
    X, y = blobs
    model = MLPClassifier(
        (8,), random_state=0, dropout=0.3, normalization="batchnorm", activation="identity"
    ).partial_fit(X, y, classes=[0, 1, 2])
    file = io.BytesIO()
    save.dump(model, file)
    file.seek(0)
    copy = save.load(file)
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    for estimator in (copy, model):
        estimator.partial_fit(X, y)
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))


def test_pickle_holds_no_batches(blobs):
    X, y = blobs
    model = MLPClassifier((8,), max_iter=2).fit(X, y)
    small = len(pickle.dumps(model))
    model.predict(np.zeros((4000, 8)))
    assert len(pickle.dumps(model)) < small + 100


def test_every_library_gives_the_same_predictions(library, blobs):
    X, y = blobs
    options = {"random_state": 0, "dropout": 0.2, "normalization": "layernorm", "max_iter": 3}
    with xpmlp.use_backend("numpy"):
        reference = MLPClassifier((8,), **options).fit(X, y)
        expected = reference.predict_proba(X)
        then = reference.partial_fit(X, y).predict_proba(X)
    name = library.name.partition("-")[0]
    for model in (MLPClassifier((8,), **options), MLPClassifier((8,), backend=name, **options)):
        model.fit(X, y)
        got = model.predict_proba(X)
        assert type(got) is np.ndarray
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)
        continued = pickle.loads(pickle.dumps(model)).partial_fit(X, y)
        np.testing.assert_allclose(continued.predict_proba(X), then, rtol=1e-6)
        # Saved there, it loads on NumPy; as it is, it predicts under another library.
        with xpmlp.use_backend("numpy"):
            np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-7)
            model.set_params(backend=None)
            saved = pickle.dumps(model)
            assert name == "numpy" or f"{name}._".encode() not in saved
            restored = pickle.loads(saved)
            np.testing.assert_allclose(restored.predict_proba(X), expected, rtol=1e-7)
            for estimator in (model, restored):
                estimator.partial_fit(X, y)
                np.testing.assert_allclose(estimator.predict_proba(X), then, rtol=1e-6)


def test_unknown_backend_is_an_error(blobs):
    with pytest.raises(BackendError, match="numpy, cupy"):
        MLPClassifier(backend="fortran").fit(*blobs)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_layer_sizes": (5, 0)},
        {"hidden_layer_sizes": 2.5},
        {"activation": "step"},
        {"solver": "newton"},
        {"alpha": -1.0},
        {"alpha": float("nan")},
        {"batch_size": 0},
        {"batch_size": "all"},
        {"learning_rate": "linear"},
        {"power_t": -1.0},
        {"max_fun": 0},
        {"learning_rate_init": 0.0},
        {"max_iter": 0},
        {"tol": -1.0},
        {"validation_fraction": 1.0},
        {"n_iter_no_change": 0},
        {"dtype": "float16"},
        {"dropout": 1.0},
        {"normalization": "spectral"},
        {"momentum": 1.0, "solver": "sgd"},
        {"alpha": "x"},
        {"learning_rate_init": None},
        {"epsilon": -1.0, "solver": "adagrad"},
        {"beta_2": 1.0},
    ],
)
def test_parameter_out_of_range_is_named(options, blobs):
    name = next(iter(options))
    with pytest.raises(ConfigError, match=f"`MLPClassifier`: expected {name} .*, got "):
        MLPClassifier(**options).fit(*blobs)


def test_large_batch_size_is_cut_with_a_warning(blobs):
    X, y = blobs
    with pytest.warns(UserWarning, match="batch_size=500 is more than the 200 rows"):
        MLPClassifier((4,), batch_size=500, max_iter=2).fit(X, y)


def test_too_little_to_validate_on_is_an_error(blobs):
    X, y = blobs
    with pytest.raises(ConfigError, match="at least 2 rows"):
        MLPRegressor(early_stopping=True, validation_fraction=0.01).fit(X[:20], y[:20])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_diverging_training_is_an_error_and_leaves_nothing_fitted(blobs):
    X, y = blobs
    model = MLPRegressor(hidden_layer_sizes=(8,), solver="sgd", learning_rate_init=1e6)
    with pytest.raises(DataError, match="StandardScaler"):
        model.fit(X * 100, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_progress_is_shown_when_asked_for(blobs, capsys):
    MLPClassifier((4,), max_iter=2).fit(*blobs)
    assert capsys.readouterr() == ("", "")
    MLPClassifier((4,), max_iter=2, verbose=True).fit(*blobs)
    assert "epoch 2/2" in capsys.readouterr().err


def test_without_scikit_learn_the_message_names_the_extra():
    code = "import sys; sys.modules['sklearn'] = None; import xpmlp.sklearn"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 1
    assert "MissingDependencyError: `xpmlp.sklearn`: expected scikit-learn" in done.stderr
    assert 'pip install "xpmlp[sklearn]"' in done.stderr


@pytest.mark.parametrize(
    "labels", [[0] * 49 + [1] * 50 + [2], [*range(12)] * 5], ids=["rare", "few"]
)
def test_classes_too_rare_to_hold_out_are_held_out_by_chance(labels):
    X = np.random.default_rng(0).normal(size=(len(labels), 2))
    model = MLPClassifier(early_stopping=True, max_iter=3, random_state=0).fit(X, labels)
    assert len(model.validation_scores_) == 3
    assert list(model.classes_) == sorted(set(labels))


def test_too_few_rows_to_hold_out_say_what_to_do():
    X, y = np.random.default_rng(0).normal(size=(10, 2)), [0, 1] * 5
    with pytest.raises(ConfigError, match="raise validation_fraction, add rows, or turn early"):
        MLPClassifier(early_stopping=True).fit(X, y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_told_in_the_estimators_own_words(blobs):
    with pytest.raises(DataError, match=r"StandardScaler\) or lower learning_rate_init") as caught:
        MLPRegressor(solver="sgd", learning_rate_init=1e30).fit(*blobs)
    assert "clip" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.3, "normalization": "batchnorm"}])
def test_what_fails_leaves_the_trained_network_as_it_was(kind, options, kernels, blobs, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    X, y = blobs
    X = X.astype("float32")
    y = y if kind is MLPClassifier else X[:, 0]
    model = kind(hidden_layer_sizes=(8,), random_state=0, batch_size=20, warm_start=True, **options)
    model.set_params(max_iter=3, scale_inputs=False)  # scaled, outliers would do no harm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    model.partial_fit(X, y)
    before = pickle.dumps(model)
    outliers, name = X.copy(), "0.W"
    outliers[-1] = 3e38
    for attempt in (
        lambda: model.partial_fit(outliers, y),
        lambda: model.fit(outliers, y),
        lambda: model.partial_fit(X[:, :2], y),
        lambda: model.partial_fit(X, np.full(len(X), np.nan)),
        lambda: model.set_params(warm_start=False).fit(outliers, y),
    ):
        with pytest.raises(ValueError):
            attempt()
        model.warm_start = True
        twin = pickle.loads(before)
        np.testing.assert_array_equal(model.predict(X), twin.predict(X))
        np.testing.assert_array_equal(model.model_.params[name], twin.model_.params[name])
        assert (model.n_iter_, model.t_, model.loss_curve_) == (
            twin.n_iter_,
            twin.t_,
            twin.loss_curve_,
        )
    twin = pickle.loads(before)  # and training goes on as if nothing had been
    np.testing.assert_array_equal(
        model.partial_fit(X, y).predict(X), twin.partial_fit(X, y).predict(X)
    )


def test_a_first_fit_that_fails_leaves_an_estimator_unfitted():
    model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, scale_inputs=False)
    with pytest.raises(DataError, match="finite losses"):
        model.fit(np.full((4, 2), 3e38, "float32"), np.arange(4.0))
    assert not hasattr(model, "model_") and not hasattr(model, "n_features_in_")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_layer_sizes", (9,)),
        ("hidden_layer_sizes", (8, 8)),
        ("activation", "tanh"),
        ("normalization", "layernorm"),
        ("dropout", 0.5),
        ("dtype", "float32"),
        ("solver", "sgd"),
    ],
)
def test_training_goes_on_with_the_network_that_is_asked_for_or_not_at_all(name, value, blobs):
    X, y = blobs
    model = MLPClassifier((8,), random_state=0, max_iter=1).partial_fit(X, y, classes=[0, 1, 2])
    model.set_params(**{name: value})
    with pytest.raises(ConfigError, match=name if name != "solver" else "the solver that it began"):
        model.partial_fit(X, y)
    if name != "solver":
        with pytest.raises(ConfigError, match=name):
            model.set_params(warm_start=True).fit(X, y)


def test_partial_fit_takes_a_new_learning_rate(blobs):
    X, y = blobs
    model = MLPClassifier((8,), random_state=0, batch_size=50)
    model.partial_fit(X, y, classes=[0, 1, 2])
    before = model.coefs_[0].copy()
    model.set_params(learning_rate_init=1e-30).partial_fit(X, y)
    np.testing.assert_array_equal(model.coefs_[0], before)
    assert model._optimizer.steps == 2 * 4


def test_a_constant_target_has_scores_and_is_learned():
    x = np.random.default_rng(0).normal(size=(200, 5))
    model = MLPRegressor(
        "squared_error",
        (8,),
        early_stopping=True,
        random_state=0,
        max_iter=300,
        learning_rate_init=0.01,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, np.full(200, 5.0))
    assert np.isfinite(model.validation_scores_).all() and model.n_iter_ > 50
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert np.abs(model.predict(x) - 5).mean() < 0.5
