"""Folds in a population: who trains on what, and how all are judged together."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.data.member_batches import MemberBatches
from xpmlp.data.orders import Orders, fold_orders, fold_rows, group_folds
from xpmlp.errors import ConfigError, DataError
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, AdamW
from xpmlp.training import Checkpoint, EarlyStopping, OnEpoch, PopulationTrainer, TimeLimit
from xpmlp.training.out_of_fold import OutOfFold, folds_of

N, P, K = 103, 6, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 5))
CLASSES = (X[:, 0] + 0.5 * RNG.normal(size=N) > 0).astype(np.int64)
NUMBERS = np.c_[X[:, 0] + X[:, 1] ** 2, X[:, 2]]


def population(outputs=2, output="softmax", **options):
    options = {"population": P, "output": output, "dtype": "float64"} | options
    return FullyConnectedNet([5, 8, outputs], **options)


def trainer(model, loss=None, **options):
    options = {"progress": False, "epochs": 4, "batch_size": 16, "folds": K} | options
    return PopulationTrainer(model, loss, AdamW(1e-2), **options)


def by_hand(model, folds, probabilities=True):
    """The ensemble's predictions out of fold, member by member."""
    total, count = 0.0, np.zeros(N)
    total = np.zeros((N, model.config["sizes"][-1]))
    for number in range(P):
        alone = model.member(number)
        rows = folds[number % len(folds)]
        given = alone.predict_proba(X[rows]) if probabilities else alone.outputs(X[rows])
        total[rows] += np.asarray(given)
        count[rows] += 1
    return total / np.maximum(count, 1)[:, None], count > 0


def carried_on(model, folds, losses, weights, y=CLASSES):
    """The loss of all P members, from that of one and of those that share a row."""
    count = np.zeros(N)
    alone = total = 0.0
    for number in range(P):
        rows = folds[number % len(folds)]
        p = np.asarray(model.member(number).predict_proba(X[rows]))
        alone += weights[rows] @ -np.log(p[np.arange(len(rows)), y[rows]])
        total += weights[rows].sum()
        count[rows] += 1
    few = np.average(losses, weights=weights)
    slope = (alone / total - few) / (1 - np.average(1 / count, weights=weights))
    return alone / total - slope * (1 - 1 / P)


@pytest.mark.parametrize("folds", [K, [np.arange(0, 50), np.arange(50, 51), np.arange(51, N)]])
def test_the_ensemble_is_scored_on_rows_that_its_members_did_not_see(folds):
    model = population()
    t = trainer(model, folds=folds)
    history = t.fit(X, CLASSES)
    parts = folds_of(folds, CLASSES, N, t.seeds[0])
    mean, known = by_hand(model, parts)
    assert known.all()
    found, _ = t.out_of_fold.outputs(model)
    np.testing.assert_allclose(found, mean, atol=1e-12)
    best = int(np.argmin(history["ensemble_loss"]))
    loss = carried_on(model, parts, -np.log(mean[np.arange(N), CLASSES]), np.ones(N))
    np.testing.assert_allclose(history.rows[best]["ensemble_loss"], loss, rtol=1e-9)
    assert history.best_epochs == [best + 1] * P
    accuracy = np.mean(mean.argmax(axis=1) == CLASSES)
    np.testing.assert_allclose(history.rows[best]["ensemble_accuracy"], accuracy)


def test_numbers_are_judged_by_the_mean_of_the_members():
    model = population(2, "identity")
    t = trainer(model, MSE(), folds=P)  # a row is held out by one member: nothing to carry on
    history = t.fit(X, NUMBERS)
    mean, _ = by_hand(model, folds_of(P, NUMBERS, N, 0), probabilities=False)
    best = history.rows[history.best_epochs[0] - 1]
    np.testing.assert_allclose(best["ensemble_loss"], np.mean((mean - NUMBERS) ** 2), rtol=1e-9)
    assert best["ensemble_r2"] <= 1.0


def test_the_loss_of_few_members_is_carried_on_to_all_of_them():
    # Members that know the truth but for noise of their own: a + b/n, with a = 0.04 and b = 1.
    rng = np.random.default_rng(1)
    members, rows = 24, 6000
    folds = fold_rows(rows, 8)
    batches = MemberBatches(
        np.zeros((rows, 1)),
        rng.normal(scale=0.2, size=(rows, 1)),
        fold_orders(folds, rows, range(members)),
        batch_size=rows,
        dtype="float64",
    )
    held = OutOfFold(folds, batches, rows)
    model = FullyConnectedNet([1, 1], population=members, output="identity", dtype="float64")
    model.forward = lambda x, training=False: rng.normal(size=x.shape)
    found = held.scores(model, MSE())["ensemble_loss"]
    assert found == pytest.approx(0.04 + 1 / members, abs=0.02)


def test_a_mean_over_epochs_is_what_is_judged_and_kept():
    model, plain = population(), population()
    snapshots = []
    spy = OnEpoch(lambda row: snapshots.append(plain.state_dict()))
    trainer(plain, callbacks=[spy], restore_best=False).fit(X, CLASSES)
    trainer(model, average=0.6, restore_best=False).fit(X, CLASSES)
    mean = {name: values.copy() for name, values in snapshots[0].items()}
    for number, arrays in enumerate(snapshots[1:], 2):
        for name, values in arrays.items():
            mean[name] += max(1 / number, 0.4) * (values - mean[name])
    for name, values in model.state_dict().items():
        np.testing.assert_allclose(values, mean[name], atol=1e-12)
    with pytest.raises(ConfigError, match="average"):
        trainer(population(), average=1.0)


