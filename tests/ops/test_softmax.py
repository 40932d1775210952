"""Softmax and log-softmax along any axis."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import assert_result, layouts, torch_or_skip, unchanged

from xpmlp import ops
from xpmlp.testing import gradcheck_function

FUNCTIONS = {
    "softmax": (ops.softmax, ops.softmax_backward),
    "log_softmax": (ops.log_softmax, ops.log_softmax_backward),
}


def log_softmax_64(x, axis=-1):
    x = x.astype(np.float64)
    peak = x.max(axis=axis, keepdims=True)
    return x - peak - np.log(np.exp(x - peak).sum(axis=axis, keepdims=True))


def value_64(name, x, axis=-1):
    y = log_softmax_64(x, axis)
    return np.exp(y) if name == "softmax" else y


@pytest.mark.parametrize("axis", [-1, -2, 0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradient(library, rng, name, dtype, axis):
    torch = torch_or_skip()
    forward, backward = FUNCTIONS[name]
    x = rng.normal(scale=3, size=(2, 3, 5)).astype(dtype)
    dy = rng.normal(size=x.shape).astype(dtype)
    ax, ady = library.array(x), library.array(dy)
    with unchanged(ax, ady):
        y = forward(ax, axis)
        dx = backward(ady, y, axis)
    assert_result(library, y, value_64(name, x, axis), "reduction", dtype)
    t = torch.tensor(x.astype(np.float64), requires_grad=True)
    getattr(torch, name)(t, axis).backward(torch.tensor(dy.astype(np.float64)))
    assert_result(library, dx, t.grad.numpy(), "reduction", dtype)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_backward_is_the_derivative(library, rng, name, axis):
    forward, backward = FUNCTIONS[name]
    gradcheck_function(
        lambda x: forward(x, axis),
        lambda dy, x: [backward(dy, forward(x, axis), axis)],
        library.array(rng.normal(size=(3, 5))),
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_extreme_rows(library, name, dtype):
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [7, -math.inf, -math.inf]], dtype)
    if name == "softmax":
        expected = np.array([[1, 0, 0], [1 / 3] * 3, [1, 0, 0]])
    else:
        third, inf = math.log(1 / 3), math.inf
        expected = np.array([[0, -2e4, -1e4], [third] * 3, [0, -inf, -inf]])
    assert_result(library, FUNCTIONS[name][0](library.array(x)), expected, "reduction", dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_class_and_any_layout(library, rng, name):
    forward, backward = FUNCTIONS[name]
    single = forward(library.array(rng.normal(size=(3, 1))))
    np.testing.assert_array_equal(library.numpy(single), float(name == "softmax"))
    np.testing.assert_array_equal(library.numpy(backward(single + 2, single)), 0)
    values = rng.normal(size=(4, 3))
    for x in layouts(library, values).values():
        assert_result(library, forward(x), value_64(name, values), "reduction", "float64")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision_accumulates_wider(rng, name):
    forward, backward = FUNCTIONS[name]
    x = np.zeros((1, 100_000), np.float16)  # whose sum of ones is beyond float16
    y = forward(x)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, value_64(name, x), rtol=5e-3, atol=6e-8)
    dx = backward(np.ones_like(x), y)
    assert dx.dtype == np.float16
    np.testing.assert_allclose(dx, 0, atol=2e-2)  # y itself is rounded to 1.0014e-5
