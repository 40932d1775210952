"""Starting again and going on; and what trainers copy, restore and leave alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from xpmlp.errors import ConfigError, DataError, StateError
from xpmlp.layers import Linear, Sequential
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam
from xpmlp.schedules import Cosine, WarmUp
from xpmlp.training import Callback, EarlyStopping, OnEpoch, PopulationTrainer, Trainer, TrainStep


def data(rng, rows=40):
    x = rng.normal(size=(rows, 5))
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


def network(**options):
    return FullyConnectedNet([5, 8, 3], seed=1, dtype="float64", **options)


def trainer(model=None, kind=Trainer, **options):
    return kind(model or network(), **{"batch_size": 10, "epochs": 3, "progress": False} | options)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": Adam(1e-2, schedule="onecycle")},
        {"optimizer": Adam(1e-2, schedule=WarmUp(steps=3, then="cosine"))},
        {"optimizer": SGD(0.1), "lr_decay": 0.5},
    ],
)
@pytest.mark.parametrize("population", [None, 2])
def test_a_second_fit_plans_its_rates_anew(options, population, rng):
    kind = Trainer if population is None else PopulationTrainer
    t = trainer(network(population=population), kind, **options)
    x, y = data(rng)
    first = t.fit(x, y)["lr"]
    assert t.fit(x, y)["lr"] == first
    more = t.fit(np.tile(x, (2, 1)), np.tile(y, 2))  # and for as many steps as these data take
    assert len(set(more["lr"])) == 3 and t.total_steps == 24


def test_a_second_fit_starts_with_an_optimizer_that_remembers_nothing(rng):
    x, y = data(rng)
    t = trainer(optimizer=Adam(1e-2))
    t.fit(x, y)
    kept = t.model.state_dict()
    t.fit(x, y)
    other = network()
    other.load_state_dict(kept)
    trainer(other, optimizer=Adam(1e-2)).fit(x, y)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(t.model.state_dict()[name], array)


@pytest.mark.parametrize("schedule", [None, Cosine(total=24)])
def test_resuming_is_one_training(schedule, rng, library):
    x, y = (library.array(a) for a in data(rng))
    whole = trainer(network(dropout=0.2), optimizer=Adam(1e-2, schedule=schedule), epochs=6)
    parts = trainer(network(dropout=0.2), optimizer=Adam(1e-2, schedule=schedule), epochs=3)
    expected = whole.fit(x, y)
    parts.fit(x, y)
    history = parts.resume(x, y, epochs=3)
    for name in ("epoch", "step", "train_loss", "lr"):
        assert history[name] == expected[name]
    np.testing.assert_array_equal(history.step_losses, expected.step_losses)
    for name, array in whole.model.state_dict().items():
        np.testing.assert_array_equal(parts.model.state_dict()[name], array)


def test_what_was_stopped_goes_on_to_its_end(rng):
    x, y = data(rng)

    class Stop(Callback):
        def on_epoch(self, trainer, row):
            if row["epoch"] == 2:
                trainer.stop("a reason")

    stopped = trainer(optimizer=Adam(1e-2, schedule="cosine"), epochs=5, callbacks=[Stop()])
    assert len(stopped.fit(x, y, (x, y))) == 2
    history = stopped.resume(x, y, (x, y))
    assert history["epoch"] == [1, 2, 3, 4, 5]
    best = int(np.argmax([row["val_accuracy"] - 1e-3 * row["val_loss"] for row in history.rows]))
    assert history.best_epoch == best + 1
    with pytest.raises(ConfigError, match="fit starts another training"):
        stopped.resume(x, y)
    with pytest.raises(ConfigError, match=r"schedule for 24 steps.*of which 20 are made"):
        stopped.resume(x, y, epochs=1)
    with pytest.raises(ConfigError, match="population cannot go on"):
        trainer(network(population=2), PopulationTrainer).resume(x, y)


@pytest.mark.parametrize("population", [None, 2])
def test_trainers_leave_the_optimizer_that_they_are_given_alone(population, rng):
    x, y = data(rng)
    kind = Trainer if population is None else PopulationTrainer
    optimizer = Adam(1e-2, schedule="onecycle")
    before = copy.copy(optimizer.schedule)
    losses = [
        trainer(network(population=population), kind, optimizer=optimizer).fit(x, y)["train_loss"]
        for _ in range(2)
    ]
    assert losses[0] == losses[1]
    assert (optimizer.steps, optimizer.state, optimizer.schedule) == (0, {}, before)


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_an_optimizer_refuses_another_network(kernels, rng, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x, y = data(rng)
    optimizer = Adam(1e-2)
    first, second = (TrainStep(network(), SoftmaxCrossEntropy(), optimizer) for _ in range(2))
    first(x, y)
    for step in (second, TrainStep(network(), SoftmaxCrossEntropy(), optimizer)):
        with pytest.raises(StateError, match=r"optimizer.fresh\(\)"):
            step(x, y)
    first(x, y)
    del first, step  # its network is no more: the memory is still that network's
    with pytest.raises(StateError, match="got another one"):
        second(x, y)
    second.optimizer = optimizer.fresh()
    second(x, y)
    assert second.optimizer.steps == 1 and optimizer.steps == 2


@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.1)])
def test_an_optimizer_refuses_parameters_of_other_names_or_shapes(optimizer, kernels, rng, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x, y = data(rng)
    optimizer = optimizer.fresh()
    TrainStep(network(), SoftmaxCrossEntropy(), optimizer)(x, y)
    other = Sequential(*(Linear(n, m, rng=0, dtype="float64") for n, m in [(5, 4), (4, 4), (4, 3)]))
    used = copy.deepcopy(optimizer)  # belongs to nobody
    with pytest.raises(StateError, match=r"was not among them|had shape"):
        TrainStep(other, SoftmaxCrossEntropy(), used)(x, y)
    other.backward(np.ones_like(other.forward(x)))
    with pytest.raises(StateError, match=r"optimizer.fresh\(\)"):
        optimizer.update(other.params, other.grads)


def test_copies_of_an_optimizer_go_their_own_way(rng):
    x, y = data(rng)
    optimizer, net = Adam(0.1), network()
    step = TrainStep(net, SoftmaxCrossEntropy(), optimizer)
    step(x, y)
    twin = optimizer.copy()
    kept = {name: [a.copy() for a in slots] for name, slots in twin.state.items()}
    step(x, y)
    assert (twin.steps, optimizer.steps) == (1, 2)
    for name, slots in twin.state.items():
        for slot, before in zip(slots, kept[name], strict=True):
            np.testing.assert_array_equal(slot, before)


# What fails leaves things as they were.


class Poison(Callback):
    def __init__(self, epoch, value=1e200):
        self.epoch, self.value = epoch, value

    def on_epoch(self, trainer, row):
        if row["epoch"] == self.epoch:
            trainer.optimizer.lr = self.value


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_a_training_that_diverges_leaves_the_last_finite_network(kernels, rng, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x, y = data(rng)
    good = trainer(optimizer=SGD(0.1), epochs=2)
    good.fit(x, y)
    bad = trainer(optimizer=SGD(0.1), epochs=9, callbacks=[Poison(2)])
    assert bad.fit(x, y).ending.startswith("diverged")
    for name, array in good.model.state_dict().items():
        np.testing.assert_array_equal(bad.model.state_dict()[name], array)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("population", [None, 2])
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_a_last_step_that_overflows_is_no_finished_training(population, kernels, rng, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    kind = Trainer if population is None else PopulationTrainer
    net = FullyConnectedNet([5, 1], output="identity", seed=1, population=population)
    before = net.state_dict()
    x = np.full((4, 5), 1e18, "float32")  # the loss is finite, its gradient times x is not
    t = trainer(net, kind, loss=MSE(), optimizer=SGD(1e6), epochs=1)
    history = t.fit(x, np.zeros((4, 1), "float32"))
    assert np.isfinite(history.step_losses).all()
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    if population is None:
        assert history.ending.startswith("diverged: the network is not finite")
    else:
        assert history.best_epochs == [0, 0]


def test_a_refused_batch_moves_neither_statistics_nor_masks(library, rng):
    net = network(normalization="batchnorm", dropout=0.3)
    step = TrainStep(net, SoftmaxCrossEntropy(), Adam(0.1))
    x, y = (library.array(a) for a in data(rng))
    step.by_layers(x, y)
    before, masks = net.state_dict(), net.layers[3].step
    with pytest.raises(ValueError):
        step.by_layers(x, y[:-1])
    assert net.layers[3].step == masks and step.optimizer.steps == 1
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_label_out_of_range_keeps_what_is_trained(rng):
    x, y = data(rng)
    t = trainer()
    t.fit(x, y)
    before = t.model.state_dict()
    with pytest.raises(DataError, match="class numbers in"):
        t.fit(x[:10], np.full(10, 99))
    for name, array in t.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# Options in the form that comes to mind.


@pytest.mark.parametrize("lr_decay", [-1, 0.0, float("nan"), float("inf"), "0.5", None])
def test_a_decay_that_is_none_is_refused(lr_decay):
    with pytest.raises(ConfigError, match="lr_decay to be a finite number > 0"):
        trainer(lr_decay=lr_decay)


def test_one_callback_is_a_list_of_one_and_what_is_none_is_named(rng):
    x, y = data(rng)
    assert len(trainer(callbacks=EarlyStopping(2)).fit(x, y, (x, y))) == 3
    rows = []
    trainer(callbacks=(OnEpoch(rows.append),)).fit(x, y)
    assert len(rows) == 3
    for wrong, hint in (
        (print, r"OnEpoch\(function\)"),
        ([print], r"OnEpoch\(function\)"),
        (EarlyStopping, r"EarlyStopping\(…\)"),
        (7, "got 7"),
    ):
        with pytest.raises(ConfigError, match=hint):
            trainer(callbacks=wrong)
