"""Normalization layers: against torch and the formulas, in every convention and mode."""

import copy

import numpy as np
import pytest

from xpmlp.errors import ConfigError, DTypeError, ShapeError
from xpmlp.layers import BatchNorm, LayerNorm, RMSNorm
from xpmlp.layers.normalization import CONVENTIONS

N, D, P = 7, 5, 3
LAYERS = {"batchnorm": BatchNorm, "layernorm": LayerNorm, "rmsnorm": RMSNorm}


def scaled(layer, rng, library=None):
    """Scale and shift that are not 1 and 0."""
    array = np.asarray if library is None else library.array
    for name, value in layer.params.items():
        layer.params[name] = array(rng.normal(size=tuple(value.shape)))
    return layer


def formula(name, layer, x):
    """The layer in training, in float64 NumPy."""
    if name == "rmsnorm":
        return layer.gamma * x / np.sqrt((x**2).mean(-1, keepdims=True) + layer.eps)
    axis = 0 if name == "batchnorm" else -1
    x_hat = (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + layer.eps)
    return layer.gamma * x_hat + layer.beta


@pytest.mark.parametrize("name", LAYERS)
def test_values_follow_the_formula(library, freeze, rng, name):
    plain = scaled(LAYERS[name](D, dtype="float64"), rng, library)
    layer = freeze(copy.deepcopy(plain))
    plain.params.update({key: library.numpy(value) for key, value in plain.params.items()})
    x = 3.0 * rng.normal(size=(N, D)) + 2.0
    y = layer.forward(library.array(x), training=True)
    np.testing.assert_allclose(library.numpy(y), formula(name, plain, x), rtol=1e-12, atol=1e-13)


def torch_module(torch, name, layer):
    module = {
        "batchnorm": torch.nn.BatchNorm1d,
        "layernorm": torch.nn.LayerNorm,
        "rmsnorm": torch.nn.RMSNorm,
    }[name](D, eps=layer.eps, dtype=torch.float64)
    module.weight.data = torch.tensor(layer.gamma)
    if "beta" in layer.params:
        module.bias.data = torch.tensor(layer.beta)
    return module


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_torch_over_several_batches(torch, rng, name, training):
    layer = scaled(LAYERS[name](D, dtype="float64"), rng)
    module = torch_module(torch, name, layer)
    for _ in range(5):  # the running statistics gather
        x = 3.0 * rng.normal(size=(N, D)) + 2.0
        layer.forward(x, training=True)
        module.train()(torch.tensor(x))
    x, dy = 3.0 * rng.normal(size=(N, D)) + 2.0, rng.normal(size=(N, D))
    input_ = torch.tensor(x, requires_grad=True)
    y = module.train(training)(input_)
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(
        layer.forward(x, training), y.detach().numpy(), rtol=1e-11, atol=1e-12
    )
    np.testing.assert_allclose(layer.backward(dy), input_.grad.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer.dgamma, module.weight.grad.numpy(), rtol=1e-11)
    if name == "batchnorm":
        np.testing.assert_allclose(layer.running_mean, module.running_mean.numpy(), rtol=1e-13)
        np.testing.assert_allclose(layer.running_var, module.running_var.numpy(), rtol=1e-13)
    if name != "rmsnorm":
        np.testing.assert_allclose(layer.dbeta, module.bias.grad.numpy(), rtol=1e-11)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_running_statistics_follow_the_convention(library, rng, convention):
    layer = BatchNorm(D, convention=convention, dtype="float64")
    keep, eps = {"keras": (0.99, 1e-3)}.get(convention, (0.9, 1e-5))
    mean, var = np.zeros(D), np.full(D, 0.0 if convention == "cs231n" else 1.0)
    for _ in range(3):
        x = rng.normal(size=(N, D)) + 4.0
        layer.forward(library.array(x), training=True)
        mean = keep * mean + (1 - keep) * x.mean(0)
        var = keep * var + (1 - keep) * x.var(0, ddof=1 if convention == "torch" else 0)
    np.testing.assert_allclose(library.numpy(layer.running_mean), mean, rtol=1e-13)
    np.testing.assert_allclose(library.numpy(layer.running_var), var, rtol=1e-13)
    y = layer.forward(library.array(x))
    expected = (x - mean) / np.sqrt(var + eps)
    np.testing.assert_allclose(library.numpy(y), expected, rtol=1e-12)


def test_keep_and_eps_override_the_preset(rng):
    layer = BatchNorm(D, keep=0.5, eps=0.1, dtype="float64")
    x = rng.normal(size=(N, D))
    y = layer.forward(x, training=True)
    np.testing.assert_allclose(layer.running_mean, 0.5 * x.mean(0))
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 0.1))


