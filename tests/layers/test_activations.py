"""Activation layers: the ops of their names, whose own tests have values and gradients."""

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import ConfigError
from xpmlp.layers import CELU, ELU, GELU, LeakyReLU, Log, ReLU
from xpmlp.layers.activations import ACTIVATIONS

LAYERS = {
    **{name: kind() for name, kind in ACTIVATIONS.items()},
    "leaky": LeakyReLU(0.2),
    "elu of 0.7": ELU(0.7),
    "gelu-tanh": GELU("tanh"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_they_are_the_ops_of_their_names(name, rng):
    layer, x, dy = LAYERS[name], rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    y = layer.forward(x)
    np.testing.assert_array_equal(y, getattr(ops, layer.op)(x, **layer.options()))
    backward = getattr(ops, f"{layer.op}_backward")
    np.testing.assert_array_equal(layer.backward(dy), backward(dy, x, y, **layer.options()))


def test_their_constants_reach_both_directions():
    x, ones = np.array([-1.0, 2.0]), np.ones(2)
    for layer, y, dx in (
        (LeakyReLU(0.2), [-0.2, 2.0], [0.2, 1.0]),
        (CELU(0.5), [0.5 * np.expm1(-2.0), 2.0], [np.exp(-2.0), 1.0]),
        (ELU(0.7), [0.7 * np.expm1(-1.0), 2.0], [0.7 * np.exp(-1.0), 1.0]),
    ):
        np.testing.assert_allclose(layer.forward(x), y, rtol=1e-15)
        np.testing.assert_allclose(layer.backward(ones), dx, rtol=1e-15)
    assert not np.array_equal(GELU("tanh").forward(x), GELU().forward(x))


def test_log_adds_its_eps(library, rng):
    x = rng.uniform(-3.5, 3.5, size=(4, 5))
    y = library.numpy(Log(eps=4.0).forward(library.array(x)))
    np.testing.assert_allclose(y, np.log(x + 4.0), rtol=1e-12)


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
