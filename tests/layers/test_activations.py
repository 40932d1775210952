"""Activation layers: values against NumPy and torch, at hostile inputs too."""

import math

import numpy as np
import pytest

from xpmlp.errors import ConfigError
from xpmlp.layers import ELU, GELU, LeakyReLU, Log, ReLU, Sigmoid, SiLU, Softplus, Tanh

normal_cdf = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2.0)))
FORMULAS = {
    "relu": (ReLU(), lambda x: np.maximum(x, 0.0)),
    "leaky": (LeakyReLU(0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    "elu": (ELU(0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(np.minimum(x, 0.0)))),
    "gelu": (GELU(), lambda x: x * normal_cdf(x)),
    "gelu-tanh": (
        GELU("tanh"),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "silu": (SiLU(), lambda x: x / (1 + np.exp(-x))),
    "tanh": (Tanh(), np.tanh),
    "sigmoid": (Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    "softplus": (Softplus(), lambda x: np.log1p(np.exp(x))),
    "log": (Log(eps=4.0), lambda x: np.log(x + 4.0)),
}
TORCH = {
    "relu": lambda nn: nn.ReLU(),
    "leaky": lambda nn: nn.LeakyReLU(0.2),
    "elu": lambda nn: nn.ELU(0.7),
    "gelu": lambda nn: nn.GELU(),
    "gelu-tanh": lambda nn: nn.GELU("tanh"),
    "silu": lambda nn: nn.SiLU(),
    "tanh": lambda nn: nn.Tanh(),
    "sigmoid": lambda nn: nn.Sigmoid(),
    "softplus": lambda nn: nn.Softplus(),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_values_follow_the_formula(library, rng, name):
    layer, formula = FORMULAS[name]
    x = rng.uniform(-3.5, 3.5, size=(4, 5))
    y = layer.forward(library.array(x))
    np.testing.assert_allclose(library.numpy(y), formula(x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", TORCH)
def test_values_and_gradients_equal_torch(torch, rng, name):
    layer, _ = FORMULAS[name]
    values, slopes = 3.0 * rng.normal(size=(50, 5)), rng.normal(size=(50, 5))
    x = torch.tensor(values, requires_grad=True)
    y = TORCH[name](torch.nn)(x)
    y.backward(torch.tensor(slopes))
    np.testing.assert_allclose(layer.forward(values), y.detach().numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(layer.backward(slopes), x.grad.numpy(), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_inputs_stay_finite(library, name, dtype):
    # Warnings are errors here, so an overflow in a branch that is not taken would show too.
    layer, _ = FORMULAS[name]
    x = library.array([-1e4, -745.0, -90.0, -0.0, 0.0, 1e-30, 90.0, 745.0, 1e4], dtype)
    y = library.numpy(layer.forward(x))
    dx = library.numpy(layer.backward(library.array(np.ones(9), dtype)))
    assert np.isfinite(y).all() and np.isfinite(dx).all()
    assert dx[-1] == pytest.approx(0.0 if name in ("tanh", "sigmoid") else 1.0)
    assert dx[0] == pytest.approx(0.2 if name == "leaky" else 0.0)


def test_relu_has_slope_0_at_0(library):
    layer = ReLU()
    layer.forward(library.array([-1.0, -0.0, 0.0, 1.0]))
    dx = layer.backward(library.array([1.0, 1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(library.numpy(dx), [0.0, 0.0, 0.0, 1.0])


def test_relu_lets_nan_through(library):
    assert np.isnan(library.numpy(ReLU().forward(library.array([np.nan, 1.0])))[0])


def test_log_without_eps_is_the_plain_logarithm(rng):
    x = rng.uniform(0.1, 2.0, size=(3, 4))
    layer = Log()
    np.testing.assert_allclose(layer.forward(x), np.log(x), rtol=1e-15)
    np.testing.assert_allclose(layer.backward(np.ones_like(x)), 1 / x, rtol=1e-15)


def test_gelu_names_its_two_forms():
    with pytest.raises(ConfigError, match="one of none, tanh, got 'sigmoid'"):
        GELU("sigmoid")


def test_repr_shows_the_constants():
    shown = [repr(layer) for layer in (ELU(0.5), LeakyReLU(0.2), GELU("tanh"), ReLU(), Log(1e-8))]
    assert shown == [
        "ELU(alpha=0.5)",
        "LeakyReLU(slope=0.2)",
        "GELU(approximate='tanh')",
        "ReLU()",
        "Log(eps=1e-08)",
    ]
