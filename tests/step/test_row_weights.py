"""Weights of rows: a whole number is so many equal rows, on every path of a step."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp import losses
from xpmlp.errors import DataError, DTypeError, ShapeError
from xpmlp.layers import Linear
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.step import Evaluation
from xpmlp.training import TrainStep

N, C = 12, 3
BY_CLASS = {
    "entropy": losses.SoftmaxCrossEntropy(),
    "entropy with options": losses.SoftmaxCrossEntropy(
        class_weights=[1.0, 2.0, 0.5], ignore_index=1, label_smoothing=0.1, z_loss=0.01
    ),
    "sum of entropies": losses.SoftmaxCrossEntropy(reduction="sum"),
    "likelihood": losses.NLL(),
    "hinge": losses.MulticlassHinge(),
}
OF_NUMBERS = {
    kind.__name__: kind()
    for kind in (
        losses.MSE,
        losses.HalfSSE,
        losses.MAE,
        losses.Huber,
        losses.BCEWithLogits,
        losses.PoissonNLL,
    )
}
LOSSES = BY_CLASS | OF_NUMBERS | {"entropy of shares": losses.SoftmaxCrossEntropy()}


def batch(rng, name):
    x, weight = rng.normal(size=(N, 5)), rng.integers(0, 4, N).astype(float)
    if name in BY_CLASS:
        return x, rng.integers(0, C, N), weight
    return x, rng.dirichlet([1.0] * C, N), weight


def trained(step, *data, by_layers=False):
    values = [(step.by_layers if by_layers else step)(*data) for _ in range(2)]
    return values, step.model.state_dict()


def check_alike(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-10)
    for name, array in one[1].items():
        np.testing.assert_allclose(array, other[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_a_whole_number_is_so_many_rows(rng, name, population):
    x, y, weight = batch(rng, name)
    steps = [
        TrainStep(
            FullyConnectedNet([5, 7, C], population=population, seed=1, dtype="float64"),
            LOSSES[name],
            SGD(0.1),
        )
        for _ in range(3)
    ]
    repeated = np.repeat(np.arange(N), weight.astype(int))
    assert steps[0].explain(x, y, weight) == "compiled"
    compiled = trained(steps[0], x, y, weight)
    check_alike(compiled, trained(steps[1], x, y, weight, by_layers=True))
    check_alike(compiled, trained(steps[2], x[repeated], y[repeated]))


def test_members_have_weights_of_their_own(rng):
    x, y, _ = batch(rng, "entropy")
    weight = rng.integers(0, 3, (2, N)).astype(float)
    together = FullyConnectedNet([5, 7, C], population=2, seed=1, dtype="float64")
    alone = [together.member(0), together.member(1)]
    TrainStep(together, losses.SoftmaxCrossEntropy(), SGD(0.1))(x, y, weight)
    for number, net in enumerate(alone):
        TrainStep(net, losses.SoftmaxCrossEntropy(), SGD(0.1)).by_layers(x, y, weight[number])
        for name, array in net.state_dict().items():
            np.testing.assert_allclose(together.state_dict()[name][number], array, rtol=1e-9)


def test_on_every_library(library, rng):
    x, y, weight = batch(rng, "entropy")
    repeated = np.repeat(np.arange(N), weight.astype(int))
    nets = [FullyConnectedNet([5, 7, C], seed=1, dtype="float64") for _ in range(2)]
    steps = [TrainStep(net, losses.SoftmaxCrossEntropy(), SGD(0.1)) for net in nets]
    value = steps[0](*(library.array(a) for a in (x, y, weight)))
    expected = steps[1](library.array(x[repeated]), library.array(y[repeated]))
    assert float(value) == pytest.approx(float(expected), rel=1e-9)
    for name, array in nets[0].state_dict().items():
        np.testing.assert_allclose(array, nets[1].state_dict()[name], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(rng, name):
    _, y, weight = batch(rng, name)
    outputs, loss = rng.normal(size=(N, C)), LOSSES[name]
    value = float(loss.weighted(outputs, y, weight))
    gradient, step = loss.backward().copy(), 1e-6
    for index in np.ndindex(N, C):
        moved = outputs.copy()
        moved[index] += step
        slope = (float(loss.weighted(moved, y, weight)) - value) / step
        assert gradient[index] == pytest.approx(slope, abs=2e-5)


def test_equals_torch(rng):
    torch = pytest.importorskip("torch")
    outputs, y, weight = rng.normal(size=(N, C)), rng.integers(0, C, N), rng.random(N)
    z = torch.tensor(outputs, requires_grad=True)
    rows = torch.nn.functional.cross_entropy(z, torch.tensor(y), reduction="none")
    expected = (rows * torch.tensor(weight)).sum() / weight.sum()
    expected.backward()
    loss = losses.SoftmaxCrossEntropy()
    assert float(loss.weighted(outputs, y, weight)) == pytest.approx(float(expected.detach()))
    np.testing.assert_allclose(loss.backward(), z.grad.numpy(), rtol=1e-9)


def test_steps_of_sequences_weigh_as_their_sequence(rng):
    x, y, weight = rng.normal(size=(4, 6, 5)), rng.integers(0, C, (4, 6)), np.arange(4.0)
    nets = [Linear(5, C, dtype="float64") for _ in range(2)]
    nets[1].params = nets[0].params
    first, second = (TrainStep(net, losses.SoftmaxCrossEntropy(), SGD(0.1)) for net in nets)
    value = first(x, y, weight)
    flat = second(x.reshape(24, 5), y.reshape(24), np.repeat(weight, 6))
    assert float(value) == pytest.approx(float(flat))


@pytest.mark.parametrize("by_layers", [False, True])
def test_a_row_without_weight_may_hold_anything(rng, by_layers):
    x, y, weight = rng.normal(size=(4, 5)), rng.normal(size=(4, C)), np.array([1.0, 0.0, 2.0, 0.0])
    y[1] = np.inf
    net = FullyConnectedNet([5, C], output="identity", dtype="float64")
    step = TrainStep(net, losses.MSE(), SGD(0.1))
    value = (step.by_layers if by_layers else step)(x, y, weight)
    assert np.isfinite(float(value))
    assert all(np.isfinite(array).all() for array in net.params.values())
    before = net.state_dict()
    assert float((step.by_layers if by_layers else step)(x, y, 0.0 * weight)) == 0.0
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("by_layers", [False, True])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda w: -w, DataError),
        (lambda w: w * np.nan, DataError),
        (lambda w: w * np.inf, DataError),
        (lambda w: w[:5], ShapeError),
        (lambda w: w[:, None], ShapeError),
        (lambda w: w.astype(str), DTypeError),
    ],
)
def test_weights_that_are_none_are_refused_and_nothing_changes(rng, change, error, by_layers):
    x, y, weight = batch(rng, "entropy")
    net = FullyConnectedNet([5, 7, C], dtype="float64")
    step, before = TrainStep(net, losses.SoftmaxCrossEntropy(), SGD(0.1)), net.state_dict()
    run = step.by_layers if by_layers else step
    run(x, y, weight)
    before = net.state_dict()
    with pytest.raises(error, match="weight"):
        run(x, y, change(weight + 1.0))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("name", LOSSES)
def test_evaluation_weighs_too(rng, name):
    x, y, weight = batch(rng, name)
    net, loss = FullyConnectedNet([5, 7, C], dtype="float64"), LOSSES[name]
    found = Evaluation(net, loss).score(x, y, weight)
    assert found.value == pytest.approx(float(loss.weighted(net.forward(x), y, weight)))
