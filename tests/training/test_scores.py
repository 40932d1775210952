"""Figures of several batches are those of all their rows at once, on every path."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.backend import to_numpy
from xpmlp.errors import ConfigError, ShapeError
from xpmlp.layers import Linear, Sequential
from xpmlp.losses import (
    MSE,
    NLL,
    BCEWithLogits,
    HalfSSE,
    Huber,
    MulticlassHinge,
    SoftmaxCrossEntropy,
)
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.training import PopulationTrainer, Trainer, scores
from xpmlp.training.minibatches import minibatches

ROWS, CLASSES = 90, 3


def network(output="softmax", outputs=CLASSES, **options):
    return FullyConnectedNet([5, 6, outputs], output=output, seed=1, dtype="float64", **options)


def cases(rng):
    """Losses with targets of which batches hold unequal shares, by name."""
    labels = np.sort(rng.integers(0, CLASSES, ROWS))
    ignored = np.where(np.arange(ROWS) < 25, -100, labels)
    shares = rng.dirichlet(np.ones(CLASSES), ROWS)
    numbers, yes = rng.normal(size=(ROWS, CLASSES)), rng.integers(0, 2, (ROWS, CLASSES))
    weights = [1.0, 10.0, 100.0]
    found = {}
    for reduction in ("mean", "sum"):
        for name, options, targets in (
            ("plain", {}, labels),
            ("ignored", {"ignore_index": -100}, ignored),
            ("ignored class", {"ignore_index": 0}, labels),
            ("weighted", {"class_weights": weights}, labels),
            ("both", {"class_weights": weights, "ignore_index": -100}, ignored),
            ("zero weight", {"class_weights": [0.0, 1.0, 2.0], "label_smoothing": 0.1}, labels),
            ("shares", {"class_weights": weights}, shares),
        ):
            loss = SoftmaxCrossEntropy(reduction=reduction, **options)
            found[f"cross-entropy {name} {reduction}"] = loss, targets
        found[f"hinge {reduction}"] = MulticlassHinge(reduction=reduction), labels
        found[f"nll {reduction}"] = NLL(reduction=reduction), labels
        found[f"mse {reduction}"] = MSE(reduction=reduction), numbers
        found[f"huber {reduction}"] = Huber(reduction=reduction), numbers
        found[f"half sse {reduction}"] = HalfSSE(reduction=reduction), numbers
        found[f"yes/no {reduction}"] = BCEWithLogits(reduction=reduction), yes
    return found


NAMES = list(cases(np.random.default_rng(0)))


def expected(model, loss, x, y):
    """Of all rows in one forward, and with NumPy alone."""
    outputs = model.forward(x)
    found = {"loss": to_numpy(loss.forward(outputs, y))}
    outputs, y = to_numpy(outputs), to_numpy(y)
    if isinstance(loss, BCEWithLogits):
        found["accuracy"] = ((outputs > 0) == (y > 0.5)).mean(axis=(-2, -1))
    elif loss.answers == "classes":
        counted = y != (-1 if getattr(loss, "ignore_index", None) is None else loss.ignore_index)
        if y.ndim == 2:
            y, counted = y.argmax(-1), slice(None)
        found["accuracy"] = (outputs.argmax(-1) == y)[..., counted].mean(axis=-1)
    else:
        error = ((outputs - y) ** 2).sum(axis=(-2, -1))
        found["r2"] = 1 - error / ((y - y.mean(axis=0)) ** 2).sum()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_all_rows_at_once(name, library, rng):
    x, (loss, y) = rng.normal(size=(ROWS, 5)), cases(rng)[name]
    model, x, y = network(), library.array(x), library.array(y)
    found = scores.scores_of(
        model, loss, minibatches(model, x, y, batch_size=25, shuffle=False).epoch()
    )
    wanted = expected(model, loss, x, y)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-12, err_msg=key)


@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize("name", NAMES)
def test_training_figures_are_those_of_all_rows_at_once(name, kernels, rng, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x, (loss, y) = rng.normal(size=(ROWS, 5)), cases(rng)[name]
    model = network()
    wanted = expected(model, loss, x, y)
    still = SGD(0.0)  # so that every batch meets the same network
    row = Trainer(model, loss, still, epochs=1, batch_size=25, progress=False).fit(x, y).rows[0]
    assert row["train_loss"] == pytest.approx(wanted["loss"], rel=1e-12)
    if "accuracy" in wanted:
        assert row["train_accuracy"] == pytest.approx(wanted["accuracy"], rel=1e-12)


@pytest.mark.parametrize("sampling", ["shared", "own"])
@pytest.mark.parametrize("name", NAMES)
def test_members_of_a_population_have_the_figures_that_each_has_alone(name, sampling, rng):
    x, (loss, y) = rng.normal(size=(ROWS, 5)), cases(rng)[name]
    model = network(population=2)
    options = {"epochs": 1, "batch_size": 25, "progress": False, "sampling": sampling}
    trainer = PopulationTrainer(model, loss, SGD(0.0), **options)
    curves = trainer.fit(x, y, validation=(x, y)).curves
    found = trainer.evaluate_members(x, y)
    for member in range(2):
        wanted = expected(model.member(member), loss, x, y)
        for key, value in wanted.items():
            assert found[key][member] == pytest.approx(value, rel=1e-12), key
            assert curves[f"val_{key}"][0, member] == pytest.approx(value, rel=1e-12), key
            if key != "r2":
                assert curves[f"train_{key}"][0, member] == pytest.approx(value, rel=1e-12), key


def test_rows_that_are_all_ignored_have_loss_0_and_no_accuracy(rng):
    loss = SoftmaxCrossEntropy(ignore_index=-1)
    found = Trainer(network(), loss, progress=False).evaluate(rng.normal(size=(4, 5)), [-1] * 4)
    assert found["loss"] == 0.0 and np.isnan(found["accuracy"])


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_one_logit_is_scored_by_its_sign(kernels, library, rng, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x = rng.normal(size=(60, 5))
    y = (x[:, :1] > 0.3).astype(np.int64)
    model = network("sigmoid", 1)
    trainer = Trainer(model, optimizer=SGD(0.5), epochs=2, progress=False)
    assert isinstance(trainer.loss, BCEWithLogits)  # which goes with the output
    row = trainer.fit(x, y, validation=(x, y)).rows[-1]
    right = np.mean(library.numpy(model.predict(x)) == y)
    assert row["val_accuracy"] == pytest.approx(right) and "val_r2" not in row
    assert 0.0 <= row["train_accuracy"] <= 1.0


def test_the_default_loss_goes_with_the_output(rng):
    x, y = rng.normal(size=(40, 5)), rng.random(size=(40, 1))
    trainer = Trainer(network("identity", 1), optimizer=SGD(0.1), epochs=20, progress=False)
    history = trainer.fit(x, x[:, :1], validation=(x, x[:, :1]))
    assert isinstance(trainer.loss, MSE) and history["val_r2"][-1] > 0.5
    assert isinstance(Trainer(Sequential(Linear(2, 2)), progress=False).loss, SoftmaxCrossEntropy)
    with pytest.raises(ConfigError, match=r"at least 2 outputs.*output='sigmoid'"):
        Trainer(network(outputs=1), progress=False).fit(x, y)
    with pytest.raises(ConfigError, match="at least 2 outputs"):
        Trainer(network(outputs=1), progress=False).fit(x, np.arange(40) % 2)
    with pytest.raises(ConfigError, match="at least 2 outputs"):
        PopulationTrainer(network(outputs=1, population=2), progress=False).fit(x, y)


@pytest.mark.parametrize("make", [network, lambda: network(population=2)])
def test_a_loss_for_each_row_is_refused_before_the_first_step(make, rng):
    kind = Trainer if make().population is None else PopulationTrainer
    none = SoftmaxCrossEntropy(reduction="none")
    with pytest.raises(ConfigError, match="reduction 'mean' or 'sum'"):
        kind(make(), none, progress=False)
    trainer = kind(make(), progress=False)
    trainer.loss = none
    before = trainer.model.state_dict()
    for attempt in (trainer.fit, trainer.evaluate):
        with pytest.raises(ConfigError, match="reduction"):
            attempt(rng.normal(size=(8, 5)), np.zeros(8, int))
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    "loss", [SoftmaxCrossEntropy(), SoftmaxCrossEntropy(ignore_index=1), MSE()]
)
def test_steps_of_sequences_are_rows(loss, library, rng):
    x = rng.normal(size=(22, 7, 5))
    classes = loss.answers == "classes"
    y = rng.integers(0, CLASSES, (22, 7)) if classes else rng.normal(size=(22, 7, CLASSES))
    flat_y = y.reshape(-1) if classes else y.reshape(-1, CLASSES)
    model, flat = network(), network()
    options = {"epochs": 2, "progress": False, "shuffle": False}
    given = library.array(x), library.array(y)
    found = Trainer(model, loss, SGD(0.1), batch_size=4, **options).fit(*given, validation=given)
    same = Trainer(flat, loss, SGD(0.1), batch_size=4 * 7, **options).fit(
        library.array(x.reshape(-1, 5)),
        library.array(flat_y),
        validation=(library.array(x.reshape(-1, 5)), library.array(flat_y)),
    )
    for row, other in zip(found.rows, same.rows, strict=True):
        for name in other:
            if name not in ("seconds", "samples_per_second"):
                assert row[name] == pytest.approx(other[name], rel=1e-9), name
    outputs = library.numpy(model.outputs(x, batch_size=5))  # in several batches
    np.testing.assert_allclose(
        outputs.reshape(-1, CLASSES), library.numpy(flat.outputs(x.reshape(-1, 5))), rtol=1e-9
    )


def test_sequences_that_would_pass_for_something_else_are_refused(rng):
    x = rng.normal(size=(6, 6, 5))
    with pytest.raises(ShapeError, match=r"each of the outputs' rows \(6, 6\)"):
        Trainer(network(), progress=False).fit(x, np.zeros(6, int))
    nets = network(population=3)
    for sampling in ("shared", "own"):
        trainer = PopulationTrainer(nets, progress=False, batch_size=3, sampling=sampling)
        with pytest.raises(ShapeError, match=r"x.reshape\(-1, 5\)"):
            trainer.fit(x, np.zeros((6, 6), int))
    with pytest.raises(ShapeError, match=r"x.reshape\(-1, 5\)"):
        Trainer(nets, progress=False).evaluate(x, np.zeros((6, 6), int))
