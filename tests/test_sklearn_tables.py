"""The estimators of tables: any data frame in, scikit-learn's contract, files, honest figures."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import xpmlp
from xpmlp.errors import CheckpointError, ConfigError, DataError
from xpmlp.sklearn import TableClassifier, TableRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")

QUICK = {
    "n_members": 4,
    "folds": 2,
    "hidden_layer_sizes": (32,),
    "learning_rate_init": 5e-3,
    "max_iter": 80,
    "random_state": 0,
}
RNG = np.random.default_rng(0)


def not_equal_by_nature(estimator):
    """Repeated rows give other folds, codes of numbers and batches."""
    return {
        "check_sample_weight_equivalence_on_dense_data": "folds, codes of numbers and batches are "
        "of rows, whatever they weigh"
    }


@parametrize_with_checks(
    [TableClassifier(**QUICK), TableRegressor(**QUICK)],
    expected_failed_checks=not_equal_by_nature,
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def table(rows=400, seed=0):
    """Numbers with blanks, text, categories, truth values and dates, all of which matter."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(size=rows)
    kind = rng.choice(["red", "green", "blue"], rows)
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, rows), "D")
    flag = rng.random(rows) < 0.4
    level = rng.integers(0, 4, rows)
    signal = np.log(size) + (kind == "red") + 1.5 * flag + (when.month > 6) - 0.5 * level
    frame = pd.DataFrame(
        {
            "size": size,
            "kind": kind,
            "when": when,
            "flag": flag,
            "level": pd.Categorical(level),
            "whole": pd.array(rng.integers(0, 9, rows), dtype="Int64"),
        }
    )
    frame.loc[rng.random(rows) < 0.1, "size"] = np.nan
    frame.loc[rng.random(rows) < 0.1, "kind"] = None
    frame.loc[rng.random(rows) < 0.05, "whole"] = pd.NA
    return frame, np.asarray(signal)


@pytest.fixture(scope="module")
def classes():
    frame, signal = table()
    labels = np.where(signal + 0.3 * RNG.normal(size=len(signal)) > 0.5, "yes", "no")
    return frame, labels, TableClassifier(**QUICK).fit(frame, labels)


@pytest.fixture(scope="module")
def numbers():
    frame, signal = table()
    y = 1000.0 + 50.0 * signal
    return frame, y, TableRegressor(**QUICK).fit(frame, y)


def test_classes_are_learnt_from_a_frame_as_it_is(classes):
    _, _, model = classes
    frame, signal = table(300, seed=1)
    labels = np.where(signal > 0.5, "yes", "no")
    assert model.score(frame, labels) > 0.85
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.feature_names_in_.tolist() == list(frame.columns)
    p = model.predict_proba(frame)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[p.argmax(axis=1)], model.predict(frame))


def test_numbers_are_learnt_in_their_own_unit(numbers):
    _, y, model = numbers
    frame, signal = table(300, seed=1)
    assert model.score(frame, 1000.0 + 50.0 * signal) > 0.8
    predicted = model.predict(frame)
    assert y.min() <= predicted.min() and predicted.max() <= y.max()


def test_what_was_not_seen_in_training_is_predicted(classes):
    frame, _, model = classes
    new = frame.iloc[:4].copy()
    new["kind"] = ["violet", None, "red", "blue"]
    new["size"] = [np.nan, 1e12, -5.0, 1.0]
    new["when"] = pd.to_datetime(["1950-01-01", None, "2090-05-05", "2024-02-29"])
    assert np.isfinite(model.predict_proba(new)).all()


def test_columns_may_come_as_other_types_than_in_training(numbers):
    frame, _, model = numbers
    new = frame.astype({"size": "float32", "flag": "float64", "level": "int64"})
    new["kind"] = new["kind"].astype("category")
    new["when"] = new["when"].astype("datetime64[s]")
    np.testing.assert_allclose(model.predict(new), model.predict(frame), rtol=1e-4)


def test_a_constant_column_has_no_effect():
    frame, signal = table(120)
    frame = frame[["size"]].assign(one=1.0)
    model = TableRegressor(**QUICK | {"max_iter": 3}).fit(frame, signal)
    before = model.predict(frame)
    np.testing.assert_array_equal(model.predict(frame.assign(one=1e9)), before)


