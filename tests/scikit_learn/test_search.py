"""PopulationSearchCV: what GridSearchCV over our estimators finds, trained as populations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sklearn
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.datasets import load_digits, make_regression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from xpmlp.errors import ConfigError, WorkerError
from xpmlp.sklearn import MLPClassifier, MLPRegressor, PopulationSearchCV
from xpmlp.sklearn.together import Collected
from xpmlp.training import PopulationTrainer
from xpmlp.units import Processes

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, LABELS = load_digits(return_X_y=True)
X, LABELS = X[:120, 10:30] / 16.0, LABELS[:120]
GRID = {"learning_rate_init": [0.003, 0.03], "alpha": [0.0, 0.1, 1.0]}
SMALL = {"max_iter": 4, "random_state": 0}
TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")


def check_alike(ours, theirs, exactly=True):
    assert set(ours.cv_results_) == set(theirs.cv_results_)
    for name, values in theirs.cv_results_.items():
        if name == "params":
            assert ours.cv_results_[name] == values
        elif name not in TIMES and not name.startswith("param_"):
            np.testing.assert_allclose(ours.cv_results_[name], values, atol=1e-6)
    for name in ("best_params_", "best_index_", "n_splits_", "multimetric_"):
        assert getattr(ours, name, None) == getattr(theirs, name, None)


def both(estimator, grid=GRID, y=LABELS, x=X, fit=None, **options):
    given = {"cv": 3, **options}
    ours = PopulationSearchCV(clone(estimator), grid, **given).fit(x, y, **(fit or {}))
    theirs = GridSearchCV(clone(estimator), grid, **given).fit(x, y, **(fit or {}))
    check_alike(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.2, "normalization": "batchnorm"},
        {"early_stopping": True, "validation_fraction": 0.3},
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"solver": "sgd", "learning_rate": "adaptive"},
        {"solver": "lbfgs"},
        {"solver": "adamw", "learning_rate": "cosine", "dtype": "float32"},
        {"class_weight": "balanced", "shuffle": False},
        {"n_iter_no_change": 1, "max_iter": 30, "tol": 0.05},
    ],
)
def test_equals_grid_search(options):
    ours, theirs = both(MLPClassifier((6,), **SMALL | options))
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-4, atol=1e-6)
    assert ours.score(X, LABELS) == pytest.approx(theirs.score(X, LABELS))
    alone = options.get("solver") == "lbfgs" or options.get("learning_rate") == "adaptive"
    assert sum(ours.population_sizes_) == (0 if alone else 18)
    assert alone or max(ours.population_sizes_) > 1


def test_other_networks_are_other_populations_and_widths_are_padded():
    grid = {"hidden_layer_sizes": [(4,), (5,), (4, 4)], "activation": ["relu", "tanh"]}
    ours, _ = both(MLPClassifier(**SMALL), grid)
    assert sum(ours.population_sizes_) == 18
    assert len(ours.population_sizes_) < 18


def test_regression_and_several_scores():
    x, y = make_regression(90, 5, noise=2.0, random_state=1)
    scoring = {"r2": "r2", "error": "neg_mean_absolute_error"}
    ours, _ = both(
        MLPRegressor(hidden_layer_sizes=(6,), **SMALL), y=y, x=x, scoring=scoring, refit="error",
        return_train_score=True,
    )  # fmt: skip
    assert "split2_train_r2" in ours.cv_results_
    many = np.stack([y, -y], axis=1)
    both(MLPRegressor(hidden_layer_sizes=(6,), **SMALL), y=many, x=x, scoring="r2")


@pytest.mark.parametrize("thin", [False, True])
def test_pipelines_are_fitted_for_each_fold(thin):
    x = sparse.csr_array(np.where(X > 0.5, X, 0.0)) if thin else X
    scaler = MaxAbsScaler() if thin else StandardScaler()
    model = make_pipeline(scaler, MLPClassifier((6,), **SMALL))
    grid = {"mlpclassifier__alpha": [0.0, 1.0], "mlpclassifier__learning_rate_init": [0.01, 0.03]}
    ours, _ = both(model, grid, x=x)
    assert isinstance(ours.best_estimator_, Pipeline)
    assert sum(ours.population_sizes_) == 12


def test_weights_and_groups():
    weight = np.random.default_rng(0).random(120)
    both(MLPClassifier((6,), **SMALL), fit={"sample_weight": weight})
    both(MLPClassifier((6,), **SMALL), cv=GroupKFold(3), fit={"groups": np.arange(120) % 10})
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier((6,), **SMALL).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        both(model, fit={"sample_weight": weight})


def test_many_members_see_the_same_batches():
    grid = {"learning_rate_init": list(np.geomspace(1e-3, 1e-1, 8))}
    ours, _ = both(MLPClassifier((5,), **SMALL), grid)
    assert ours.population_sizes_ == [8, 8, 8]


def test_draws_as_randomized_search():
    given = {"alpha": stats.loguniform(1e-4, 1.0), "learning_rate_init": [0.01, 0.03]}
    model = MLPClassifier((5,), **SMALL)
    ours = PopulationSearchCV(model, given, n_iter=4, random_state=3, cv=3).fit(X, LABELS)
    theirs = RandomizedSearchCV(model, given, n_iter=4, random_state=3, cv=3).fit(X, LABELS)
    check_alike(ours, theirs)
    for n_iter in (0, 2.5, "all"):
        with pytest.raises(ConfigError, match="n_iter"):
            PopulationSearchCV(model, given, n_iter=n_iter).fit(X, LABELS)


def test_a_splitter_that_draws_anew_each_time_is_asked_once():
    model = PopulationSearchCV(
        MLPClassifier((5,), max_iter=3), {"alpha": [0.1, 1.0]}, cv=KFold(3, shuffle=True)
    )
    assert model.fit(X, LABELS).n_splits_ == 3  # random_state is None: other weights each time too


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_what_fails_is_as_in_grid_search():
    grid = {"learning_rate_init": [0.01, -1.0, 1e300], "solver": ["sgd"]}
    for search in (PopulationSearchCV, GridSearchCV):
        found = search(MLPClassifier((5,), **SMALL), grid, cv=3).fit(X, LABELS)
        means = found.cv_results_["mean_test_score"]
        assert np.isfinite(means[0]) and np.isnan(means[1:]).all()
        with pytest.raises(ValueError, match="learning_rate_init"):
            search(MLPClassifier((5,)), grid, cv=3, error_score="raise").fit(X, LABELS)


def test_estimators_of_others_are_searched_too(capsys):
    both(LogisticRegression(), {"C": [0.1, 1.0]})
    steps = Pipeline([("model", MLPClassifier((5,), **SMALL))])
    both(steps, {"model": [MLPClassifier((5,), **SMALL), LogisticRegression()]})
    PopulationSearchCV(LogisticRegression(), {"C": [1.0]}, verbose=1).fit(X, LABELS)
    assert "LogisticRegression is not ours" in capsys.readouterr().out


def test_verbose_tells_what_is_together(capsys):
    grid = {"alpha": [0.1, 1.0], "solver": ["adam", "lbfgs"]}
    PopulationSearchCV(MLPClassifier((5,), **SMALL), grid, cv=3, verbose=1).fit(X, LABELS)
    assert "6 networks in 1 populations of [6], 6 one by one" in capsys.readouterr().out


def test_networks_are_trained_as_populations_and_nothing_is_left_over(monkeypatch):
    members, fit = [], PopulationTrainer.fit

    def watched(self, *arguments, **options):
        members.append(self.model.population)
        return fit(self, *arguments, **options)

    monkeypatch.setattr(PopulationTrainer, "fit", watched)
    search = PopulationSearchCV(MLPClassifier((5,), **SMALL), GRID, cv=3)
    scores = cross_val_score(search, X, LABELS, cv=2)  # a search in a search
    assert np.isfinite(scores).all() and sum(members) == 36
    MLPClassifier((5,), **SMALL).fit(X, LABELS)
    assert sum(members) == 36


def test_a_search_that_is_interrupted_leaves_nothing_behind(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PopulationTrainer, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            PopulationSearchCV(MLPClassifier((5,), **SMALL), GRID, cv=3).fit(X, LABELS)
    model = MLPClassifier((5,), **SMALL).fit(X, LABELS)
    assert len(model.loss_curve_) == 4


@pytest.mark.parametrize(
    "executor",
    [
        lambda: ThreadPoolExecutor(2),
        pytest.param(Processes(2), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_workers_train_the_same_to_the_bit(executor, early_stopping):
    model = MLPClassifier((6,), early_stopping=early_stopping, **SMALL)
    grid = {"learning_rate_init": list(np.geomspace(1e-3, 1e-1, 8)), "solver": ["adam", "lbfgs"]}
    found = [
        PopulationSearchCV(model, grid, cv=3, executor=given).fit(X, LABELS)
        for given in (None, executor)
    ]
    sizes = [search.population_sizes_ for search in found]
    assert sum(sizes[0]) == sum(sizes[1]) == 24 and len(sizes[1]) > len(sizes[0])
    for name, values in found[0].cv_results_.items():
        if name not in TIMES and not name.startswith("param"):
            np.testing.assert_array_equal(found[1].cv_results_[name], values)
    assert (found[1].cv_results_["mean_fit_time"] > 0).all()
    np.testing.assert_array_equal(found[0].predict_proba(X), found[1].predict_proba(X))


def test_a_search_with_an_executor_that_is_given_as_a_function_is_cloned():
    search = PopulationSearchCV(MLPClassifier((5,), **SMALL), GRID, cv=3, executor=Processes(2))
    assert clone(search).executor == Processes(2)
    search.set_params(executor="two")
    with pytest.raises(ConfigError, match="executor"):
        search.fit(X, LABELS)


def test_what_a_worker_loses_is_a_fit_that_failed(monkeypatch):
    def lost(*_, **__):
        raise RuntimeError("the machine is gone")

    monkeypatch.setattr(PopulationTrainer, "fit", lost)
    search = PopulationSearchCV(
        MLPClassifier((5,), **SMALL), GRID, cv=3, executor=lambda: ThreadPoolExecutor(1)
    )
    with pytest.raises(ValueError, match="All the 18 fits failed"):
        search.fit(X, LABELS)
    with pytest.raises(WorkerError, match="the machine is gone"):
        search.set_params(error_score="raise").fit(X, LABELS)


def test_equal_folds_are_in_memory_once(monkeypatch):
    held = []
    train = Collected.train

    def watched(self, *arguments):
        held.extend(fit.job.data[0] for fit in self.fits)
        return train(self, *arguments)

    monkeypatch.setattr(Collected, "train", watched)
    for model in (MLPClassifier((5,), **SMALL), MLPClassifier((5,), early_stopping=True, **SMALL)):
        held.clear()
        PopulationSearchCV(model, GRID, cv=3).fit(X, LABELS)
        assert len(held) == 18 and len(set(map(id, held))) == 3
