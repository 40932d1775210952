"""One seed, the same training on every array library: weights, masks, and loss curves."""

import numpy as np
import pytest

import xpmlp
from xpmlp.layers import Dropout
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, AdamW
from xpmlp.schedules import Cosine

STEPS, N, SIZES = 100, 16, [5, 8, 3]
TOLERANCES = [("float32", 1e-4), ("float64", 1e-9)]


def make_net(dtype, **options):
    return FullyConnectedNet(SIZES, seed=12, dtype=dtype, **options)


def loss_curve(dtype, convert):
    """100 steps with dropout, momentum, weight decay and a schedule, on three clouds of points."""
    rng = np.random.default_rng(5)
    centres = 1.5 * rng.normal(size=(3, SIZES[0]))
    labels = rng.integers(3, size=(STEPS, N))
    points = (centres[labels] + rng.normal(size=(STEPS, N, SIZES[0]))).astype(dtype)

    net, loss = make_net(dtype, dropout=0.2, activation="tanh"), SoftmaxCrossEntropy()
    optimizer = SGD(0.1, momentum=0.9, weight_decay=1e-3, schedule=Cosine(total=STEPS))
    curve = []
    for x, y in zip(points, labels, strict=True):
        curve.append(loss.forward(net.forward(convert(x), training=True), convert(y)))
        net.backward(loss.backward(), input_grad=False)
        net.params = optimizer.update(net.params, net.grads, net.weight_params)
    return np.array([xpmlp.to_numpy(value) for value in curve])


@pytest.fixture(scope="module")
def numpy_curves():
    """NumPy's own loss curves, by dtype."""
    with xpmlp.use_backend("numpy"):
        return {dtype: loss_curve(dtype, np.asarray) for dtype, _ in TOLERANCES}


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_loss_curves_agree_with_numpys(library, numpy_curves, dtype, tolerance):
    curve, expected = loss_curve(dtype, library.array), numpy_curves[dtype]
    assert curve.dtype == dtype
    assert expected[-10:].mean() < 0.5 * expected[0]  # it did learn
    np.testing.assert_allclose(curve, expected, rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("population", [None, 3])
def test_initial_weights_are_equal_to_the_last_bit(library, dtype, population):
    ours = make_net(dtype, population=population, normalization="batchnorm").state_dict()
    with xpmlp.use_backend("numpy"):
        numpys = make_net(dtype, population=population, normalization="batchnorm").state_dict()
    for name, value in ours.items():
        assert value.dtype == dtype
        np.testing.assert_array_equal(value, numpys[name], err_msg=name)


@pytest.mark.parametrize("population", [None, 3])
def test_dropout_masks_are_equal_to_the_last_bit(library, population):
    x = np.ones((3, 7, 11), "float32")
    layer, numpys = (Dropout(0.3, population=population, rng=8) for _ in range(2))
    for _ in range(3):
        y = layer.forward(library.array(x), training=True)
        np.testing.assert_array_equal(library.numpy(y), numpys.forward(x, training=True))


def test_a_step_with_batchnorm_and_adamw_agrees(library):
    """The rest of the usual parts, in fewer steps: some libraries are slow."""

    def run(convert):
        rng = np.random.default_rng(6)
        # No biases: before a batchnorm their true gradient is 0, and Adam steps along its noise.
        net = make_net("float64", normalization="batchnorm", bias=False)
        loss, optimizer = SoftmaxCrossEntropy(label_smoothing=0.1), AdamW(0.01)
        for _ in range(3):
            x, y = convert(rng.normal(size=(N, SIZES[0]))), convert(rng.integers(3, size=N))
            loss.forward(net.forward(x, training=True), y)
            net.backward(loss.backward())
            net.params = optimizer.update(net.params, net.grads, net.weight_params)
        return net.state_dict()

    ours = run(library.array)
    with xpmlp.use_backend("numpy"):
        numpys = run(np.asarray)
    for name, value in ours.items():
        np.testing.assert_allclose(value, numpys[name], rtol=1e-9, atol=1e-12, err_msg=name)
