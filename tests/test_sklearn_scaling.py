"""Inputs and targets of any size: what the estimators scale inside stays inside."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from xpmlp.data import Normalization
from xpmlp.errors import ConfigError
from xpmlp.models import FullyConnectedNet
from xpmlp.sklearn import MLPClassifier, MLPRegressor
from xpmlp.sklearn.parameters import batch_rows
from xpmlp.sklearn.scaling import Moments, change_scaling, no_scaling

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
QUICK = {
    "hidden_layer_sizes": (20,),
    "learning_rate_init": 0.01,
    "max_iter": 100,
    "random_state": 0,
}


@pytest.fixture
def plane(rng):
    """Inputs (200, 5), and a target of mean 0 and standard deviation about 2."""
    X = rng.normal(size=(200, 5))
    return X, 2.0 * X[:, 0] + 0.1 * rng.normal(size=200)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shift", "unit"), [(0.0, 1e6), (1e8, 1e7), (1e8, 1.0), (-3e4, 1e-3), (0.0, 1e-8)], ids=str
)
def test_the_unit_of_a_target_does_not_matter(plane, dtype, shift, unit):
    X, y = plane
    X = X.astype(dtype)
    model = MLPRegressor(**QUICK).fit(X, shift + unit * y)
    usual = MLPRegressor(**QUICK).fit(X, y)
    assert model.score(X, shift + unit * y) > 0.98
    assert model.predict(X).dtype == np.float64
    np.testing.assert_allclose((model.predict(X) - shift) / unit, usual.predict(X), atol=2e-2)
    assert model.n_iter_ == pytest.approx(usual.n_iter_, abs=3)
    shorter = min(model.n_iter_, usual.n_iter_)
    curve = np.array(model.loss_curve_)[:shorter] / unit**2
    np.testing.assert_allclose(curve, usual.loss_curve_[:shorter], rtol=1e-2)


def test_losses_are_half_the_mean_squared_error_in_the_targets_unit(plane):
    X, y = plane
    y = 100.0 + 50.0 * y
    # Steps of next to nothing: the loss of an epoch is that of the network it ends with.
    options = {"learning_rate_init": 1e-12, "alpha": 0.0, "max_iter": 1, "random_state": 0}
    model = MLPRegressor(hidden_layer_sizes=(8,), **options).fit(X, y)
    error = model.predict(X) - y
    assert model.loss_ == pytest.approx(0.5 * np.mean(error**2), rel=1e-6)


def test_several_targets_of_different_size_are_all_learned(plane):
    X, y = plane
    Y = np.stack([y, 1e6 * X[:, 1] + 1e8, 1e-4 * (X[:, 2] + X[:, 3])], axis=1)
    model = MLPRegressor(**QUICK | {"max_iter": 200}).fit(X, Y)
    residual = ((model.predict(X) - Y) ** 2).sum(axis=0) / ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)
    assert (residual < 0.05).all()
    unit = np.mean(Y.var(axis=0))
    each = 0.5 * np.mean((model.predict(X) - Y) ** 2 / Y.var(axis=0) * unit)
    assert model.loss_ == pytest.approx(each, rel=0.3)  # of the last epoch's way, not its end


@pytest.mark.parametrize("value", [0.0, 5.0, -1e8, 1e-6])
def test_a_constant_target_is_predicted(plane, value):
    X, _ = plane
    for model in (
        MLPRegressor(hidden_layer_sizes=(8,), random_state=0).fit(X, np.full(200, value)),
        MLPRegressor(hidden_layer_sizes=(8,), random_state=0).partial_fit(X[:1], [value]),
    ):
        np.testing.assert_allclose(model.predict(X), value, rtol=1e-5, atol=1e-5)


def test_partial_fit_learns_the_scales_as_rows_come(plane):
    X, y = plane
    X, y = X * [1, 1e3, 1, 1, 1e-4] + [0, 5e4, 0, 0, 0], 1e6 + 1e3 * y
    model = MLPRegressor(**QUICK)
    model.partial_fit(X[:1], y[:1])  # one row: no spread is known yet
    for _ in range(150):
        for start in range(1, 200, 50):
            model.partial_fit(X[start : start + 50], y[start : start + 50])
    assert model.score(X, y) > 0.98


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_going_on_starts_from_the_same_function(plane, hidden):
    X, y = plane
    still = {"learning_rate_init": 1e-13, "max_iter": 1, "random_state": 0, "alpha": 0.0}
    model = MLPRegressor(**QUICK | {"hidden_layer_sizes": hidden}).fit(30.0 * X, y)
    before = model.predict(X)
    model.set_params(warm_start=True, **still).fit(1e3 + 7.0 * X, 50.0 - 3.0 * y)
    np.testing.assert_allclose(model.predict(X), before, rtol=1e-7, atol=1e-7)
    assert model._targets.mean == pytest.approx(50.0 - 3.0 * y.mean())


def test_the_network_given_out_is_in_the_units_given(plane):
    X, y = plane
    X, y = 100.0 + 40.0 * X, 1e3 + 20.0 * y
    model = MLPRegressor(
        hidden_layer_sizes=(8,), normalization="batchnorm", max_iter=5, random_state=0
    ).fit(X, y)
    np.testing.assert_allclose(model.model_.predict(X)[:, 0], model.predict(X), rtol=1e-9)
    plain = MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0).fit(X, y)
    hidden = np.maximum(X @ plain.coefs_[0] + plain.intercepts_[0], 0.0)
    outputs = hidden @ plain.coefs_[1] + plain.intercepts_[1]
    np.testing.assert_allclose(outputs[:, 0], plain.predict(X), rtol=1e-9)
    assert pickle.loads(pickle.dumps(plain)).predict(X).tolist() == plain.predict(X).tolist()
    labels = y > 1e3
    classifier = MLPClassifier((8,), max_iter=5, random_state=0).fit(X, labels)
    expected = classifier.model_.predict_proba(X)
    np.testing.assert_allclose(expected, classifier.predict_proba(X), rtol=1e-9)


def test_inputs_of_any_size_are_learned_unless_told_otherwise(plane):
    X, y = plane
    labels = (y > 0).astype(int)
    odd = X * [1e4, 1e-3, 1.0, 1e2, 1.0] + [0.0, 0.0, 0.0, 2e3, 0.0]
    assert MLPClassifier(**QUICK).fit(odd, labels).score(odd, labels) > 0.95
    as_given = MLPClassifier(**QUICK, scale_inputs=False).fit(odd, labels)
    np.testing.assert_array_equal(as_given._inputs.std, np.ones(5))
    with pytest.raises(ConfigError, match="scale_inputs to be True or False, got 'auto'"):
        MLPClassifier(scale_inputs="auto").fit(X, labels)


def test_only_inputs_of_unusual_size_are_changed(rng):
    usual = rng.normal(size=300)
    rare = (np.arange(300) % 100 == 0).astype(float)
    X = np.stack([usual, 100 * usual, 0.01 * usual, 9 + 0.01 * usual, rare, usual * 0 + 7], axis=1)
    norm = Moments.of(X).of_inputs()
    assert (norm.std != 1.0).tolist() == [False, True, True, True, False, False]
    assert (norm.mean != 0.0).tolist() == [False, True, True, True, False, True]
    scaled = norm.apply(X)[:, 1:4]
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, rtol=1e-9)


def test_moments_of_parts_are_those_of_the_whole(rng):
    values = rng.normal(size=(60, 3)) * [1.0, 1e-3, 1e3] + [0.0, 1e6, -5.0]
    whole = Moments.of(values)
    parts = Moments.of(values[:1]).joined(Moments.of(values[1:20])).joined(Moments.of(values[20:]))
    assert parts.count == whole.count == 60
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(parts.variance, whole.variance, rtol=1e-6)
    np.testing.assert_array_equal(parts.largest, whole.largest)


def test_equal_values_that_do_not_add_up_exactly_have_no_spread():
    moments = Moments.of(np.full((7, 1), 0.1)).joined(Moments.of(np.full((13, 1), 0.1)))
    assert moments.of_inputs().std[0] == 1.0


@pytest.mark.parametrize("sizes", [[3, 2], [3, 5, 4, 2]])
def test_other_scalings_leave_a_network_the_same_function(library, rng, sizes):
    def some(columns):
        return Normalization(rng.normal(size=columns), rng.uniform(0.1, 9.0, columns))

    net = FullyConnectedNet(sizes, output="identity", dtype="float64")
    x, (before, after), (out, out_after) = (
        rng.normal(size=(6, 3)),
        (some(3), some(3)),
        (some(2), some(2)),
    )
    expected = out.undo(library.numpy(net.outputs(before.apply(x))))
    change_scaling(net, (before, after), (out, out_after))
    got = out_after.undo(library.numpy(net.outputs(after.apply(x))))
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)
    kept = library.numpy(net.layers[0].W)
    change_scaling(net, (no_scaling(3), no_scaling(3)), (no_scaling(2), no_scaling(2)))
    np.testing.assert_array_equal(library.numpy(net.layers[0].W), kept)


def test_a_regressor_that_has_not_converged_says_so_and_only_then(plane):
    X, y = plane
    y = 1e8 + 1e6 * y
    with pytest.warns(ConvergenceWarning, match="max_iter=5"):
        MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0).fit(
            X.astype("float32"), y
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = MLPRegressor(**QUICK | {"max_iter": 2000}).fit(X.astype("float32"), y)
    assert model.n_iter_ < 2000
    assert model.score(X, y) > 0.99


def test_early_stopping_watches_the_score_whatever_the_unit(plane):
    X, y = plane
    one, other = (
        MLPRegressor(**QUICK, early_stopping=True).fit(X, shift + unit * y)
        for shift, unit in ((0.0, 1.0), (1e7, 1e5))
    )
    assert one.n_iter_ == other.n_iter_
    np.testing.assert_allclose(one.validation_scores_, other.validation_scores_, atol=1e-6)


def test_one_input_is_learned():
    X = np.linspace(-3, 3, 300)[:, None]
    y = np.sin(2 * X[:, 0])
    model = MLPRegressor(
        hidden_layer_sizes=(64, 64), learning_rate_init=0.01, max_iter=200, random_state=0
    )
    assert model.fit(X, y).score(X, y) > 0.99


@pytest.mark.parametrize(
    ("rows", "size"), [(20, 20), (40, 32), (120, 40), (400, 134), (600, 200), (5000, 200)]
)
def test_a_third_of_few_rows_makes_a_batch(rows, size):
    assert batch_rows(MLPClassifier(), rows) == size
