"""``metrics=``: of all rows at once, on every path that trains and evaluates."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from xpmlp.errors import ConfigError
from xpmlp.losses import MSE, BCEWithLogits, PoissonNLL, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.training import (
    EarlyStopping,
    Metric,
    PopulationTrainer,
    ReduceOnPlateau,
    Trainer,
    f1,
    rmse,
    roc_auc,
)
from xpmlp.training.chosen_metrics import as_metrics
from xpmlp.training.progress import describe
from xpmlp.training.scores import scores_of


def largest_error(y, outputs):
    return np.abs(outputs - y).max()


def network(output="softmax", outputs=3, **options):
    return FullyConnectedNet([5, 6, outputs], output=output, seed=1, **options)


def data(rng, rows=90):
    return rng.normal(size=(rows, 5)).astype(np.float32), np.sort(rng.integers(0, 3, rows))


def test_metrics_are_of_all_rows_and_not_means_of_batches(rng):
    x, y = data(rng)
    model, loss = network(), SoftmaxCrossEntropy()
    chosen = as_metrics(["f1", "auc", "top2", "accuracy"], loss)
    parts = [(x[a:b], y[a:b]) for a, b in ((0, 7), (7, 8), (8, 90))]
    found = scores_of(model, loss, parts, chosen)
    outputs = model.forward(x)
    assert found["f1"] == pytest.approx(f1(outputs, y))
    assert found["auc"] == pytest.approx(roc_auc(outputs, y))
    assert found.keys() == {"loss", "accuracy", "f1", "auc", "top2"}
    of_batches = np.mean([f1(model.forward(xb), yb) for xb, yb in parts])
    assert of_batches != pytest.approx(f1(outputs, y), abs=1e-3)  # so that the test can fail


def test_metrics_of_a_population_are_each_members(rng):
    x, y = data(rng)
    nets = network(population=3)
    options = {"metrics": "f1", "monitor": "val_f1", "epochs": 4, "progress": False}
    trainer = PopulationTrainer(nets, optimizer=Adam(0.1), **options)
    history = trainer.fit(x, y, validation=(x, y))
    assert history.curves["val_f1"].shape == (4, 3)
    outputs = nets.forward(x)
    np.testing.assert_allclose(
        trainer.evaluate_members(x, y)["f1"], [f1(part, y) for part in outputs]
    )
    np.testing.assert_array_equal(history.best("val_f1"), history.curves["val_f1"].max(axis=0))
    assert len(np.unique(history.curves["val_f1"])) > 6


def test_rows_that_the_loss_ignores_are_in_no_metric(rng):
    x, y = data(rng)
    y[::2] = -100
    model, loss = network(), SoftmaxCrossEntropy(ignore_index=-100)
    trainer = Trainer(model, loss, metrics=["f1", "accuracy"], progress=False)
    found, counted = trainer.evaluate(x, y), y >= 0
    assert found["f1"] == pytest.approx(f1(model.forward(x)[counted], y[counted]))
    right = model.forward(x)[counted].argmax(axis=1) == y[counted]
    assert found["accuracy"] == pytest.approx(np.mean(right))


def test_metrics_of_numbers_questions_and_rates(rng):
    x, _ = data(rng)
    y = rng.uniform(1.0, 2.0, (90, 2)).astype(np.float32)
    model = network("identity", 2)
    found = Trainer(model, MSE(), metrics=["rmse", "mae", largest_error]).evaluate(x, y)
    assert found["rmse"] == pytest.approx(np.sqrt(found["loss"]), rel=1e-6)
    assert found["largest_error"] == pytest.approx(largest_error(y, model.forward(x)))
    found = Trainer(model, PoissonNLL(), metrics="rmse").evaluate(x, y)
    assert found["rmse"] == pytest.approx(rmse(np.exp(model.forward(x)), y), rel=1e-6)
    yes = (y > 1.5).astype(np.float32)
    found = Trainer(network("sigmoid", 2), BCEWithLogits(), metrics=["auc", "f1"]).evaluate(x, yes)
    assert {"auc", "f1", "accuracy", "loss"} == found.keys()


def test_steps_of_sequences_are_rows(rng):
    x = rng.normal(size=(8, 4, 5)).astype(np.float32)
    y = rng.integers(0, 3, (8, 4))
    model = network()
    found = Trainer(model, metrics="f1").evaluate(x.reshape(-1, 5), y.reshape(-1))
    from xpmlp.layers import Linear, Sequential

    steps = Sequential(*[Linear.from_arrays(layer.W, layer.b) for layer in model.layers[:1]])
    assert Trainer(steps, SoftmaxCrossEntropy(), metrics="top2").evaluate(x, y).keys() >= {"top2"}
    assert 0.0 <= found["f1"] <= 1.0


def test_a_metric_is_in_the_history_and_the_line_and_decides(rng):
    x, y = data(rng)

    stopping = EarlyStopping(2, monitor="val_auc")
    trainer = Trainer(
        network(),
        optimizer=Adam(0.0),
        epochs=9,
        progress=False,
        metrics=["auc"],
        monitor="val_auc",
        callbacks=stopping,
    )
    history = trainer.fit(x, y, validation=(x, y))
    values = history["val_auc"]
    assert history.best_epoch == 1 and values[0] == values[2]
    assert history.ending.startswith("early stopping: val_auc") and len(history) == 3
    assert f"auc {values[0]:.4g}" in describe(history.rows[0], 9)
    assert "val_auc=" in repr(history)
    assert "val_auc" in history.to_pandas()


def test_smaller_errors_are_better(rng):
    x, _ = data(rng)
    y = x[:, :1].copy()
    trainer = Trainer(
        network("identity", 1),
        epochs=4,
        progress=False,
        metrics={"off": Metric(largest_error, False), "rmse": "rmse"},
        monitor="val_off",
        callbacks=ReduceOnPlateau(3, monitor="val_rmse"),
    )
    history = trainer.fit(x, y, validation=(x, y))
    assert history.best_epoch == 1 + int(np.argmin(history["val_off"]))


def test_a_function_that_does_not_say_what_is_better_decides_nothing(rng):
    x, _ = data(rng)
    y = x[:, :1].copy()
    options = {"epochs": 1, "progress": False, "metrics": [largest_error]}
    history = Trainer(network("identity", 1), **options).fit(x, y, validation=(x, y))
    assert history["val_largest_error"][0] > 0.0
    trainer = Trainer(network("identity", 1), monitor="val_largest_error", **options)
    with pytest.raises(ConfigError, match="larger_is_better"):
        trainer.fit(x, y, validation=(x, y))


def test_a_trainer_with_metrics_can_be_pickled(rng):
    x, y = data(rng)
    trainer = Trainer(network(), metrics=["f1", "top2"], progress=False)
    again = pickle.loads(pickle.dumps(trainer))
    assert again.evaluate(x, y) == trainer.evaluate(x, y)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("f2", "expected one of accuracy, f1, auc"),
        ("rmse", "rmse is for numbers"),
        (3, "expected a function"),
        (["f1", "f1"], "each name once"),
        ({"loss": largest_error}, "a name for its column"),
        (lambda y, o: 0.0, "a name for its column"),
        ("top0", "expected one of"),
    ],
)
def test_what_is_no_metric_is_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        Trainer(network(), metrics=given)


def test_a_metric_gives_a_number(rng):
    x, y = data(rng)
    trainer = Trainer(network(), metrics={"pair": lambda y, outputs: (1, 2)}, progress=False)
    with pytest.raises(
        ConfigError, match=r"`pair`: expected a metric to give a number, got \(1, 2\)"
    ):
        trainer.evaluate(x, y)