def test_a_training_with_a_mean_goes_on_from_its_checkpoint(tmp_path):
    whole, half = population(), population()
    options = {"average": 0.7, "epochs": 6}
    trainer(whole, **options).fit(X, CLASSES)
    path = tmp_path / "c.npz"

    def stop(row):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    saving = Checkpoint(path, every=0.0, share=1.0)
    with pytest.raises(KeyboardInterrupt):
        trainer(half, **options, callbacks=[saving, OnEpoch(stop)]).fit(X, CLASSES)
    again = population()
    trainer(again, **options, callbacks=[saving]).fit(X, CLASSES, resume=path)
    for name, values in whole.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], values)


def test_members_never_train_on_their_fold():
    # Targets of one fold are nonsense; the members that leave it out must not notice.
    folds = folds_of(K, CLASSES, N, 0)
    spoilt = CLASSES.copy()
    spoilt[folds[1]] = 1 - spoilt[folds[1]]
    runs = []
    for y in (CLASSES, spoilt):
        model = population()
        trainer(model, folds=folds, restore_best=False).fit(X, y)
        runs.append(model)
    for number in range(P):
        one, other = (model.member(number).params for model in runs)
        same = all(np.array_equal(one[name], other[name]) for name in one)
        assert same == (number % K == 1)


def test_early_stopping_by_the_ensemble_ends_all_members_at_once():
    model = population()
    stop = EarlyStopping(2, monitor="ensemble_loss")
    history = trainer(model, epochs=60, callbacks=[stop]).fit(X, RNG.integers(0, 2, N))
    assert len(history) < 60
    assert all(ending.startswith("early stopping: ensemble_loss") for ending in history.endings)
    assert len(history) == history.best_epochs[0] + 2
    assert len(set(history.best_epochs)) == 1


def test_a_member_that_diverges_is_left_out_of_the_ensemble():
    model = population(2, "identity")
    rates = [1e-3, 1e200, 1e-3, 1e-3, 1e-3, 1e-3]
    t = PopulationTrainer(
        model, MSE(), SGD(rates), folds=K, epochs=3, batch_size=16, progress=False
    )
    history = t.fit(X, NUMBERS)
    assert history.endings[1].startswith("diverged")
    assert np.isfinite(history["ensemble_loss"]).all()


def test_weights_count_in_the_ensembles_loss():
    weights = RNG.uniform(0.1, 5.0, N)
    model = population()
    t = trainer(model)
    history = t.fit(X, CLASSES, sample_weight=weights)
    mean, _ = by_hand(model, folds_of(K, CLASSES, N, 0))
    rows = -np.log(mean[np.arange(N), CLASSES])
    best = history.rows[history.best_epochs[0] - 1]
    loss = carried_on(model, folds_of(K, CLASSES, N, 0), rows, weights)
    np.testing.assert_allclose(best["ensemble_loss"], loss, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"folds": 1}, ConfigError, "folds"),
        ({"folds": [np.arange(N)]}, ConfigError, "each row in exactly one"),
        ({"folds": [np.arange(50), np.arange(49, N)]}, ConfigError, "each row in exactly one"),
    ],
)
def test_folds_that_are_none_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        trainer(population(), **options).fit(X, CLASSES)


def test_orders_and_folds_contradict_each_other():
    with pytest.raises(ConfigError, match="orders or folds"):
        trainer(population(), orders=Orders([np.arange(N)] * P, range(P)))


def test_weights_of_which_none_counts_are_refused():
    with pytest.raises(DataError, match="weight above 0"):
        trainer(population()).fit(X, CLASSES, sample_weight=np.zeros(N))


def test_a_time_limit_ends_the_training_and_keeps_the_best():
    t = trainer(population(), SoftmaxCrossEntropy(), epochs=10_000, callbacks=[TimeLimit(0.2)])
    history = t.fit(X, CLASSES)
    assert history.ending == "time limit: 0.2 seconds"
    assert len(history) < 10_000
    assert history.best_epochs[0] == int(np.argmin(history["ensemble_loss"])) + 1
    with pytest.raises(ConfigError, match="TimeLimit"):
        TimeLimit(0)


def test_groups_stay_together_in_folds_of_about_equal_size():
    groups = np.repeat(np.arange(12), np.arange(1, 13))
    parts = group_folds(groups, 4, seed=1)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    owners = [set(groups[part]) for part in parts]
    assert sum(map(len, owners)) == 12 and max(map(len, parts)) - min(map(len, parts)) <= 3
    assert len(group_folds(groups[:3], 8)) == 2
    with pytest.raises(ConfigError, match="two groups"):
        group_folds(np.zeros(5, dtype=int), 2)


def test_patience_may_be_a_share_of_the_epochs_before():
    stop = EarlyStopping(9, monitor="train_loss", share=0.5)
    for best, waits in ((2, 4), (8, 4), (12, 6), (20, 9)):
        stop.on_start(None)
        losses = [1.0 / epoch for epoch in range(1, best + 1)] + [1.0] * 30
        ends = [bool(stop.exhausted({"train_loss": loss})) for loss in losses]
        assert ends.index(True) + 1 == best + waits
    with pytest.raises(ConfigError, match="share"):
        EarlyStopping(3, share=0.0)
