"""What is trained with can be copied, pickled and sent elsewhere, and is small then."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest

from xpmlp.layers import BatchNorm, Dropout, Linear, ReLU, Sequential
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.penalties import L2
from xpmlp.training import (
    EarlyStopping,
    PopulationTrainer,
    Progress,
    SaveHistory,
    Trainer,
    TrainStep,
)

ROUNDS = {
    "copy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "cloudpickle": lambda thing: pickle.loads(cloudpickle.dumps(thing)),
}


def batch(rng, rows=20):
    return rng.normal(size=(rows, 5)).astype("float32"), rng.integers(0, 3, rows)


def step(population=None):
    net = FullyConnectedNet(
        [5, 8, 3], normalization="batchnorm", dropout=0.2, population=population, seed=1
    )
    return TrainStep(net, SoftmaxCrossEntropy(), Adam(0.01), penalty=L2(1e-3), clip_norm=1.0)


@pytest.mark.parametrize("kind", ROUNDS)
@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_a_copy_of_a_step_goes_on_as_it_would_have(kind, population, kernels, rng, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x, y = batch(rng)
    original = step(population)
    for _ in range(3):
        original(x, y)
    twin = ROUNDS[kind](original)
    before = original.model.state_dict()
    values = [np.array(twin(x, y)) for _ in range(3)]
    for name, array in original.model.state_dict().items():  # which the copy left alone
        np.testing.assert_array_equal(array, before[name])
    for value in values:
        np.testing.assert_array_equal(original(x, y), value)


RECEIVE = """
import pickle, sys
import numpy as np
step, x, y = pickle.load(sys.stdin.buffer)
print([float(step(x, y)).hex() for _ in range(2)])
"""


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_used_step_runs_in_another_process(dumps, rng):
    x, y = batch(rng)
    used = step()
    used(x, y)
    sent = dumps((used, x, y))
    done = subprocess.run([sys.executable, "-c", RECEIVE], input=sent, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    expected = [float(used(x, y)).hex() for _ in range(2)]
    assert done.stdout.decode().strip() == str(expected)


def test_pickles_hold_neither_activations_nor_gradients(rng):
    x, y = batch(rng, 4000)
    net = Sequential(
        Linear(5, 8, rng=0), BatchNorm(8), ReLU(), Dropout(0.1, rng=1), Linear(8, 3, rng=2)
    )
    loss = SoftmaxCrossEntropy()
    fresh = len(pickle.dumps((net, loss)))
    TrainStep(net, loss, Adam(0.01)).by_layers(x, y)
    net.forward(x, training=True)
    assert len(pickle.dumps((net, loss))) < fresh + 100


def test_a_trained_network_pickles_at_the_size_of_its_parameters(rng):
    x, y = batch(rng, 200)
    net = FullyConnectedNet([5, 100, 3])
    Trainer(net, epochs=2, progress=False).fit(x, y, (x, y))
    net.predict(x)
    size = sum(array.nbytes for array in net.params.values())
    assert size < len(pickle.dumps(net)) < size + 3000
    twin = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(twin.predict(x), net.predict(x))
    assert not twin.grads


@pytest.mark.parametrize("kind", ROUNDS)
@pytest.mark.parametrize("population", [None, 2])
def test_trainers_and_callbacks_are_copied_before_during_and_after(kind, population, rng, tmp_path):
    x, y = batch(rng)
    trainer_type = Trainer if population is None else PopulationTrainer
    callbacks = [EarlyStopping(2), SaveHistory(tmp_path / "history.csv"), Progress()]
    net = FullyConnectedNet([5, 8, 3], seed=1, population=population)
    trainer = trainer_type(net, epochs=2, callbacks=callbacks, progress=False)
    expected = ROUNDS[kind](trainer).fit(x, y, (x, y))["train_loss"]
    during = []
    Progress.on_start(trainer.callbacks[-1], trainer)
    during.append(ROUNDS[kind](trainer))
    Progress.on_end(trainer.callbacks[-1], trainer, trainer.history)
    assert during[0].fit(x, y, (x, y))["train_loss"] == expected
    assert trainer.fit(x, y, (x, y))["train_loss"] == expected
    after = ROUNDS[kind](trainer)
    assert after.history["train_loss"] == expected
    assert after.fit(x, y, (x, y))["train_loss"] == trainer.fit(x, y, (x, y))["train_loss"]
