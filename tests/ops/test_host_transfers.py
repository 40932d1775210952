"""No op, layer, loss or optimizer reads a value on the host: that would wait for the device."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import xpmlp
from xpmlp import layers, losses, ops, optim, penalties
from xpmlp.backend import backend_problems
from xpmlp.layers.activations import ACTIVATIONS
from xpmlp.models import FullyConnectedNet
from xpmlp.random import Generator

READS = ("__bool__", "__float__", "__int__", "__index__", "__array__", "__complex__")
TORCH_READS = ("item", "numpy", "cpu", "tolist")


@pytest.fixture(params=["array_api_strict", "torch"])
def device(request, monkeypatch):
    """Make arrays with the fixture's value; after its ``close()`` every read of a value fails."""
    if backend_problems()[request.param] is not None:
        pytest.skip(backend_problems()[request.param])

    def refuse(*args, **kwargs):
        raise AssertionError("a value was read on the host")

    def to_numpy(array):
        return array if isinstance(array, np.ndarray) else refuse()

    class Device:
        def array(self, *shape):
            values = np.random.default_rng(0).normal(size=shape)
            return xpmlp.asarray(values.astype(np.float32))

        def integers(self, *shape):
            return xpmlp.asarray(np.random.default_rng(0).integers(0, 3, size=shape))

        def close(self):
            kind = type(self.array(1))
            for name in (*READS, *(TORCH_READS if request.param == "torch" else ())):
                if name in READS and not hasattr(kind, name):
                    continue
                monkeypatch.setattr(kind, name, refuse)
            for module in [m for n, m in sys.modules.items() if n.partition(".")[0] == "xpmlp"]:
                if hasattr(module, "to_numpy"):
                    monkeypatch.setattr(module, "to_numpy", to_numpy)
                if hasattr(module, "on_host"):  # these arrays stand for a device's
                    monkeypatch.setattr(module, "on_host", lambda array: False)

    with xpmlp.use_backend(request.param):
        yield Device()
        monkeypatch.undo()


ELEMENTWISE = (*ACTIVATIONS, "gelu_tanh")


def test_reading_a_value_is_noticed(device):
    x = device.array(3)
    device.close()
    with pytest.raises(AssertionError, match="read on the host"):
        bool(x[0] > 0)
    with pytest.raises(AssertionError, match="read on the host"):
        xpmlp.to_numpy(x)


def test_elementwise_ops(device):
    x, dy = device.array(4, 3), device.array(4, 3)
    device.close()
    for name in ELEMENTWISE:
        y = getattr(ops, name)(x)
        getattr(ops, f"{name}_backward")(dy, x, y)


def test_products_and_softmax(device):
    x, W, b = device.array(2, 4, 3), device.array(2, 3, 5), device.array(2, 5)
    dy, y3 = device.array(2, 4, 5), device.array(4, 3)
    device.close()
    y = ops.linear(x, W, b, "relu")
    ops.linear_backward(dy, x, W, y, "relu")
    ops.matmul(x, W)
    ops.softmax_backward(y3, ops.softmax(y3))
    ops.log_softmax_backward(y3, ops.log_softmax(y3))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_softmax_cross_entropy(device, reduction):
    logits, targets = device.array(2, 4, 3), device.integers(2, 4)
    smoothing, weights = abs(device.array(2)), abs(device.array(3))
    probabilities = abs(device.array(2, 4, 3))
    device.close()
    options = {"class_weights": weights, "z_loss": 0.1, "reduction": reduction}
    ops.softmax_cross_entropy(logits, targets, ignore_index=1, label_smoothing=smoothing, **options)
    ops.softmax_cross_entropy(logits, probabilities, label_smoothing=0.1, **options)


def test_normalization_and_dropout(device):
    x, gamma, dy = device.array(2, 4, 3), device.array(2, 3), device.array(2, 4, 3)
    device.close()
    _, mean, var = ops.batch_norm(x, gamma, gamma)
    ops.batch_norm_backward(dy, x, gamma, mean, var)
    ops.batch_norm_inference(x, gamma, gamma, mean, var)
    ops.batch_norm_inference_backward(dy, x, gamma, mean, var)
    ops.layer_norm_backward(dy, x, gamma, *ops.layer_norm(x, gamma, gamma)[1:])
    ops.rms_norm_backward(dy, x, gamma, *ops.rms_norm(x, gamma)[1:])
    ops.dropout(x, [0.2, 0.5], Generator([0, 1]), 3)
    ops.dropout(x, 0.5, Generator(0), 3)


def test_embedding(device, monkeypatch):
    W, codes, dy = device.array(2, 5, 3), device.integers(2, 4, 3), device.array(2, 4, 3, 3)
    device.close()
    for few in (2**21, 0):
        monkeypatch.setattr(sys.modules["xpmlp.ops.embedding"], "_FEW", few)
        ops.embedding(codes, W)
        ops.embedding_backward(dy, codes, W, 1)


