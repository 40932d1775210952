"""Steps recorded into CUDA graphs against the same steps layer by layer, on the device."""

from __future__ import annotations

import numpy as np
import pytest

import xpmlp
from xpmlp import optim
from xpmlp.data.resident import ResidentBatches
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.penalties import L2
from xpmlp.step import CapturedStep
from xpmlp.training import TrainStep

# A refusal to capture, which is a warning elsewhere, is a failure here.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("error:`CapturedStep`")]
SIZES = [784, 64, 48, 10]
OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.05),
    "momentum": lambda: optim.SGD(0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adagrad": lambda: optim.AdaGrad(0.01),
    "rmsprop": lambda: optim.RMSProp(0.001),
    "adam": lambda: optim.Adam(0.001),
    "adamw": lambda: optim.AdamW(0.001, schedule=xpmlp.schedules.Cosine(total=100)),
}


def batches(rng, steps=100, rows=128, lead=()):
    for _ in range(steps):
        x = np.maximum(rng.standard_normal((*lead, rows, 784)), 0).astype(np.float32)
        yield xpmlp.asarray(x), xpmlp.asarray(rng.integers(0, 10, (*lead, rows)))


def both(optimizer, penalty=None, clip_norm=None, precision=None, **options):
    # A batch norm subtracts the bias before it again: its gradient is 0 but for rounding, which
    # Adam makes whole steps of.
    options = {"dropout": 0.2, "bias": options.get("normalization") != "batchnorm"} | options
    common = dict(penalty=penalty, clip_norm=clip_norm)
    loss = SoftmaxCrossEntropy
    eager = TrainStep(FullyConnectedNet(SIZES, **options), loss(), optimizer(), **common)
    replayed = CapturedStep(
        FullyConnectedNet(SIZES, **options), loss(), optimizer(), precision=precision, **common
    )
    return eager, replayed


def assert_equal_training(eager, replayed, data, rtol=2e-4, captured="captured"):
    """Values are compared after all steps: a loss that a later replay overwrites is seen.

    What rounding makes of one step grows in the next: the tolerance does by ``rtol`` every four.
    """
    expected, found = [], []
    for x, y in data:
        expected.append(eager.by_layers(x, y))
        found.append(replayed(x, y))
    assert replayed.explain(x, y) == captured
    expected = np.array([xpmlp.to_numpy(value) for value in expected])
    found = np.array([xpmlp.to_numpy(value) for value in found])
    for step, (value, wanted) in enumerate(zip(found, expected, strict=True)):
        tolerance = rtol * (1 + step / 4)
        np.testing.assert_allclose(value, wanted, rtol=tolerance, err_msg=f"loss of step {step}")
    state = replayed.model.state_dict()
    for name, array in eager.model.state_dict().items():
        gap = np.abs(state[name] - array).max() / max(np.abs(array).max(), 1e-3)
        assert gap < 50 * rtol, (name, gap)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_replays_equal_eager_steps(cupy, rng, name):
    data = [(x.astype(np.float64), y) for x, y in batches(rng)]
    assert_equal_training(*both(OPTIMIZERS[name], dtype="float64"), data, rtol=1e-8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_some_replays_in_single_precision(cupy, rng, name):
    """Few: a step of AdaGrad has the size of its rate also where a gradient is rounding alone."""
    assert_equal_training(*both(OPTIMIZERS[name]), batches(rng, 10), rtol=2e-3)


@pytest.mark.parametrize("normalization", ["batchnorm", "layernorm", "rmsnorm"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_every_kind_of_layer(cupy, rng, normalization, activation):
    steps = both(OPTIMIZERS["adam"], normalization=normalization, activation=activation)
    assert_equal_training(*steps, batches(rng, 30))


def test_shapes_take_turns(cupy, rng):
    data = [next(batches(rng, 1, rows)) for rows in (128, 96, 128, 128, 96, 31, 128)]
    assert_equal_training(*both(OPTIMIZERS["adam"], normalization="batchnorm"), data)


def test_a_population(cupy, rng):
    def optimizer():
        return optim.AdamW([1e-3, 2e-3, 3e-4], weight_decay=[0.0, 0.1, 0.2])

    options = dict(population=3, dropout=[0.0, 0.2, 0.4], seed=[1, 2, 3])
    assert_equal_training(*both(optimizer, **options), batches(rng, 20, lead=(3,)))
    assert_equal_training(*both(optimizer, clip_norm=[1, 2, 3], **options), batches(rng, 10))


def test_penalty_and_clipping(cupy, rng):
    steps = both(OPTIMIZERS["momentum"], penalty=L2(1e-3), clip_norm=0.5)
    assert_equal_training(*steps, batches(rng, 30))


def test_muon_updates_outside_of_the_graph(cupy, rng):
    steps = both(lambda: optim.Muon(0.01))
    text = "captured, but for the update"
    assert_equal_training(*steps, batches(rng, 10), rtol=2e-3, captured=text)


def test_float64(cupy, rng):
    data = [(x.astype(np.float64), y) for x, y in batches(rng, 20)]
    assert_equal_training(*both(OPTIMIZERS["adam"], dtype="float64"), data, rtol=1e-9)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize("normalization", [None, "batchnorm"])
def test_lower_precision_follows_float32(cupy, rng, precision, normalization):
    eager, replayed = both(OPTIMIZERS["adamw"], precision=precision, normalization=normalization)
    for x, y in batches(rng, 30):
        expected = float(eager.by_layers(x, y))
        assert float(replayed(x, y)) == pytest.approx(expected, rel=0.05)
    assert replayed.explain(x, y) == f"captured, in {precision}"


def test_a_replay_allocates_nothing(cupy, rng):
    eager, step = both(OPTIMIZERS["adam"])  # named, lest its memory be given back in between
    x, y = next(batches(rng, 1))
    values = [step(x, y) for _ in range(3)]
    del values
    used = cupy.get_default_memory_pool().used_bytes()
    for _ in range(20):
        step(x, y)
    cupy.cuda.get_current_stream().synchronize()
    assert cupy.get_default_memory_pool().used_bytes() == used
    assert eager is not None


def test_an_epoch_of_resident_data_waits_for_nothing(cupy, rng):
    """Recording would fail if anything in a step waited; losses come at the end, all at once."""
    x, y = rng.integers(0, 256, (1000, 784), dtype=np.uint8), rng.integers(0, 10, 1000)
    batches = ResidentBatches(cupy.asarray(x), cupy.asarray(y), batch_size=128, mean=0.0, std=255.0)
    eager, step = both(OPTIMIZERS["adam"])
    for epoch in range(3):
        losses, hits = step.run_epoch(batches, epoch)
        expected = [float(eager.by_layers(xb, yb)) for xb, yb in batches.epoch(epoch)]
        np.testing.assert_allclose(xpmlp.to_numpy(losses), expected, rtol=2e-4)
        assert 0 <= int(hits.sum()) <= 1000 and hits.shape == (8,)
    assert step.explain(*batches.like(128)) == "captured"


def test_changes_from_outside_reach_the_graph(cupy, rng):
    eager, replayed = both(OPTIMIZERS["adam"], normalization="batchnorm")
    assert_equal_training(eager, replayed, batches(rng, 5))
    state = eager.model.state_dict()
    for step in (eager, replayed):
        step.optimizer.lr = 3e-4
    assert_equal_training(eager, replayed, batches(rng, 5))
    for step in (eager, replayed):
        step.model.load_state_dict(state)
    assert_equal_training(eager, replayed, batches(rng, 5))
