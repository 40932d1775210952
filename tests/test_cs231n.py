"""The published numbers of CS231n's fully-connected-net notebooks, through xpmlp's own parts.

``xpmlp/testing/cs231n.json`` holds the values, how their inputs are made, and where both come from.
Gradients are checked as the notebooks do it: element by element against central differences with
h = 1e-5, by the largest relative error, which must come out as small as published.
"""

import importlib

import numpy as np
import pytest

from xpmlp.layers import BatchNorm, Dropout, LayerNorm, Linear, ReLU, Sequential
from xpmlp.losses import MulticlassHinge, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.penalties import L2
from xpmlp.schedules import Step
from xpmlp.testing.published import (
    CHECKS,
    FIXTURES,
    adam,
    rmsprop,
    scores_and_labels,
    sgd_momentum,
    two_layers,
)

COVERED = {}

# A published error is itself mostly rounding noise of the differences: executed notebooks print
# values that differ by such a factor among themselves.
NOISE = 3.0


def fixture(function):
    """Mark a test as the one for the fixture of its name."""
    COVERED[function.__name__.removeprefix("test_")] = function
    return function


def published(name):
    return FIXTURES[name]["expected"]


def full_precision(name):
    return FIXTURES[name]["full_precision"]


def random_state(seed=231):
    return np.random.RandomState(seed)


def rel_error(x, y):
    x, y = np.asarray(x), np.asarray(y)
    return np.max(np.abs(x - y) / np.maximum(1e-8, np.abs(x) + np.abs(y)))


def numerical_gradient(function, x, dout=1.0, h=1e-5):
    """Central differences of ``Σ dout ⊙ function()`` for every element of x, changed in place."""
    gradient = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        kept = x[index]
        x[index] = kept + h
        up = function()
        x[index] = kept - h
        down = function()
        x[index] = kept
        gradient[index] = np.sum((up - down) * dout) / (2 * h)
    return gradient


def layer_errors(layer, x, dout, names=None, training=True):
    """Relative errors of dx and of the parameters' gradients, under the notebooks' names."""

    def forward():
        return layer.forward(x, training)

    forward()
    dx = layer.backward(dout)
    grads = dict(layer.grads)
    errors = {"dx": rel_error(numerical_gradient(forward, x, dout), dx)}
    for name, array in layer.params.items():
        shown = (names or {}).get(name, "d" + name)
        errors[shown] = rel_error(numerical_gradient(forward, array, dout), grads[name])
    return errors


def assert_as_small_as(errors, expected):
    assert errors.keys() == expected.keys()
    for name, error in errors.items():
        assert error <= NOISE * expected[name], f"{name}: {error:.3g} against {expected[name]:.3g}"


# Layers


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_published_values(check):
    pairs = check()
    assert pairs
    for ours, theirs in pairs.values():
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


COVERED.update((check.__name__, test_published_values) for check in CHECKS)


@fixture
def test_affine_backward():
    R = random_state()
    x, w, b, dout = R.randn(10, 2, 3), R.randn(6, 5), R.randn(5), R.randn(10, 5)
    errors = layer_errors(Linear.from_arrays(w, b), x, dout, {"W": "dw"})
    assert_as_small_as(errors, FIXTURES["affine_backward"]["published_rel_errors"])


@fixture
def test_relu_backward():
    R = random_state()
    errors = layer_errors(ReLU(), R.randn(10, 10), R.randn(10, 10))
    assert_as_small_as(errors, FIXTURES["relu_backward"]["published_rel_errors"])


@fixture
def test_affine_relu():
    R = random_state()
    x, w, b, dout = R.randn(2, 3, 4), R.randn(12, 10), R.randn(10), R.randn(2, 10)
    net = Sequential(Linear.from_arrays(w, b), ReLU())
    errors = layer_errors(net, x, dout, {"0.W": "dw", "0.b": "db"})
    assert_as_small_as(errors, FIXTURES["affine_relu"]["published_rel_errors"])


def three_layers(R, rows):
    """The notebooks' activations of three layers with ReLU: no parameters of our own."""
    x, W1, W2 = R.randn(rows, 50), R.randn(50, 60), R.randn(60, 3)
    return np.maximum(0, x @ W1) @ W2


