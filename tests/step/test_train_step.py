"""One training step against the same step written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.backend import use_backend
from xpmlp.errors import BackendError
from xpmlp.layers import Linear, ReLU, Residual, Sequential
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam, clip_by_global_norm
from xpmlp.penalties import L2
from xpmlp.training import TrainStep


def data(rng, rows=12, inputs=6, classes=4):
    return rng.normal(size=(rows, inputs)), rng.integers(0, classes, rows)


def test_step_equals_the_loop_written_out(library, rng):
    x, y = (library.array(a) for a in data(rng))
    stepped = FullyConnectedNet([6, 8, 4], normalization="batchnorm", dropout=0.2, dtype="float64")
    manual = FullyConnectedNet([6, 8, 4], normalization="batchnorm", dropout=0.2, dtype="float64")
    step = TrainStep(stepped, SoftmaxCrossEntropy(), Adam(0.01))
    loss, optimizer = SoftmaxCrossEntropy(), Adam(0.01)
    for _ in range(3):
        value = step(x, y)
        expected = loss.forward(manual.forward(x, training=True), y)
        manual.backward(loss.backward())
        manual.params = optimizer.update(manual.params, manual.grads)
        # NumPy's step is compiled, whose sums run in another order.
        assert float(value) == pytest.approx(float(expected), rel=1e-13)
    for name, array in manual.state_dict().items():
        if not name.endswith("0.b"):  # before batch norm: all noise, which Adam turns into steps
            np.testing.assert_allclose(stepped.state_dict()[name], array, rtol=1e-9, atol=1e-11)


def test_step_adds_the_penalty_to_loss_and_gradients(rng):
    x, y = data(rng)
    plain = FullyConnectedNet([6, 4], dtype="float64")
    penalised = FullyConnectedNet([6, 4], dtype="float64")
    W = plain.params["0.W"]
    without = TrainStep(plain, SoftmaxCrossEntropy(), SGD(0.1))(x, y)
    value = TrainStep(penalised, SoftmaxCrossEntropy(), SGD(0.1), penalty=L2(0.5))(x, y)
    assert value == pytest.approx(without + 0.25 * np.sum(W**2), rel=1e-14)
    # The extra step is −lr · λ · W on the weights and none on the biases.
    np.testing.assert_allclose(
        penalised.params["0.W"], plain.params["0.W"] - 0.1 * 0.5 * W, rtol=1e-12
    )
    np.testing.assert_array_equal(penalised.params["0.b"], plain.params["0.b"])


def test_step_clips_the_global_norm(rng):
    x, y = data(rng)
    free = FullyConnectedNet([6, 4], dtype="float64")
    clipped = FullyConnectedNet([6, 4], dtype="float64")
    start = dict(free.params)
    TrainStep(free, SoftmaxCrossEntropy(), SGD(1.0))(x, y)
    TrainStep(clipped, SoftmaxCrossEntropy(), SGD(1.0), clip_norm=0.01)(x, y)
    expected = clip_by_global_norm(free.grads, 0.01)
    for name in start:
        np.testing.assert_allclose(clipped.params[name], start[name] - expected[name], rtol=1e-12)


def test_step_works_on_a_layer_that_is_no_sequential(rng):
    model = Residual(Sequential(Linear(5, 5, rng=0), ReLU()))
    x = rng.normal(size=(8, 5)).astype(np.float32)
    step = TrainStep(model, MSE(), SGD(0.5))
    losses = [float(step(x, 2 * x)) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]


def test_step_gives_a_population_one_loss_each(rng):
    x, y = data(rng)
    model = FullyConnectedNet([6, 8, 4], population=3, dtype="float64")
    step = TrainStep(model, SoftmaxCrossEntropy(), SGD([0.1, 0.0, 0.2]))
    first, second = step(x, y), step(x, y)
    assert first.shape == (3,)
    assert second[1] == first[1]  # its learning rate is 0
    assert second[0] < first[0]


def test_precision_is_not_for_every_library(rng):
    torch = pytest.importorskip("torch")
    x, y = data(rng)
    with use_backend("torch"):
        net = FullyConnectedNet([6, 4], dtype="float32")
    step = TrainStep(net, SoftmaxCrossEntropy(), SGD(0.1), precision="bf16")
    with pytest.raises(BackendError, match="for precision='bf16', got Tensor"):
        step(torch.asarray(x.astype("float32")), torch.asarray(y))


def test_cupy_arrays_go_to_the_captured_step(rng, monkeypatch):
    from xpmlp.step import train_step as module

    class Captured:
        outputs, correct = np.ones(2), np.array(3)

        def __init__(self, *arguments, **options):
            self.options = options

        def __call__(self, x, y):
            return "its loss"

        def explain(self, x, y):
            return f"captured, in {self.options['precision']}"

    class OnDevice(np.ndarray):
        pass

    monkeypatch.setattr(module.array_api_compat, "is_cupy_array", lambda x: True)
    monkeypatch.setattr(module, "CapturedStep", Captured)
    x, y = (array.view(OnDevice) for array in data(rng))
    step = TrainStep(FullyConnectedNet([6, 4]), SoftmaxCrossEntropy(), SGD(0.1), precision="tf32")
    assert step(x, y) == "its loss"
    assert step.outputs.sum() == 2 and step.correct == 3
    assert step.outputs is not Captured.outputs
    assert step.correct is not Captured.correct  # which the next replay writes to
    assert step.explain(x, y) == "captured, in tf32"
