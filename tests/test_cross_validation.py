"""Cross-validation gives what a loop over folds, seeds and settings gives."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, StratifiedKFold

from xpmlp.cross_validation import cross_validate
from xpmlp.data import Normalization, load_digits
from xpmlp.errors import ConfigError, DataError, DTypeError
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import AdamW
from xpmlp.sweep import Settings, expand
from xpmlp.training import PopulationTrainer, Trainer

BASE = Settings(hidden=(10,), epochs=4, batch_size=32, lr=0.01)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.x_train[:150].reshape(150, 64).astype(np.float32), data.y_train[:150]


def test_scores_are_those_of_a_loop(digits):
    x, y = digits
    base = BASE.with_options({"label_smoothing": 0.2})
    grid = expand({"lr": [0.003, 0.02], "hidden": [(6,), (10,)]}, base)
    found = cross_validate(x, y, grid, folds=3, seeds=[4, 9], dtype="float64")
    results = found.cv_results_
    assert len(found.folds) == 3 and found.scoring == "accuracy"
    for place, own in enumerate(grid):
        assert results["params"][place] == {"lr": own.lr, "hidden": own.hidden}
        scores, losses = [], []
        for split in range(6):
            seed, held_out = [4, 9][split // 3], found.folds[split % 3]
            rows = np.setdiff1d(np.arange(150), held_out)
            net = FullyConnectedNet([64, *own.hidden, 10], seed=seed, dtype="float64")
            trainer = Trainer(
                net,
                SoftmaxCrossEntropy(label_smoothing=0.2),
                AdamW(own.lr, weight_decay=0.0),
                epochs=4,
                batch_size=32,
                normalization=Normalization.fit(x[rows]),
                seed=seed,
                progress=False,
            )
            trainer.fit(x[rows], y[rows])
            trainer.loss = SoftmaxCrossEntropy()
            score = trainer.evaluate(x[held_out], y[held_out])
            losses.append(score["loss"])
            assert results[f"split{split}_test_score"][place] == pytest.approx(score["accuracy"])
            scores.append(score["accuracy"])
        assert results["mean_test_score"][place] == pytest.approx(np.mean(scores))
        assert results["mean_test_loss"][place] == pytest.approx(np.mean(losses), rel=1e-6)
        assert results["std_test_score"][place] == pytest.approx(np.std(scores))
    means = results["mean_test_score"]
    assert results["rank_test_score"].tolist() == [1 + sum(means > own) for own in means]
    assert found.best_settings_ is grid[found.best_index_]
    assert found.best_score_ == means.max()


def test_classes_are_spread_evenly_over_the_folds(digits):
    x, y = digits
    found = cross_validate(x, y, BASE, folds=5)
    counts = np.array([np.bincount(y[fold], minlength=10) for fold in found.folds])
    assert (np.ptp(counts, axis=0) <= 1).all()
    np.testing.assert_array_equal(np.sort(np.concatenate(found.folds)), np.arange(150))


def test_held_out_rows_have_no_influence(digits):
    """Whatever stands in them, the networks that must not see them come out the same."""
    x, y = digits
    folds = [np.arange(50), np.arange(50, 100), np.arange(100, 150)]

    def networks(x, y):
        """Each fold's network, seen through the loss on rows that are the same in all runs."""
        seen = []

        class Spy(PopulationTrainer):
            def evaluate_members(self, x, y, rows=None):
                seen.append(self.model)
                return super().evaluate_members(x, y, rows)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("xpmlp.sweep.run.PopulationTrainer", Spy)
            cross_validate(x, y, BASE, folds=folds)
        return [seen[0].member(fold).params["0.W"] for fold in range(3)]

    spoiled, turned = x.copy(), y.copy()
    spoiled[:50] = 1e3  # the normalization must not see them either
    turned[:50] = (turned[:50] + 1) % 10
    plain, other = networks(x, y), networks(spoiled, turned)
    np.testing.assert_array_equal(plain[0], other[0])
    assert not np.allclose(plain[1], other[1]) and not np.allclose(plain[2], other[2])


