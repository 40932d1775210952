"""Every layer, loss and optimizer in a recorded step, against the same step layer by layer.

A recording refuses what eager code may do: copies from the host, waits, memory of its own.
"""

from __future__ import annotations

import numpy as np
import pytest

import xpmlp
from xpmlp import optim
from xpmlp.layers import Flatten, Linear, LogSoftmax, Sequential
from xpmlp.layers.base import Layer
from xpmlp.losses import MSE
from xpmlp.step import CapturedStep
from xpmlp.testing.samples import (
    LAYERS,
    LOSSES,
    ROWS,
    C,
    D,
    P,
    input_of,
    loss_inputs,
)
from xpmlp.training import TrainStep

# A refusal to capture, which is a warning elsewhere, is a failure here.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("error:`CapturedStep`")]
DTYPE = "float64"  # in which one step equals the other but for the last digits


def with_a_head(name: str) -> Layer:
    """The layer, and a linear one that gives three numbers a row."""
    population = P if "population" in name else None
    layer = LAYERS[name](DTYPE)
    if name == "matmul":
        layer.W = xpmlp.asarray(layer.W)
    y = layer.forward(xpmlp.asarray(input_of(name, np.random.default_rng(0)), dtype=DTYPE))
    kept = 1 if population is None else 2
    flat = Flatten(axes=max(1, y.ndim - kept))
    head = Linear(flat.forward(y).shape[-1], 3, population=population, rng=1, dtype=DTYPE)
    return Sequential(layer, flat, head)


def assert_same_steps(parts, x, y, captured="captured"):
    """Three steps each; what a later replay overwrites is seen."""
    eager, replayed = (kind(*parts()) for kind in (TrainStep, CapturedStep))
    expected = [xpmlp.to_numpy(eager.by_layers(x, y)) for _ in range(3)]
    found = [replayed(x, y) for _ in range(3)]
    assert replayed.explain(x, y) == captured
    assert (replayed.correct is None) == (eager.correct is None)
    if eager.correct is not None:
        hits = [xpmlp.to_numpy(step.correct) for step in (eager, replayed)]
        np.testing.assert_array_equal(*hits)
    found = [xpmlp.to_numpy(value) for value in found]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    for name, array in eager.model.state_dict().items():
        state = replayed.model.state_dict()[name]
        np.testing.assert_allclose(state, array, rtol=1e-8, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(cupy, rng, name):
    x = xpmlp.asarray(input_of(name, rng), dtype=DTYPE)
    outputs = with_a_head(name).forward(x, training=True)
    y = xpmlp.asarray(rng.normal(size=outputs.shape), dtype=DTYPE)
    assert_same_steps(lambda: (with_a_head(name), MSE(), optim.SGD(0.01)), x, y)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss(cupy, rng, name, reduction):
    def parts():
        linear = Linear(D, C, rng=0, dtype=DTYPE)
        model = Sequential(linear, LogSoftmax()) if "nll" in name else Sequential(linear)
        return model, LOSSES[name](reduction=reduction), optim.SGD(0.01)

    x = xpmlp.asarray(rng.normal(size=(ROWS, D)), dtype=DTYPE)
    _, y = loss_inputs(name, rng)
    y = xpmlp.asarray(y) if y.dtype.kind in "iu" else xpmlp.asarray(y, dtype=DTYPE)
    assert_same_steps(parts, x, y)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_an_optimizer(cupy, rng, name):
    flat = {"sgd", "adagrad", "rmsprop", "adam", "adamw"}

    def parts():
        return Sequential(Linear(D, C, rng=0, dtype=DTYPE)), MSE(), optim.OPTIMIZERS[name](0.01)

    x = xpmlp.asarray(rng.normal(size=(ROWS, D)), dtype=DTYPE)
    y = xpmlp.asarray(rng.normal(size=(ROWS, C)), dtype=DTYPE)
    assert_same_steps(parts, x, y, "captured" if name in flat else "captured, but for the update")