def test_evaluation_moves_no_statistics(rng):
    layer = BatchNorm(D)
    layer.forward(rng.normal(size=(N, D)).astype("float32"))
    assert not layer.running_mean.any() and (layer.running_var == 1.0).all()


@pytest.mark.parametrize("population", [None, 3])
def test_a_batch_of_one_row_cannot_be_trained_on(library, population):
    layer = BatchNorm(D, population=population)
    x = library.array(np.full((1, D) if population is None else (3, 1, D), 8.0), "float32")
    with pytest.raises(ShapeError, match=r"at least 2 rows in training, got 1 .*drop_last=True"):
        layer.forward(x, training=True)
    np.testing.assert_array_equal(library.numpy(layer.running_mean), 0.0)
    assert np.isfinite(library.numpy(layer.forward(x))).all()


@pytest.mark.parametrize("name", LAYERS)
def test_a_constant_input_gives_no_nan(name):
    layer = LAYERS[name](D)
    y = layer.forward(np.zeros((N, D), "float32"), training=True)
    dx = layer.backward(np.ones((N, D), "float32"))
    assert np.isfinite(y).all() and np.isfinite(dx).all()


def test_a_large_mean_does_no_harm(library):
    layer = BatchNorm(1)
    x = np.array([[10000.0], [10001.0], [10002.0], [10003.0]])
    y = library.numpy(layer.forward(library.array(x, "float32"), training=True))
    np.testing.assert_allclose(y, (x - x.mean()) / np.sqrt(x.var() + 1e-5), rtol=1e-5)


def test_all_leading_axes_count_as_batch(rng):
    flat, stacked = BatchNorm(D, dtype="float64"), BatchNorm(D, dtype="float64")
    x, dy = rng.normal(size=(2, N, D)), rng.normal(size=(2, N, D))
    y = flat.forward(x.reshape(-1, D), training=True)
    np.testing.assert_allclose(stacked.forward(x, training=True).reshape(-1, D), y, rtol=1e-12)
    dx = flat.backward(dy.reshape(-1, D))
    np.testing.assert_allclose(stacked.backward(dy).reshape(-1, D), dx, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(stacked.running_var, flat.running_var, rtol=1e-13)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_population_equals_separate_layers(library, freeze, rng, name, training):
    together = LAYERS[name](D, population=P, dtype="float64")
    arrays = {key: rng.normal(size=(P, D)) for key in together.params}
    together.params.update({key: library.array(value) for key, value in arrays.items()})
    x, dy = rng.normal(size=(P, N, D)) + 1.0, rng.normal(size=(P, N, D))
    y = freeze(together).forward(library.array(x), training)
    dx = together.backward(library.array(dy))
    for p in range(P):
        alone = LAYERS[name](D, dtype="float64")
        alone.params.update({key: library.array(value[p]) for key, value in arrays.items()})
        pairs = [
            (y, alone.forward(library.array(x[p]), training)),
            (dx, alone.backward(library.array(dy[p]))),
            *((together.grads[key], alone.grads[key]) for key in alone.grads),
            *((together.state[key], alone.state[key]) for key in alone.state),
        ]
        for group, single in pairs:
            np.testing.assert_allclose(
                library.numpy(group)[p], library.numpy(single), rtol=1e-12, atol=1e-14
            )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(N, D + 1), (N, 1), (D,), (0, D)], ids=str)
def test_wrong_shapes_are_refused(name, shape, training):
    with pytest.raises(ShapeError, match=r"expected x of shape \(…, N, 5\)"):
        LAYERS[name](D).forward(np.ones(shape, "float32"), training)


@pytest.mark.parametrize("shape", [(N, D), (P + 1, N, D)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_population_needs_its_own_axis(name, shape):
    with pytest.raises(ShapeError, match=r"expected x of shape \(…, 3, N, 5\)"):
        LAYERS[name](D, population=P).forward(np.ones(shape, "float32"), training=True)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_integers_are_refused(name, training):
    with pytest.raises(DTypeError, match="floating dtype, got int64"):
        LAYERS[name](D).forward(np.ones((N, D), "int64"), training)


def test_an_unknown_convention_lists_the_known():
    with pytest.raises(ConfigError, match="torch, cs231n, onnx, keras, got 'tf'"):
        BatchNorm(D, convention="tf")


def test_scales_and_shifts_are_no_weights():
    for layer in (BatchNorm(D), LayerNorm(D), RMSNorm(D)):
        assert layer.weight_params == ()
