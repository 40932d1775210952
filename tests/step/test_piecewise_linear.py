"""Steps of networks of numbers in bins and levels: compiled, captured, jitted, as by layers."""

from __future__ import annotations

import numpy as np
import pytest
from step import numpy_graph
from step.numpy_graph import traced
from step.test_captured import trace
from step.test_compiled import TOLERANCES, run_both

import xpmlp
from xpmlp.backend import backend_problems
from xpmlp.layers import Linear, PiecewiseLinear, Sequential
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, AdamW
from xpmlp.step import CapturedStep
from xpmlp.step.captured import step as captured
from xpmlp.training import TrainStep

COLUMNS = [("linear", 1), ("bins", 5), ("levels", 4), ("bins", 1), ("levels", 1)] * 2
N, C, P = 31, 4, 3
BATCHES = pytest.mark.parametrize(
    ("population", "lead"), [(None, ()), (P, ()), (P, (P,))], ids=["single", "shared", "separate"]
)


def make(population=None, dtype="float64", **options):
    sizes = [len(COLUMNS), 70, C]  # so wide that rows of its matrix are padded
    options |= {"population": population, "dtype": dtype, "columns": COLUMNS}
    return FullyConnectedNet(sizes, **options)


def step_of(*given, **options):
    optimizer = AdamW(0.01, weight_decay=0.1)
    return TrainStep(make(*given, **options), SoftmaxCrossEntropy(), optimizer)


def batch(rng, lead=(), dtype="float64"):
    x = rng.uniform(-1.0, 7.0, (*lead, N, len(COLUMNS)))
    x[..., ::2, :] = np.rint(x[..., ::2, :])  # edges, and levels
    return x.astype(dtype), rng.integers(0, C, (*lead, N))


@BATCHES
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize(("bias", "dtype"), [(True, "float64"), (False, "float32")])
def test_compiled(activation, bias, dtype, population, lead, rng):
    steps = [step_of(population, dtype, bias=bias, activation=activation) for _ in range(2)]
    batches = [batch(rng, lead, dtype) for _ in range(3)]
    run_both(steps, batches, TOLERANCES[dtype])


def test_behind_another_layer_steps_run_layer_by_layer(rng):
    pieces = PiecewiseLinear([("bins", 3), ("linear", 1)], C)
    model = Sequential(Linear(len(COLUMNS), 2, rng=1), pieces)
    step = TrainStep(model, SoftmaxCrossEntropy(), SGD(0.1))
    assert "not the first layer" in step.explain(*batch(rng, dtype="float32"))


@BATCHES
def test_captured(population, lead, rng, monkeypatch, without_kernels):
    monkeypatch.setattr(captured, "why_kernels_are_off", lambda: "")
    eager, model = step_of(population), trace(make(population))
    parts = model, SoftmaxCrossEntropy(), AdamW(0.01, weight_decay=0.1)
    replayed = CapturedStep(*parts, cuda=numpy_graph.make(fused=True))
    for _ in range(10):
        x, y = batch(rng, lead)
        expected = eager.by_layers(x, y)
        np.testing.assert_allclose(replayed(traced(x), traced(y)), expected, rtol=1e-9)
    assert replayed.explain(traced(x), traced(y)) == "captured"
    for name, array in eager.model.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], array, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@BATCHES
def test_jitted(population, lead, rng):
    if backend_problems()["jax"] is not None:
        pytest.skip("jax is not installed")
    with xpmlp.use_backend("jax"):
        jitted, by_layers = (step_of(population) for _ in range(2))
        for _ in range(3):
            x, y = map(xpmlp.asarray, batch(rng, lead))
            assert jitted.explain(x, y).startswith("jitted"), jitted.explain(x, y)
            np.testing.assert_allclose(jitted(x, y), by_layers.by_layers(x, y), rtol=1e-9)
        for name, array in by_layers.model.state_dict().items():
            np.testing.assert_allclose(jitted.model.state_dict()[name], array, rtol=1e-9, atol=1e-9)