def test_given_folds_and_regression(rng):
    x = rng.normal(size=(90, 3))
    y = x @ np.array([1.0, -2.0, 0.5])
    settings = [
        Settings(hidden=(8,), epochs=30, batch_size=16, lr=lr, optimizer="adam")
        for lr in (0.02, 1e-6)
    ]
    found = cross_validate(x, y, settings, folds=[np.arange(30), [80, 85]], output="identity")
    assert found.scoring == "r2" and found.best_index_ == 0
    assert found.best_score_ > 0.9 > found.cv_results_["mean_test_score"][1]
    assert [fold.size for fold in found.folds] == [30, 2]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_diverges_comes_last(digits):
    settings = [
        Settings(hidden=(8,), epochs=2, batch_size=32, lr=lr, optimizer="sgd", momentum=0.9)
        for lr in (1e37, 0.05)
    ]
    found = cross_validate(*digits, settings, folds=2)
    assert found.cv_results_["diverged"].tolist() == [2, 0]
    assert found.cv_results_["rank_test_score"].tolist() == [2, 1]
    assert np.isnan(found.cv_results_["mean_test_score"][0]) and found.best_index_ == 1


def test_table_is_sorted_and_a_frame_where_pandas_is(digits, monkeypatch):
    settings = expand({"lr": [1e-6, 0.02]}, BASE)
    found = cross_validate(*digits, settings, folds=2)
    frame = found.table()
    assert frame.index.tolist() == [1, 0] and frame["param_lr"].tolist() == [0.02, 1e-6]
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    rows = found.table()
    assert [row["param_lr"] for row in rows] == [0.02, 1e-6]
    assert set(rows[0]) == set(frame.columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds"),
        ({"folds": [np.arange(150)]}, "one left to train on"),
        ({"folds": [[0, 0, 1]]}, "none twice"),
        ({"folds": [[150]]}, r"0…149"),
        ({"folds": []}, "got 0 folds"),
        ({"folds": [([0, 1], [1, 2])]}, "held out too"),
        ({"folds": [([0, 0], [1, 2])]}, "none twice"),
        ({"folds": [([0, 200], [1, 2])]}, r"0…149"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 1]}, "each once"),
        ({"settings": []}, "at least one setting"),
        ({"settings": [BASE, BASE]}, "number 0 again as number 1"),
        ({"memory": 1000}, "fit into memory"),
    ],
)
def test_mistakes(digits, options, message):
    with pytest.raises(ConfigError, match=message):
        cross_validate(*digits, **{"settings": BASE} | options)


@pytest.mark.parametrize("labels", [["a", "b"] * 6, [0.0, 1.0] * 6], ids=["names", "floats"])
def test_classes_without_numbers_are_refused(labels):
    with pytest.raises(DTypeError, match=r"numpy.unique\(y, return_inverse=True\)"):
        cross_validate(np.zeros((12, 2)), labels, Settings(epochs=1), folds=2)


def test_missing_values_are_named():
    x = np.zeros((12, 2))
    x[7, 1] = np.nan
    with pytest.raises(DataError, match=r"NaN .* column number 1 .* row"):
        cross_validate(x, [0, 1] * 6, Settings(epochs=1), folds=2)


@pytest.mark.parametrize(
    "splitter",
    [
        KFold(4),
        StratifiedKFold(3, shuffle=True, random_state=0),
        ShuffleSplit(3, test_size=0.1, train_size=0.5, random_state=0),
    ],
)
def test_splitters_and_their_pairs(digits, splitter):
    x, y = digits
    pairs = list(splitter.split(x, y))
    found = cross_validate(x, y, BASE, folds=splitter)
    given = cross_validate(x, y, BASE, folds=pairs)
    for name, values in found.cv_results_.items():
        if name != "mean_fit_time":
            np.testing.assert_array_equal(given.cv_results_[name], values)
    for fold, (_, test) in zip(found.folds, pairs, strict=True):
        np.testing.assert_array_equal(fold, np.sort(test))


def test_only_the_rows_of_a_pair_are_trained_on(digits):
    x, y = digits
    spoilt = x.copy()
    spoilt[100:] = 1e3
    pairs = [(np.arange(50), np.arange(50, 100)), (np.arange(50, 100), np.arange(50))]
    one, other = (cross_validate(a, y, BASE, folds=pairs) for a in (x, spoilt))
    assert one.best_score_ == other.best_score_


def test_splitters_by_groups(digits):
    x, y = digits
    groups = np.arange(150) % 7
    found = cross_validate(x, y, BASE, folds=GroupKFold(3), groups=groups)
    for fold in found.folds:
        assert not np.intersect1d(groups[fold], np.delete(groups, fold)).size
    numbers = cross_validate(x, x[:, :1], BASE, folds=KFold(2), output="identity")
    assert len(numbers.folds) == 2
