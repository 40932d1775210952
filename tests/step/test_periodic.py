"""Steps of networks whose numbers become waves: compiled, captured and jitted, as by layers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from step import numpy_graph
from step.numpy_graph import traced
from step.shares import assert_shares_give_the_same_bits
from step.test_captured import trace

from xpmlp.backend import backend_problems
from xpmlp.layers import Linear, Periodic, ReLU, Residual, Sequential, Tanh
from xpmlp.losses import MSE
from xpmlp.optim import AdamW
from xpmlp.step import CapturedStep
from xpmlp.step.captured import step as captured
from xpmlp.training import TrainStep

N, F, K, P = 13, 4, 9, 3
DIMS = (None, 5, 65)  # rows of 65 are padded in a compiled step
BATCHES = pytest.mark.parametrize(
    ("population", "lead"), [(None, ()), (P, ()), (P, (P,))], ids=["single", "shared", "separate"]
)


def make(dim, population=None, dtype="float64", inner=False):
    common = {"population": population, "dtype": dtype, "rng": 1}
    waves = Periodic(F, K, dim=dim, scale=1.0, **common)
    width = waves.width * F
    before = [Linear(F, F, **common), Residual(Tanh()), ReLU()] if inner else []
    return Sequential(*before, waves, Linear(width, 9, **common), ReLU(), Linear(9, 2, **common))


def step_of(*args, **options):
    return TrainStep(make(*args, **options), MSE(), AdamW(0.01, weight_decay=0.1))


def batch(rng, lead=(), dtype="float64", population=None):
    x = rng.normal(size=(*lead, N, F)).astype(dtype)
    return x, rng.normal(size=(*(lead or [population] * bool(population)), N, 2)).astype(dtype)


def assert_same(mine, expected, tolerance):
    for name, array in expected.items():
        np.testing.assert_allclose(mine[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("inner", [False, True], ids=["first", "inner"])
@BATCHES
@pytest.mark.parametrize("dim", DIMS)
def test_compiled(dim, population, lead, inner, dtype, tolerance, rng):
    pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')
    compiled, by_layers = (step_of(dim, population, dtype, inner) for _ in range(2))
    for _ in range(3):
        x, y = batch(rng, lead, dtype, population)
        assert compiled.explain(x, y) == "compiled"
        value, expected = compiled(x, y), by_layers.by_layers(x, y)
        np.testing.assert_allclose(value, expected, rtol=tolerance)
        assert_same(compiled.model.grads, by_layers.model.grads, tolerance)
    assert_same(compiled.model.state_dict(), by_layers.model.state_dict(), 30 * tolerance)


@pytest.mark.parametrize("dim", DIMS[:2])
def test_shares_give_the_same_bits(dim, rng, monkeypatch):
    batch_of_it = batch(rng, dtype="float32")
    new_step = partial(step_of, dim, dtype="float32")
    assert_shares_give_the_same_bits(new_step, *batch_of_it, monkeypatch)


def test_other_inputs_run_layer_by_layer(rng):
    step = TrainStep(Sequential(Tanh(), Periodic(F + 1, K)), MSE(), AdamW())
    assert "1.Periodic is for other inputs" in step.explain(*batch(rng, dtype="float32"))


@BATCHES
@pytest.mark.parametrize("dim", DIMS[:2])
def test_captured(dim, population, lead, rng, monkeypatch, without_kernels):
    monkeypatch.setattr(captured, "why_kernels_are_off", lambda: "")
    eager, model = step_of(dim, population), trace(make(dim, population))
    optimizer = AdamW(0.01, weight_decay=0.1)
    replayed = CapturedStep(model, MSE(), optimizer, cuda=numpy_graph.make(fused=True))
    for _ in range(10):
        x, y = batch(rng, lead, population=population)
        expected = eager.by_layers(x, y)
        np.testing.assert_allclose(replayed(traced(x), traced(y)), expected, rtol=1e-9)
    assert replayed.explain(traced(x), traced(y)) == "captured"
    assert_same(model.state_dict(), eager.model.state_dict(), 1e-9)


@pytest.mark.slow
@BATCHES
@pytest.mark.parametrize("dim", DIMS[:2])
def test_jitted(dim, population, lead, rng):
    if backend_problems()["jax"] is not None:
        pytest.skip("jax is not installed")
    import xpmlp

    with xpmlp.use_backend("jax"):
        jitted, by_layers = (step_of(dim, population) for _ in range(2))
        for _ in range(3):
            x, y = (xpmlp.asarray(a, "float64") for a in batch(rng, lead, population=population))
            assert jitted.explain(x, y) == "jitted"
            np.testing.assert_allclose(jitted(x, y), by_layers.by_layers(x, y), rtol=1e-9)
        assert_same(jitted.model.state_dict(), by_layers.model.state_dict(), 1e-9)
