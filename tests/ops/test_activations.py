"""Every activation and its backward: values, gradients, extremes, layouts, half precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import assert_result, layouts, torch_or_skip, unchanged
from tolerances import tolerance

from xpmlp import ops
from xpmlp.testing import gradcheck_function

_erfc = np.vectorize(math.erfc, otypes=[np.float64])
_GELU_TANH = math.sqrt(2 / math.pi)
_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772

VALUES = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: 0.5 * x * _erfc(-x / math.sqrt(2)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(_GELU_TANH * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "silu": lambda x: x * np.exp(-np.logaddexp(0, -x)),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "celu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: _SCALE * np.where(x > 0, x, _ALPHA * np.expm1(np.minimum(x, 0))),
    "hardswish": lambda x: x * (np.clip(x + 3, 0, 6) / 6),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
}
NAMES = tuple(VALUES)
FLAT = ("sigmoid", "tanh", "softsign")  # on both sides


def backward_of(name):
    return getattr(ops, f"{name}_backward")


def torch_gradient(name, dy, x):
    torch = torch_or_skip()
    F = torch.nn.functional
    functions = {
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
        "softplus": lambda t: F.softplus(t, threshold=1000),
    }
    function = functions.get(name) or getattr(F, name)
    t = torch.tensor(x.astype(np.float64), requires_grad=True)
    function(t).backward(torch.tensor(dy.astype(np.float64)))
    return t.grad.numpy()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradient(library, rng, name, dtype):
    x = rng.normal(scale=3, size=(3, 5)).astype(dtype)
    dy = rng.normal(size=(3, 5)).astype(dtype)
    ax, ady = library.array(x), library.array(dy)
    with unchanged(ax, ady):
        y = getattr(ops, name)(ax)
        dx = backward_of(name)(ady, ax, y)
    assert_result(library, y, VALUES[name](x.astype(np.float64)), "elementwise", dtype)
    assert_result(library, dx, torch_gradient(name, dy, x), "elementwise", dtype)


@pytest.mark.parametrize("name", NAMES)
def test_backward_is_the_derivative(library, rng, name):
    forward = getattr(ops, name)
    x = rng.normal(size=(3, 5))
    x += 0.01 * np.sign(x)  # off the kinks at 0
    gradcheck_function(
        forward, lambda dy, x: [backward_of(name)(dy, x, forward(x))], library.array(x)
    )


@pytest.mark.parametrize("option", ["leaky_relu-slope", "elu-alpha", "celu-alpha"])
def test_options_reach_both_directions(rng, option):
    name, key = option.split("-")
    x = rng.normal(size=(3, 5))
    value = np.float64(0.3)  # a NumPy scalar must not widen float32 either
    y = getattr(ops, name)(x, value)
    powers = {"elu": x, "celu": x / 0.3}
    negative = 0.3 * (np.expm1(np.minimum(powers[name], 0)) if name in powers else x)
    np.testing.assert_allclose(y, np.where(x > 0, x, negative), rtol=1e-15)
    gradcheck_function(
        lambda x: getattr(ops, name)(x, value),
        lambda dy, x: [backward_of(name)(dy, x, getattr(ops, name)(x, value), value)],
        x,
    )
    narrow = x.astype(np.float32)
    assert getattr(ops, name)(narrow, **{key: value}).dtype == np.float32
    assert backward_of(name)(narrow, narrow, narrow, **{key: value}).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_extremes_neither_overflow_nor_lose_the_gradient(library, name, dtype):
    x = np.array([-1e30, -1e4, -88.8, -30, -1e-30, 0, 1e-30, 30, 88.8, 1e4, 1e30], dtype)
    one = library.array(np.ones_like(x))
    y = getattr(ops, name)(library.array(x))
    dx = library.numpy(backward_of(name)(one, library.array(x), y))
    with np.errstate(all="ignore"):
        expected = VALUES[name](x.astype(np.float64))
    assert_result(library, y, expected, "elementwise", dtype)
    assert np.isfinite(dx).all()
    limits = {"leaky_relu": (0.01, 1), "selu": (0, _SCALE), **dict.fromkeys(FLAT, (0, 0))}.get(
        name, (0, 1)
    )
    np.testing.assert_allclose(dx[[0, 1, -2, -1]], np.repeat(limits, 2), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan(library, name):
    y = getattr(ops, name)(library.array([math.nan, 1.0]))
    assert np.isnan(library.numpy(y)).tolist() == [True, False]


def test_relu_subgradient_at_zero_is_zero(library):
    x = library.array([0.0, -0.0, 2.0])
    dx = ops.relu_backward(library.array([5.0, 5.0, 5.0]), x, ops.relu(x))
    assert library.numpy(dx).tolist() == [0, 0, 5]


@pytest.mark.parametrize("name", NAMES)
def test_any_layout_and_empty_arrays(library, rng, name):
    values = rng.normal(size=(4, 3))
    expected = VALUES[name](values)
    for x in layouts(library, values).values():
        assert_result(library, getattr(ops, name)(x), expected, "elementwise", "float64")
    assert tuple(getattr(ops, name)(library.array(np.zeros((0, 3)))).shape) == (0, 3)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_half(name):
    x = np.array([-1e4, -300, -3, -0.5, 0.25, 2, 300, 1e4], np.float16)
    y = getattr(ops, name)(x)
    dx = backward_of(name)(np.ones_like(x), x, y)
    assert y.dtype == dx.dtype == np.float16
    with np.errstate(all="ignore"):
        expected = VALUES[name](x.astype(np.float64))
    np.testing.assert_allclose(y, expected, **tolerance("elementwise", "float16"))
    np.testing.assert_allclose(
        dx, torch_gradient(name, np.ones_like(x), x), **tolerance("elementwise", "float16")
    )