def rounded_as(actual, expected, decimals=8):
    """Equal when printed as NumPy prints: to so many decimals."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.51 * 10.0**-decimals)


@fixture
def test_batchnorm_forward_train():
    expected = published("batchnorm_forward_train")
    a = three_layers(random_state(), 200)
    rounded_as(a.mean(0), expected["before_mean"])
    rounded_as(a.std(0), expected["before_std"])
    layer = BatchNorm(3, convention="cs231n", dtype="float64")
    out = layer.forward(a, training=True)
    rounded_as(out.mean(0), expected["after_mean"])
    rounded_as(out.std(0), expected["after_std"])
    layer.gamma, layer.beta = np.array([1.0, 2.0, 3.0]), np.array([11.0, 12.0, 13.0])
    out = layer.forward(a, training=True)
    rounded_as(out.mean(0), expected["gamma_123_beta_111213"]["mean"])
    rounded_as(out.std(0), expected["gamma_123_beta_111213"]["std"])


@fixture
def test_batchnorm_forward_test():
    R = random_state()
    W1, W2 = R.randn(50, 60), R.randn(60, 3)
    layer = BatchNorm(3, convention="cs231n", dtype="float64")
    for _ in range(50):
        layer.forward(np.maximum(0, R.randn(200, 50) @ W1) @ W2, training=True)
    out = layer.forward(np.maximum(0, R.randn(200, 50) @ W1) @ W2)
    rounded_as(out.mean(0), published("batchnorm_forward_test")["mean"])
    rounded_as(out.std(0), published("batchnorm_forward_test")["std"])
    for name, value in full_precision("batchnorm_forward_test").items():
        np.testing.assert_allclose(layer.state[name], value, rtol=1e-12)


def normalized(layer, R, rows, columns):
    x = 5 * R.randn(rows, columns) + 12
    layer.gamma, layer.beta = R.randn(columns), R.randn(columns)
    return x, R.randn(rows, columns)


@fixture
def test_batchnorm_backward(without_kernels):
    # The published digits are those of NumPy's order of adding. Kernels have another, and tests of
    # their own.
    layer = BatchNorm(5, convention="cs231n", dtype="float64")
    errors = layer_errors(layer, *normalized(layer, random_state(), 4, 5))
    assert_as_small_as(errors, FIXTURES["batchnorm_backward"]["published_rel_errors"])


@fixture
def test_batchnorm_backward_two_forms(without_kernels):
    """The closed form of the layer against the chain rule along the computation's graph."""
    layer = BatchNorm(500, convention="cs231n", dtype="float64")
    x, dout = normalized(layer, random_state(), 100, 500)
    layer.forward(x, training=True)
    dx = layer.backward(dout)

    rows = len(x)
    centred = x - x.mean(0)
    std = np.sqrt((centred**2).mean(0) + 1e-5)
    x_hat = centred / std
    dx_hat = dout * layer.gamma
    dstd = np.sum(dx_hat * -centred / std**2, axis=0)
    dcentred = dx_hat / std + 2 * centred * (0.5 * dstd / std) / rows
    staged = dcentred - dcentred.sum(0) / rows
    errors = {
        "dx_alt_vs_dx": rel_error(dx, staged),
        "dbeta": rel_error(layer.dbeta, dout.sum(0)),
    }
    limits = dict(FIXTURES["batchnorm_backward_two_forms"]["published_rel_errors"])
    limits.pop("dgamma")  # 0 where both forms share one x̂; here each has its own
    assert_as_small_as(errors, limits)
    assert rel_error(layer.dgamma, np.sum(dout * x_hat, axis=0)) < 1e-12


