"""Trainers with weights of rows: what they train, and the figures that they give."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.data import Batches
from xpmlp.errors import CheckpointError, ConfigError, DataError, ShapeError
from xpmlp.losses import MSE
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.training import Checkpoint, PopulationTrainer, Trainer

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(40, 4)), RNG.integers(0, 3, 40)
NUMBERS = RNG.normal(size=(40, 2))
WEIGHT = RNG.integers(0, 4, 40)
REPEATED = np.repeat(np.arange(40), WEIGHT)


def trainer(output="softmax", **options):
    net = FullyConnectedNet([4, 8, 3 if output == "softmax" else 2], output=output, dtype="float64")
    given = {"epochs": 3, "batch_size": 1000, "progress": False, "shuffle": False} | options
    return Trainer(net, optimizer=SGD(0.1), **given)


@pytest.mark.parametrize("output", ["softmax", "identity", "sigmoid"])
def test_weights_are_repeated_rows(output):
    y = {"softmax": Y, "identity": NUMBERS, "sigmoid": (NUMBERS > 0).astype(float)}[output]
    weighted, repeated = trainer(output), trainer(output)
    one = weighted.fit(X, y, (X, y, WEIGHT), sample_weight=WEIGHT)
    other = repeated.fit(X[REPEATED], y[REPEATED], (X[REPEATED], y[REPEATED]))
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        for name in mine:
            if name not in ("seconds", "samples_per_second"):
                assert mine[name] == pytest.approx(theirs[name], rel=1e-9), name
    for name, array in weighted.model.params.items():
        np.testing.assert_allclose(array, repeated.model.params[name], rtol=1e-8, atol=1e-12)
    scores = weighted.evaluate(X, y, WEIGHT)
    assert scores == pytest.approx(repeated.evaluate(X[REPEATED], y[REPEATED]))


def test_figures_of_several_batches_are_those_of_one():
    one, several = trainer(), trainer(batch_size=7)
    for each in one, several:
        each.optimizer = SGD(0.0)
    first = one.fit(X, Y, sample_weight=WEIGHT).rows[0]
    second = several.fit(X, Y, sample_weight=WEIGHT).rows[0]
    for name in ("train_loss", "train_accuracy"):
        assert first[name] == pytest.approx(second[name])


def test_shuffled_rows_keep_their_weights():
    batches = Batches(X, np.arange(40), sample_weight=WEIGHT, batch_size=7, seed=3)
    for _, rows, weights in batches.epoch(1):
        np.testing.assert_array_equal(weights, WEIGHT[rows])


def test_resume_takes_weights():
    whole, parted = trainer(), trainer()
    whole.fit(X, Y, sample_weight=WEIGHT)
    parted.epochs = 2
    parted.fit(X, Y, sample_weight=WEIGHT)
    parted.resume(X, Y, sample_weight=WEIGHT, epochs=1)
    for name, array in whole.model.params.items():
        np.testing.assert_array_equal(array, parted.model.params[name])


def test_other_weights_are_another_training(tmp_path):
    trainer(callbacks=[Checkpoint(tmp_path / "a.npz")]).fit(X, Y, (X, Y, WEIGHT))
    with pytest.raises(CheckpointError, match="validation sample_weight"):
        trainer().fit(X, Y, (X, Y, WEIGHT + 1), resume=tmp_path / "a.npz")


@pytest.mark.parametrize("sampling", ["shared", "own"])
def test_populations(sampling):
    nets = FullyConnectedNet([4, 8, 3], population=2, dtype="float64")
    alone = nets.member(1)
    together = PopulationTrainer(
        nets, optimizer=SGD(0.1), epochs=2, batch_size=16, sampling=sampling, progress=False
    )
    history = together.fit(X, Y, (X, Y, WEIGHT), sample_weight=WEIGHT)
    single = Trainer(
        alone, optimizer=SGD(0.1), epochs=2, batch_size=16, progress=False, restore_best=False,
        seed=together.seeds[-1],
    )  # fmt: skip
    own = single.fit(X, Y, (X, Y, WEIGHT), sample_weight=WEIGHT)
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert history.curves[name][-1][1] == pytest.approx(own.rows[-1][name])
    scores = together.evaluate_members(X, Y, sample_weight=WEIGHT)
    rows = [np.arange(20), np.arange(20, 40)]
    parts = together.evaluate_members(X, Y, rows, sample_weight=WEIGHT)
    expected = nets.member(0)
    own_scores = Trainer(expected, progress=False).evaluate(X[:20], Y[:20], WEIGHT[:20])
    assert parts["loss"][0] == pytest.approx(own_scores["loss"])
    assert parts["accuracy"][0] == pytest.approx(own_scores["accuracy"])
    assert scores["loss"].shape == (2,)


@pytest.mark.parametrize(
    ("weight", "error"),
    [
        (np.ones(39), ShapeError),
        (-np.ones(40), DataError),
        (np.full(40, np.nan), DataError),
        (np.zeros(40), DataError),
    ],
)
def test_weights_that_are_none_are_refused(weight, error):
    with pytest.raises(error, match=r"weight"):
        trainer().fit(X, Y, sample_weight=weight)
    with pytest.raises(error, match=r"weight"):
        trainer().fit(X, Y, (X, Y, weight))


def test_validation_of_four_parts_is_refused():
    with pytest.raises(ConfigError, match="sample_weight"):
        trainer().fit(X, Y, (X, Y, WEIGHT, WEIGHT))


def test_the_loss_is_told_by_name():
    net = FullyConnectedNet([4, 2], output="identity", dtype="float64")
    own = Trainer(net, MSE(), SGD(0.0), epochs=1, progress=False)
    history = own.fit(X, NUMBERS, sample_weight=WEIGHT)
    errors = ((net.forward(X) - NUMBERS) ** 2).mean(axis=1)
    assert history.rows[0]["train_loss"] == pytest.approx(np.average(errors, weights=WEIGHT))
