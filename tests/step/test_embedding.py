"""Steps of networks that look vectors up: compiled, captured and jitted, as layer by layer."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
from step import numpy_graph
from step.numpy_graph import traced
from step.shares import assert_shares_give_the_same_bits
from step.test_captured import trace

from xpmlp.backend import backend_problems
from xpmlp.errors import DataError
from xpmlp.layers import EmbedColumns, Embedding, Flatten, Linear, ReLU, Sequential
from xpmlp.losses import MSE
from xpmlp.optim import AdamW
from xpmlp.step import CapturedStep
from xpmlp.step.captured import step as captured
from xpmlp.training import TrainStep

N, F, V, P = 13, 4, 70, 3
WIDE = 65  # rows of such weights are padded in a compiled step
KINDS = ("codes", "columns")
BATCHES = pytest.mark.parametrize(
    ("population", "lead"), [(None, ()), (P, ()), (P, (P,))], ids=["single", "shared", "separate"]
)


def make(kind, population=None, dtype="float64"):
    common = {"population": population, "dtype": dtype, "rng": 1}
    if kind == "codes":
        first = [Embedding(V, WIDE, padding=3, **common), Flatten(axes=2)]
        inputs = F * WIDE
    else:
        first = [EmbedColumns(F, {1: (V, WIDE), 3: (2, 1)}, **common)]
        inputs = 2 + WIDE + 1
    return Sequential(*first, Linear(inputs, 9, **common), ReLU(), Linear(9, 2, **common))


def step_of(kind, population=None, dtype="float64"):
    return TrainStep(make(kind, population, dtype), MSE(), AdamW(0.01, weight_decay=0.1))


def batch(rng, kind, lead=(), dtype="float64", population=None):
    x = rng.integers(0, V, (*lead, N, F)).astype(dtype)
    if kind == "columns":
        x[..., [0, 2]] = rng.normal(size=(*lead, N, 2))
        x[..., 3] %= 2
    return x, rng.normal(size=(*(lead or [population] * bool(population)), N, 2)).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
@BATCHES
@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind, population, lead, dtype, tolerance, rng):
    pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')
    compiled, by_layers = (step_of(kind, population, dtype) for _ in range(2))
    for _ in range(3):
        x, y = batch(rng, kind, lead, dtype, population)
        assert compiled.explain(x, y) == "compiled"
        value, expected = compiled(x, y), by_layers.by_layers(x, y)
        np.testing.assert_allclose(value, expected, rtol=tolerance)
        for name, gradient in by_layers.model.grads.items():
            mine = compiled.model.grads[name]
            np.testing.assert_allclose(mine, gradient, rtol=tolerance, atol=tolerance)
    for name, array in by_layers.model.state_dict().items():
        mine = compiled.model.state_dict()[name]
        np.testing.assert_allclose(mine, array, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_give_the_same_bits(kind, rng, monkeypatch):
    batch_of_it = batch(rng, kind, dtype="float32")
    new_step = partial(step_of, kind, dtype="float32")
    assert_shares_give_the_same_bits(new_step, *batch_of_it, monkeypatch)


@pytest.mark.parametrize("wrong", [2.0, -1.0, 0.5, np.nan])
@BATCHES
@pytest.mark.parametrize("kind", KINDS)
def test_a_code_that_there_is_not_is_refused_as_layer_by_layer(kind, population, lead, wrong, rng):
    compiled, by_layers = (step_of(kind, population) for _ in range(2))
    x, y = batch(rng, kind, lead, population=population)
    compiled(x, y)
    before = compiled.model.state_dict()
    x[..., 5, 3] = V if kind == "codes" and wrong == 2.0 else wrong
    errors = []
    for step in (compiled, by_layers.by_layers):
        with pytest.raises(DataError, match="expected whole numbers in 0…") as error:
            step(x, y)
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    for name, array in compiled.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ((ReLU(), Embedding(V, 2), Flatten(), Linear(2 * F, 2)), "1.Embedding is not the first"),
        ((Embedding(V, 2), ReLU(), Flatten(), Linear(2 * F, 2)), "1.ReLU acts on samples of sev"),
        ((Embedding(V, 2),), "the outputs of a sample have several axes"),
        ((EmbedColumns(3, {0: (V, 2)}), Linear(4, 2)), "EmbedColumns takes 3 inputs, not 4"),
        (
            (Embedding(V, 2, population=P), Flatten(), Linear(2 * F, 2, population=P)),
            "1.Flatten joins other axes",
        ),
    ],
)
def test_why_a_step_runs_layer_by_layer(layers, why, rng):
    x, y = batch(rng, "codes", dtype="float32")
    assert why in TrainStep(Sequential(*layers), MSE(), AdamW(0.1)).explain(x, y)


@BATCHES
@pytest.mark.parametrize("kind", KINDS)
def test_captured(kind, population, lead, rng, monkeypatch, without_kernels):
    monkeypatch.setattr(captured, "why_kernels_are_off", lambda: "")
    monkeypatch.setattr(sys.modules["xpmlp.ops.embedding"], "on_host", lambda array: False)
    eager, model = step_of(kind, population), trace(make(kind, population))
    optimizer = AdamW(0.01, weight_decay=0.1)
    replayed = CapturedStep(model, MSE(), optimizer, cuda=numpy_graph.make(fused=True))
    for _ in range(10):
        x, y = batch(rng, kind, lead, population=population)
        expected = eager.by_layers(x, y)
        np.testing.assert_allclose(replayed(traced(x), traced(y)), expected, rtol=1e-9)
    assert replayed.explain(traced(x), traced(y)) == "captured"
    for name, array in eager.model.state_dict().items():
        mine = model.state_dict()[name]
        np.testing.assert_allclose(mine, array, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@BATCHES
@pytest.mark.parametrize("kind", KINDS)
def test_jitted(kind, population, lead, rng):
    if backend_problems()["jax"] is not None:
        pytest.skip("jax is not installed")
    import xpmlp

    with xpmlp.use_backend("jax"):
        jitted, by_layers = (step_of(kind, population) for _ in range(2))
        for _ in range(3):
            x, y = (
                xpmlp.asarray(a, "float64") for a in batch(rng, kind, lead, population=population)
            )
            assert jitted.explain(x, y).startswith("jitted"), jitted.explain(x, y)
            np.testing.assert_allclose(jitted(x, y), by_layers.by_layers(x, y), rtol=1e-9)
        for name, array in by_layers.model.state_dict().items():
            mine = jitted.model.state_dict()[name]
            np.testing.assert_allclose(mine, array, rtol=1e-9, atol=1e-9)