def test_piecewise_linear(device):
    columns = (("linear", 1), ("bins", 3), ("levels", 2))
    x, W, b, dy = (device.array(*shape) for shape in ((2, 4, 3), (2, 6, 5), (2, 5), (2, 4, 5)))
    device.close()
    ops.piecewise_linear(x, W, b, columns=columns)
    ops.piecewise_linear_backward(dy, x, W, columns=columns)


def test_updates(device):
    w, g, v, s = device.array(4, 3), device.array(4, 3), device.array(4, 3), abs(device.array(4, 3))
    device.close()
    ops.sgd_update(w, g, lr=0.1)
    ops.momentum_update(w, g, v, lr=0.1, momentum=0.9, nesterov=True)
    ops.adagrad_update(w, g, s, lr=0.1, eps=1e-8)
    ops.rmsprop_update(w, g, s, lr=0.1, gain=0.1, eps=1e-8)
    rates = {"gain1": 0.1, "gain2": 0.01, "correction1": 0.1, "correction2": 0.01}
    ops.adam_update(w, g, v, s, lr=0.1, eps=1e-8, **rates)
    ops.amsgrad_update(w, g, v, s, s, lr=0.1, eps=1e-8, **rates)
    del rates["correction1"]
    ops.nadam_update(w, g, v, s, lr=0.1, ahead=0.1, eps=1e-8, **rates)
    gains = {"gain1": 0.1, "gain2": 0.01}
    ops.radam_update(w, g, v, s, lr=0.1, adaptive=0.0, eps=1e-8, **gains)
    ops.lion_update(w, g, v, lr=0.1, **gains)
    ops.adamax_update(w, g, v, s, lr=0.1, gain1=0.1, keep=0.9, eps=1e-8)
    ops.adadelta_update(w, g, s, s, lr=0.1, gain=0.1, eps=1e-6)
    ops.muon_update(w, g, v, lr=0.1, momentum=0.9, nesterov=True, steps=5)


def make_layers():
    every = [getattr(layers, name)() for name in layers.__all__ if name in ACTIVATION_LAYERS]
    return [
        *every,
        layers.GELU("tanh"),
        layers.Softmax(axis=-2),
        layers.Linear(3, 3, rng=0),
        layers.Matmul(xpmlp.asarray(np.ones((2, 4), np.float32))),
        layers.BatchNorm(3),
        layers.LayerNorm(3),
        layers.RMSNorm(3),
        layers.Periodic(3, 4, dim=2, rng=0),
        layers.SharedLinear(3, 4, population=2, rng=0),
        layers.Dropout(0.5, rng=0),
        layers.Residual(layers.Sequential(layers.Linear(3, 3, rng=0), layers.ReLU())),
    ]


ACTIVATION_LAYERS = (
    *(kind.__name__ for kind in ACTIVATIONS.values()),
    *("LogSoftmax", "Softmax", "Flatten"),
)


@pytest.mark.parametrize("training", [False, True], ids=["evaluate", "train"])
def test_layers(device, training):
    every, x = make_layers(), device.array(4, 3)
    log, positive = layers.Log(), abs(x)
    device.close()
    for layer in every:
        layer.backward(layer.forward(x, training))
    log.backward(log.forward(positive, training))


def test_losses(device):
    y, t, labels = device.array(4, 3), abs(device.array(4, 3)), device.integers(4)
    device.close()
    elementwise = ("MSE", "HalfSSE", "MAE", "Huber", "BCEWithLogits")
    for name in (*elementwise, "SoftmaxCrossEntropy", "NLL", "MulticlassHinge"):
        loss = getattr(losses, name)()
        loss.forward(y, t if name in elementwise else labels)
        loss.backward()


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_whole_training_steps(device, name):
    model = FullyConnectedNet(
        [3, 4, 3], normalization="batchnorm", dropout=[0.1, 0.2], population=2, seed=0
    )
    loss = losses.SoftmaxCrossEntropy(label_smoothing=[0.0, 0.1])
    optimizer = optim.OPTIMIZERS[name](lr=[0.1, 0.2], weight_decay=[0.0, 0.1])
    penalty = penalties.L2Norm(0.1)
    x, labels = device.array(5, 3), device.integers(5)
    device.close()
    for _ in range(2):
        loss.forward(model.forward(x, training=True), labels)
        model.backward(loss.backward())
        weights = tuple(model.weight_params)
        grads = dict(model.grads)
        for key, gradient in penalty.backward(model.params, weights, 2).items():
            grads[key] = grads[key] + gradient
        grads = optim.clip_by_global_norm(grads, 1.0, population=2)
        model.params = optimizer.update(model.params, grads, weights)