@fixture
def test_layernorm_forward():
    expected = published("layernorm_forward")
    a = three_layers(random_state(), 4)
    rounded_as(a.mean(1), expected["before_mean_axis1"])
    rounded_as(a.std(1), expected["before_std_axis1"])
    layer = LayerNorm(3, dtype="float64")
    out = layer.forward(a)
    rounded_as(out.mean(1), np.zeros(4))
    rounded_as(out.std(1), expected["after_std_axis1"])
    layer.gamma, layer.beta = np.full(3, 3.0), np.full(3, 5.0)
    out = layer.forward(a)
    rounded_as(out.mean(1), expected["gamma_3_beta_5"]["mean"])
    rounded_as(out.std(1), expected["gamma_3_beta_5"]["std"])


@fixture
def test_layernorm_backward():
    layer = LayerNorm(5, dtype="float64")
    errors = layer_errors(layer, *normalized(layer, random_state(), 4, 5))
    assert_as_small_as(errors, FIXTURES["layernorm_backward"]["published_rel_errors"])


# Dropout: the notebooks draw their masks from NumPy's old generator, xpmlp from a counter. Their
# masks are fed to the same layer in place of its own random bits.


@pytest.fixture
def feed_masks(monkeypatch, without_kernels):
    """Make Dropout layers keep exactly the elements that ``draw(shape)`` says."""

    def feed(draw):
        def bits(xp, shape, generator, step, device=None, first=0):
            return np.where(draw(shape), (1 << 24) - 1, 0)

        module = importlib.import_module("xpmlp.ops.dropout")
        monkeypatch.setattr(module, "random_bits", bits)

    return feed


@fixture
def test_dropout_stats(feed_masks):
    expected = published("dropout_stats")
    R = random_state()
    x = R.randn(500, 500) + 10
    assert x.mean() == pytest.approx(expected["input_mean"], rel=1e-14)
    for own_masks in (True, False):
        for text, stats in expected["by_keep_prob"].items():
            keep = float(text)
            layer = Dropout(1 - keep, rng=0)
            if own_masks:
                out = layer.forward(x, training=True)
                assert abs(out.mean() - 10) < 0.05
                spread = np.sqrt(keep * (1 - keep) / x.size)
                assert abs((out == 0).mean() - (1 - keep)) < 4 * spread
            else:
                mask = R.rand(500, 500) < keep
                feed_masks(lambda shape, mask=mask: mask)
                out = layer.forward(x, training=True)
                assert out.mean() == pytest.approx(stats["train_mean"], rel=1e-14)
                assert (out == 0).mean() == stats["zero_fraction"]
            assert layer.forward(x).mean() == pytest.approx(expected["test_mean"], rel=1e-14)
            assert (layer.forward(x) == 0).mean() == expected["test_zero_fraction"]


@fixture
def test_dropout_backward(feed_masks):
    R = random_state()
    x, dout = R.randn(10, 10) + 10, R.randn(10, 10)
    feed_masks(lambda shape: random_state(123).rand(*shape) < 0.2)
    layer = Dropout(0.8, rng=0)
    errors = layer_errors(layer, x, dout)
    assert_as_small_as(errors, FIXTURES["dropout_backward"]["published_rel_errors"])


# Losses


@pytest.mark.parametrize(
    ("name", "loss"),
    [("softmax_loss", SoftmaxCrossEntropy()), ("svm_loss", MulticlassHinge())],
    ids=["softmax", "svm"],
)
def test_loss(name, loss):
    x, y = scores_and_labels()
    assert loss.forward(x, y) == pytest.approx(published(name)["loss"], rel=1e-15)
    numerical = numerical_gradient(lambda: loss.forward(x, y), x)
    loss.forward(x, y)
    errors = {"dx": rel_error(numerical, loss.backward())}
    assert_as_small_as(errors, FIXTURES[name]["published_rel_errors"])


COVERED["softmax_loss"] = COVERED["svm_loss"] = test_loss


# Optimizers


@pytest.mark.parametrize("check", [sgd_momentum, rmsprop, adam], ids=lambda c: c.__name__)
def test_optimizers_are_as_near_to_what_was_printed(check):
    name = check.__name__
    errors = {key: rel_error(ours, published(name)[key]) for key, (ours, _) in check().items()}
    assert_as_small_as(errors, FIXTURES[name]["published_rel_errors"])


# Networks