def test_arrays_of_text_and_numbers_are_taken_apart():
    x = np.array([[1, "a"], [2, "b"], [3, "a"], [4, None]] * 20, dtype=object)
    y = np.array([0, 1, 0, 1] * 20)
    model = TableClassifier(**QUICK).fit(x, y)
    assert model.score(x, y) == 1.0
    assert model._encoder.names == ("x0", "x1=a", "x1=b", "x1=(missing)")


def test_weights_move_what_is_predicted():
    x = np.zeros((300, 1))
    x[::2] = 1.0
    y = np.array([0.0, 10.0, 0.0] * 100)
    plain = TableRegressor(**QUICK).fit(x, y).predict(x).mean()
    weights = np.where(y > 0, 4.0, 1.0)
    heavy = TableRegressor(**QUICK).fit(x, y, sample_weight=weights).predict(x).mean()
    assert plain == pytest.approx(10 / 3, abs=0.7)
    assert heavy == pytest.approx(20 / 3, abs=0.7)


def test_class_weights_balance():
    rng = np.random.default_rng(0)
    y = (rng.random(600) < 0.1).astype(int)
    x = rng.normal(size=(600, 2))
    options = QUICK | {"calibrate": False}
    even = TableClassifier(class_weight="balanced", **options).fit(x, y).predict_proba(x)[:, 1]
    plain = TableClassifier(**options).fit(x, y).predict_proba(x)[:, 1]
    assert plain.mean() == pytest.approx(0.1, abs=0.06)
    assert even.mean() == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ConfigError, match="class_weight"):
        TableClassifier(class_weight="even").fit(x, y)


def test_rows_of_weight_zero_are_as_if_not_there():
    frame, signal = table(200)
    weights = np.r_[np.ones(150), np.zeros(50)]
    spoilt = signal.copy()
    spoilt[150:] = 1e6
    with_them = TableRegressor(**QUICK | {"max_iter": 4})
    found = [
        with_them.fit(frame, y, sample_weight=weights).predict(frame) for y in (signal, spoilt)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_quantiles_hold_what_they_say_on_new_rows(numbers):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(800, 2))
    y = x[:, 0] + rng.normal(size=800)
    model = TableRegressor(**QUICK).fit(x[:400], y[:400])
    low, middle, high = model.predict_quantiles(x[400:], (0.1, 0.5, 0.9)).T
    assert np.mean((low < y[400:]) & (y[400:] < high)) == pytest.approx(0.8, abs=0.07)
    assert (low < middle).all() and (middle < high).all()
    std = model.predict_std(x[400:])
    z = (y[400:] - model.predict(x[400:])) / std
    assert z.std() == pytest.approx(1.0, abs=0.2)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        model.predict_quantiles(x, (0.0, 1.0))


def test_several_targets_at_once():
    x = RNG.normal(size=(200, 2))
    y = np.c_[100 * x[:, 0], x[:, 1] - 5]
    model = TableRegressor(**QUICK).fit(x, y)
    assert model.predict(x).shape == (200, 2) and model.score(x, y) > 0.9
    assert model.predict_quantiles(x, (0.1, 0.9)).shape == (200, 2, 2)
    assert model.predict_std(x).shape == (200, 2)


def test_probabilities_are_tempered_by_rows_out_of_fold(classes):
    frame, labels, model = classes
    loose = TableClassifier(**QUICK | {"calibrate": False}).fit(frame, labels)
    assert loose.temperature_ == 1.0 and model.temperature_ != 1.0
    np.testing.assert_array_equal(loose.predict(frame), model.predict(frame))


