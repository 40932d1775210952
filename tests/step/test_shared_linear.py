"""Steps of networks with a matrix that members share: compiled, captured, jitted, as by layers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from step import numpy_graph
from step.numpy_graph import traced
from step.shares import assert_shares_give_the_same_bits
from step.test_captured import trace

from xpmlp.backend import backend_problems
from xpmlp.errors import ConfigError, ShapeError
from xpmlp.layers import Linear, ReLU, Residual, Sequential, SharedLinear, Tanh
from xpmlp.losses import MSE
from xpmlp.optim import SGD, AdamW
from xpmlp.penalties import L2
from xpmlp.step import CapturedStep, Evaluation
from xpmlp.step.captured import step as captured
from xpmlp.training import TrainStep

N, D, H, P = 13, 5, 70, 3  # rows of 70 are padded in a compiled step
BATCHES = pytest.mark.parametrize("lead", [(), (P,)], ids=["shared", "separate"])


def make(bias=True, dtype="float64", inner=False):
    common = {"population": P, "dtype": dtype, "rng": 1, "bias": bias}
    before = [Linear(D, D, **common), Residual(Tanh()), ReLU()] if inner else []
    first = SharedLinear(D, H, adapters="signs", **common)
    second = Residual(SharedLinear(H, H, **common))
    return Sequential(*before, first, ReLU(), second, ReLU(), Linear(H, 2, **common))


def step_of(*args, optimizer=None, **options):
    optimizer = optimizer or AdamW(0.01, weight_decay=0.1)
    return TrainStep(make(*args), MSE(), optimizer, **options)


def batch(rng, lead=(), dtype="float64"):
    x = rng.normal(size=(*lead, N, D)).astype(dtype)
    return x, rng.normal(size=(*(lead or (P,)), N, 2)).astype(dtype)


def assert_same(mine, expected, tolerance):
    for name, array in expected.items():
        np.testing.assert_allclose(mine[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("inner", [False, True], ids=["first", "inner"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@BATCHES
def test_compiled(bias, lead, inner, dtype, tolerance, rng):
    pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')
    compiled, by_layers = (step_of(bias, dtype, inner) for _ in range(2))
    for _ in range(3):
        x, y = batch(rng, lead, dtype)
        assert compiled.explain(x, y) == "compiled"
        value, expected = compiled(x, y), by_layers.by_layers(x, y)
        np.testing.assert_allclose(value, expected, rtol=tolerance)
        assert_same(compiled.model.grads, by_layers.model.grads, tolerance)
    assert_same(compiled.model.state_dict(), by_layers.model.state_dict(), 30 * tolerance)
    for rows in (N, 4):  # one program serves both
        part, evaluation = x[..., :rows, :], Evaluation(compiled.model)
        assert evaluation.explain(part) == "compiled"
        expected = compiled.model.forward(part)
        np.testing.assert_allclose(evaluation.outputs(part), expected, rtol=tolerance, atol=1e-6)


@BATCHES
def test_shares_give_the_same_bits(lead, rng, monkeypatch):
    new_step = partial(step_of, True, "float32", True)
    assert_shares_give_the_same_bits(new_step, *batch(rng, lead, "float32"), monkeypatch)


@pytest.mark.parametrize("what", ["penalty", "norm"])
def test_what_is_of_all_members_together_is_left_to_the_layers(what, rng):
    options = {"penalty": L2(0.1)} if what == "penalty" else {"clip_norm": 0.01}
    compiled, by_layers = (step_of(optimizer=SGD(0.1), **options) for _ in range(2))
    x, y = batch(rng)
    np.testing.assert_allclose(compiled(x, y), by_layers.by_layers(x, y), rtol=1e-12)
    assert_same(compiled.model.state_dict(), by_layers.model.state_dict(), 1e-12)
    if what == "norm":
        before = make().params
        moved = sum(np.sum((before[n] - w) ** 2) for n, w in compiled.model.params.items())
        np.testing.assert_allclose(np.sqrt(moved), 0.1 * 0.01, rtol=1e-9)


@pytest.mark.parametrize("options", [{"optimizer": AdamW([0.1] * P)}, {"penalty": L2([0.1] * P)}])
def test_numbers_of_each_member_are_refused(options, rng):
    with pytest.raises((ConfigError, ShapeError), match=r"one (number|strengths)"):
        step_of(**options)(*batch(rng))


@BATCHES
def test_captured(lead, rng, monkeypatch, without_kernels):
    monkeypatch.setattr(captured, "why_kernels_are_off", lambda: "")
    eager, model = step_of(), trace(make())
    optimizer = AdamW(0.01, weight_decay=0.1)
    replayed = CapturedStep(model, MSE(), optimizer, cuda=numpy_graph.make(fused=True))
    for _ in range(10):
        x, y = batch(rng, lead)
        expected = eager.by_layers(x, y)
        np.testing.assert_allclose(replayed(traced(x), traced(y)), expected, rtol=1e-9)
    assert replayed.explain(traced(x), traced(y)) == "captured"
    assert_same(model.state_dict(), eager.model.state_dict(), 1e-9)


@pytest.mark.slow
@BATCHES
def test_jitted(lead, rng):
    if backend_problems()["jax"] is not None:
        pytest.skip("jax is not installed")
    import xpmlp

    with xpmlp.use_backend("jax"):
        jitted, by_layers = (step_of() for _ in range(2))
        for _ in range(3):
            x, y = (xpmlp.asarray(a, "float64") for a in batch(rng, lead))
            assert jitted.explain(x, y) == "jitted"
            np.testing.assert_allclose(jitted(x, y), by_layers.by_layers(x, y), rtol=1e-9)
        assert_same(jitted.model.state_dict(), by_layers.model.state_dict(), 1e-9)