def loss_and_grads(net, penalty, x, y):
    """Value and gradients of cross-entropy plus penalty, in training mode."""
    loss = SoftmaxCrossEntropy()
    value = loss.forward(net.forward(x, training=True), y)
    net.backward(loss.backward(), input_grad=False)
    extra = penalty.backward(net.params, net.weight_params)
    grads = {name: g + extra[name] if name in extra else g for name, g in net.grads.items()}
    return value + penalty.forward(net.params, net.weight_params), grads


def net_errors(net, penalty, x, y, names):
    """Relative errors of all gradients, under the notebooks' names."""
    loss = SoftmaxCrossEntropy()

    def scalar():
        value = loss.forward(net.forward(x, training=True), y)
        return value + penalty.forward(net.params, net.weight_params)

    _, grads = loss_and_grads(net, penalty, x, y)
    errors = {}
    for name, array in net.params.items():
        errors[names[name]] = rel_error(numerical_gradient(scalar, array), grads[name])
    return errors, {names[name]: grad for name, grad in grads.items()}


TWO_LAYERS = {"0.W": "W1", "0.b": "b1", "2.W": "W2", "2.b": "b2"}


@fixture
def test_two_layer_net_fc():
    expected, exact = published("two_layer_net_fc"), full_precision("two_layer_net_fc")
    net = two_layers()
    x, y = np.linspace(-5.5, 4.5, num=15).reshape(5, 3).T, np.array([0, 5, 1])
    scores = net.forward(x)
    assert np.abs(scores - expected["scores"]).sum() < 1e-6
    np.testing.assert_allclose(scores, exact["scores"], rtol=1e-13)
    for reg in (0.0, 1.0):
        value, _ = loss_and_grads(net, L2(reg), x, y)
        assert abs(value - expected[f"loss_reg_{reg:.0f}"]) < 1e-10
        assert value == pytest.approx(exact[f"loss_reg_{reg:.0f}"], rel=1e-14)
    for reg in (0.0, 0.7):
        errors, _ = net_errors(net, L2(reg), x, y, TWO_LAYERS)
        assert_as_small_as(
            errors, FIXTURES["two_layer_net_fc"]["published_grad_rel_errors"][f"reg_{reg}"]
        )
    fresh = FullyConnectedNet([5, 50, 7], init=1e-3)
    assert abs(fresh[0].W.std() - 1e-3) < 1e-4 and abs(fresh[2].W.std() - 1e-3) < 1e-4
    assert not fresh[0].b.any() and not fresh[2].b.any()


def toy_net(R):
    W1, W2 = 0.1 * R.randn(4, 10), 0.1 * R.randn(10, 3)
    return Sequential(
        Linear.from_arrays(W1, np.zeros(10)), ReLU(), Linear.from_arrays(W2, np.zeros(3))
    )


def toy_data():
    return 10 * random_state(1).randn(5, 4), np.array([0, 1, 2, 2, 1])


@fixture
def test_two_layer_net_toy():
    expected, exact = published("two_layer_net_toy"), full_precision("two_layer_net_toy")
    net, (x, y) = toy_net(random_state(0)), toy_data()
    scores = net.forward(x)
    assert np.abs(scores - expected["scores"]).sum() < 1e-7
    np.testing.assert_allclose(scores, exact["scores"], rtol=1e-12)
    # This year's notebook writes reg · Σ W², without ½: twice our strength.
    penalty = L2(2 * 0.05)
    value, _ = loss_and_grads(net, penalty, x, y)
    assert abs(value - expected["loss_reg_0.05"]) < 1e-12
    errors, _ = net_errors(net, penalty, x, y, TWO_LAYERS)
    assert max(errors.values()) < 1e-8


@fixture
def test_two_layer_net_toy_training():
    R = random_state(0)
    net, (x, y) = toy_net(R), toy_data()
    penalty = L2(2 * 5e-6)
    optimizer = SGD(0.1, schedule=Step(every=1, factor=0.95))
    history = []
    for _ in range(100):
        rows = R.choice(5, 200)
        value, grads = loss_and_grads(net, penalty, x[rows], y[rows])
        net.params = optimizer.update(net.params, grads)
        history.append(value)
    assert abs(history[-1] - published("two_layer_net_toy_training")["final_loss"]) < 1e-12
    assert abs(history[-1] - 0.017149607938732) < 1e-12
    exact = full_precision("two_layer_net_toy_training")
    np.testing.assert_allclose(history, exact["loss_history"], rtol=1e-11)
    for name, value in net.params.items():
        np.testing.assert_allclose(
            value, exact["final_params"][TWO_LAYERS[name]], rtol=1e-10, atol=1e-13
        )