def test_importances_find_the_columns_that_matter():
    x = pd.DataFrame(RNG.normal(size=(400, 3)), columns=["a", "noise", "b"])
    y = 3 * x["a"] + x["b"]
    model = TableRegressor(**QUICK).fit(x, y)
    found = model.feature_importances_
    assert found[0] > found[2] > 10 * abs(found[1])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.feature_importances_, found)
    other = pickle.loads(pickle.dumps(clone(model).fit(x, y)))
    with pytest.raises(AttributeError, match="not kept"):
        _ = other.feature_importances_


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_files_hold_all_that_predictions_need(classes, numbers, tmp_path, ending):
    frame, _, classifier = classes
    _, _, regressor = numbers
    for model in (classifier, regressor):
        model.save(tmp_path / f"model.{ending}")
        again = type(model).load(tmp_path / f"model.{ending}")
        np.testing.assert_array_equal(again.predict(frame), model.predict(frame))
        assert again.get_params() == model.get_params()
        assert again.feature_names_in_.tolist() == list(frame.columns)
    np.testing.assert_array_equal(
        again.predict_quantiles(frame), regressor.predict_quantiles(frame)
    )
    with pytest.raises(CheckpointError, match="TableRegressor"):
        TableClassifier.load(tmp_path / f"model.{ending}")
    with pytest.raises(NotFittedError):
        TableClassifier().save(tmp_path / "none.npz")


def test_pickles_clones_pipelines_and_cross_validation(classes):
    frame, labels, model = classes
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
    piped = make_pipeline(FunctionTransformer(), clone(model))
    scores = cross_val_score(piped, frame, labels, cv=2)
    assert scores.min() > 0.7


def test_a_time_limit_keeps_the_best_so_far():
    frame, signal = table(300)
    model = TableRegressor(**QUICK | {"max_iter": 100_000, "n_iter_no_change": 100_000})
    model.set_params(time_limit=1e-3).fit(frame, signal)
    assert model.history_.ending.startswith("time limit")
    assert np.isfinite(model.predict(frame)).all()


def test_few_rows_are_enough():
    for rows in (2, 3, 9):
        x = np.arange(rows)[:, None]
        assert TableRegressor(**QUICK | {"max_iter": 2}).fit(x, x[:, 0]).predict(x).shape == (rows,)
        labels = np.array(["a", "b"] * rows)[:rows]
        assert len(TableClassifier(**QUICK | {"max_iter": 2}).fit(x, labels).predict(x)) == rows


def test_targets_that_are_all_equal_are_predicted():
    x = RNG.normal(size=(60, 2))
    model = TableRegressor(**QUICK | {"max_iter": 3}).fit(x, np.full(60, 7.25))
    np.testing.assert_array_equal(model.predict(x), np.full(60, 7.25))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"size": [np.inf]}, "'size', got infinity in row 1"),
        ({"size": [1 + 2j]}, "numbers, text, truth values or dates in column 'size'"),
        ({"size": ["many"]}, "expected numbers in column 'size', got 'many'"),
    ],
)
def test_values_that_cannot_be_used_are_named(numbers, change, match):
    frame, _, model = numbers
    new = frame.iloc[:1].drop(columns="size").assign(**change)[list(frame.columns)]
    with pytest.raises(DataError, match=match):
        model.predict(new)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_members": 1}, "n_members"),
        ({"folds": 1}, "folds"),
        ({"bins": -1}, "bins"),
        ({"activation": "step"}, "activation"),
        ({"time_limit": 0}, "time_limit"),
        ({"learning_rate_init": 0.0}, "learning_rate_init"),
        ({"batch_size": "small"}, "batch_size"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes"),
    ],
)
def test_parameters_out_of_range_are_named(options, match):
    with pytest.raises(ConfigError, match=match):
        TableRegressor(**options).fit(np.zeros((9, 1)), np.zeros(9))


def test_every_array_library_trains_and_predicts(library):
    frame, signal = table(150)
    options = QUICK | {"max_iter": 4, "hidden_layer_sizes": (8,)}
    for model, y in (
        (TableRegressor(**options), signal),
        (TableClassifier(**options), (signal > 0.5).astype(int)),
    ):
        here = model.fit(frame, y)
        found = here.predict_proba(frame) if y.dtype.kind == "i" else here.predict(frame)
        with xpmlp.use_backend("numpy"):
            wanted = clone(model).fit(frame, y)
            alone = wanted.predict_proba(frame) if y.dtype.kind == "i" else wanted.predict(frame)
            np.testing.assert_allclose(found, alone, rtol=2e-3, atol=2e-3)
            again = pickle.loads(pickle.dumps(here))
            same = again.predict_proba(frame) if y.dtype.kind == "i" else again.predict(frame)
            np.testing.assert_allclose(same, found, rtol=1e-4, atol=1e-5)