def set_weights(net, R):
    """The notebooks' initial weights, drawn in their order, and biases of 0; the rest as it is."""
    net.params = {name: 5e-2 * R.randn(*net.params[name].shape) for name in net.weight_params}
    net.params = {
        name: np.zeros_like(array) for name, array in net.params.items() if name.endswith(".b")
    }


def names_of(net):
    """``{"0.W": "W1", "1.gamma": "gamma1", "3.W": "W2", …}``."""
    counts, names = {}, {}
    for name in net.params:
        kind = name.rpartition(".")[2]
        counts[kind] = counts.get(kind, 0) + 1
        names[name] = f"{kind}{counts[kind]}"
    return names


def net_data(R):
    return R.randn(2, 15), R.randint(10, size=(2,))


@fixture
def test_fully_connected_net(without_kernels):
    # One gradient in W2 is 5e-8: of its differences' error, NumPy's order of adding decides the
    # first digit.
    R = random_state()
    x, y = net_data(R)
    for reg in (0, 3.14):
        net = FullyConnectedNet([15, 20, 30, 10], dtype="float64")
        set_weights(net, R)
        value, _ = loss_and_grads(net, L2(reg), x, y)
        expected = published("fully_connected_net")["initial_loss"][str(reg)]
        assert value == pytest.approx(expected, rel=1e-14)
        errors, _ = net_errors(net, L2(reg), x, y, names_of(net))
        assert_as_small_as(
            errors, FIXTURES["fully_connected_net"]["published_grad_rel_errors"][str(reg)]
        )


@fixture
def test_fully_connected_net_batchnorm():
    R = random_state()
    x, y = net_data(R)
    for reg in (0, 3.14):
        net = FullyConnectedNet(
            [15, 20, 30, 10], normalization="batchnorm", batchnorm="cs231n", dtype="float64"
        )
        set_weights(net, R)
        value, _ = loss_and_grads(net, L2(reg), x, y)
        expected = published("fully_connected_net_batchnorm")["initial_loss"][str(reg)]
        assert value == pytest.approx(expected, rel=1e-14)
        errors, grads = net_errors(net, L2(reg), x, y, names_of(net))
        limits = dict(
            FIXTURES["fully_connected_net_batchnorm"]["published_grad_rel_errors"][str(reg)]
        )
        # A bias before a batchnorm has no effect: its gradient is 0, its relative error noise.
        for name in ("b1", "b2"):
            assert np.abs(grads[name]).max() < 1e-13
            del errors[name], limits[name]
        assert_as_small_as(errors, limits)


@fixture
def test_fully_connected_net_dropout(feed_masks):
    R = random_state()
    x, y = net_data(R)
    for text, expected in published("fully_connected_net_dropout")["initial_loss"].items():
        keep = float(text)
        net = FullyConnectedNet([15, 20, 30, 10], dropout=1 - keep, dtype="float64")
        set_weights(net, R)

        def draw(shape, keep=keep):
            nonlocal R
            R = random_state(123)  # the notebooks seed the one stream again before every mask
            return R.rand(*shape) < keep

        feed_masks(draw)
        loss = SoftmaxCrossEntropy()
        value = loss.forward(net.forward(x, training=True), y)
        assert value == pytest.approx(expected, rel=1e-14)
        errors, _ = net_errors(net, L2(0.0), x, y, names_of(net))
        limits = FIXTURES["fully_connected_net_dropout"]["published_grad_rel_errors"][text]
        assert_as_small_as(errors, limits)


def test_all_24_fixtures_are_covered():
    assert len(FIXTURES) == 24
    assert COVERED.keys() == FIXTURES.keys()
