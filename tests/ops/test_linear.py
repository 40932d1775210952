"""``f(x W + b)`` and its gradients, with shared and separate populations."""

from __future__ import annotations

import numpy as np
import pytest
from checks import assert_result, layouts, torch_or_skip, unchanged
from tolerances import tolerance

from xpmlp import ops
from xpmlp.errors import BackendError, ConfigError, ShapeError
from xpmlp.testing import gradcheck_function

DTYPES = ("float32", "float64")
ACTIVATIONS = (None, "relu", "tanh", "sigmoid")
# x, W and b; letters as in the design: P = 3, N = 4, D = 5, M = 2.
SHAPES = {
    "plain": ((4, 5), (5, 2), (2,)),
    "vector": ((5,), (5, 2), (2,)),
    "leading": ((2, 4, 5), (5, 2), (2,)),
    "one": ((1, 1), (1, 1), (1,)),
    "empty": ((0, 5), (5, 2), (2,)),
    "members": ((3, 4, 5), (3, 5, 2), (3, 2)),
    "shared": ((4, 5), (3, 5, 2), (3, 2)),
    "vector-shared": ((5,), (3, 5, 2), (3, 2)),
    "outer": ((2, 3, 4, 5), (3, 5, 2), (3, 2)),
}


def numbers(rng, case, dtype="float64"):
    return [rng.normal(size=shape).astype(dtype) for shape in SHAPES[case]]


def apply64(activation, z):
    if activation is None:
        return z
    return {"relu": lambda: np.maximum(z, 0), "tanh": lambda: np.tanh(z)}.get(
        activation, lambda: 1 / (1 + np.exp(-z))
    )()


def linear64(x, W, b, activation):
    x, W, b = (a.astype(np.float64) for a in (x, W, b))
    bias = b if b.ndim == 1 or x.ndim == 1 else b[..., None, :]
    return (
        apply64(activation, np.einsum("...d,...dm->...m", x, W) + bias)
        if x.ndim == 1
        else (apply64(activation, np.einsum("...nd,...dm->...nm", x, W) + bias))
    )


@pytest.mark.parametrize(
    ("case", "activation", "dtype"),
    [
        *((case, ACTIVATIONS[i % 4], DTYPES[i % 2]) for i, case in enumerate(SHAPES)),
        *(("plain", a, DTYPES[i % 2]) for i, a in enumerate(ACTIVATIONS[1:])),
        *(("members", a, DTYPES[i % 2]) for i, a in enumerate(ACTIVATIONS[:3])),
    ],
)
def test_values_and_gradients(library, rng, case, activation, dtype):
    x, W, b = numbers(rng, case, dtype)
    expected = linear64(x, W, b, activation)
    dy = rng.normal(size=expected.shape).astype(dtype)
    arrays = [library.array(a) for a in (dy, x, W, b)]
    with unchanged(*arrays):
        ady, ax, aW, ab = arrays
        y = ops.linear(ax, aW, ab, activation)
        gradients = ops.linear_backward(ady, ax, aW, y, activation)
    assert_result(library, y, expected, "reduction", dtype)
    for gradient, wanted in zip(gradients, by_torch(dy, x, W, b, activation), strict=True):
        assert_result(library, gradient, wanted, "reduction", dtype)


def by_torch(dy, x, W, b, activation):
    torch = torch_or_skip()
    tx, tW, tb = (torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, W, b))
    z = tx @ tW
    z = z + (tb if tb.ndim == 1 or tx.ndim == 1 else tb[:, None, :])
    y = z if activation is None else getattr(torch, activation)(z)
    y.backward(torch.tensor(dy.astype(np.float64)))
    return tx.grad.numpy(), tW.grad.numpy(), tb.grad.numpy()


@pytest.mark.parametrize(
    ("case", "activation"),
    [("plain", "relu"), ("leading", "tanh"), ("members", "sigmoid"), ("shared", None)],
)
def test_gradients_are_the_derivatives(library, rng, case, activation):
    def gradients(dy, x, W, b):
        return ops.linear_backward(dy, x, W, ops.linear(x, W, b, activation), activation)

    arrays = [library.array(a) for a in numbers(rng, case)]
    gradcheck_function(lambda x, W, b: ops.linear(x, W, b, activation), gradients, *arrays)


@pytest.mark.parametrize("case", ["members", "shared"])
def test_population_equals_separate_networks(library, rng, case):
    x, W, b = numbers(rng, case)
    dy = rng.normal(size=(3, 4, 2))
    ax, aW = library.array(x), library.array(W)
    y = library.numpy(ops.linear(ax, aW, library.array(b)))
    dx, dW, db = map(library.numpy, ops.linear_backward(library.array(dy), ax, aW))
    alone = [ops.linear_backward(dy[p], x[p] if x.ndim == 3 else x, W[p]) for p in range(3)]
    for p in range(3):
        single = ops.linear(x[p] if x.ndim == 3 else x, W[p], b[p])
        np.testing.assert_allclose(y[p], single, **tolerance("reduction", "float64"))
        np.testing.assert_allclose(dW[p], alone[p][1], **tolerance("reduction", "float64"))
        np.testing.assert_allclose(db[p], alone[p][2], **tolerance("reduction", "float64"))
    each = [a[0] for a in alone]
    expected = np.stack(each) if x.ndim == 3 else sum(each)
    np.testing.assert_allclose(dx, expected, **tolerance("reduction", "float64"))


@pytest.mark.parametrize("case", ["plain", "members"])
def test_input_gradient_is_left_out_on_request(library, rng, case):
    x, W, b = (library.array(a) for a in numbers(rng, case))
    dy = ops.linear(x, W, b)
    full = ops.linear_backward(dy, x, W)
    dx, dW, db = ops.linear_backward(dy, x, W, input_grad=False)
    assert dx is None
    np.testing.assert_array_equal(library.numpy(dW), library.numpy(full[1]))
    np.testing.assert_array_equal(library.numpy(db), library.numpy(full[2]))


def test_bias_is_optional(library, rng):
    x, W, b = numbers(rng, "plain")
    y = ops.linear(library.array(x), library.array(W))
    assert_result(library, y, linear64(x, W, 0 * b, None), "reduction", "float64")


def test_any_layout(library, rng):
    x, W, b = numbers(rng, "plain")
    expected = linear64(x, W, b, None)
    dy = np.ones_like(expected)
    gradients = ops.linear_backward(dy, x, W)
    ab = library.array(b)
    for ax in layouts(library, x).values():
        for aW in layouts(library, W).values():
            assert_result(library, ops.linear(ax, aW, ab), expected, "reduction", "float64")
            for ady in layouts(library, dy).values():
                for actual, wanted in zip(ops.linear_backward(ady, ax, aW), gradients, strict=True):
                    assert_result(library, actual, wanted, "reduction", "float64")


def test_half_precision_sums_the_bias_gradient_wider():
    N = 40_000
    x, W = np.full((N, 1), 0.01, np.float16), np.ones((1, 3), np.float16)
    dy = np.full((N, 3), 0.1, np.float16)
    y = ops.linear(x, W, np.zeros(3, np.float16), "sigmoid")
    assert y.dtype == np.float16
    dx, dW, db = ops.linear_backward(dy, x, W)
    assert dx.dtype == dW.dtype == db.dtype == np.float16
    # Added up in float16 the sum would stall at 256, where 0.1 is below half a step.
    np.testing.assert_allclose(db, 0.1 * N, rtol=1e-3)
    members = ops.linear_backward(dy[None], x[None], W[None])
    np.testing.assert_allclose(members[2][0], db, rtol=1e-3)


def zeros(*shapes):
    return [np.zeros(shape) for shape in shapes]


BAD = {
    "features": (lambda: ops.linear(*zeros((4, 5), (6, 2))), ShapeError, r"\(…, 6\)"),
    "vector-W": (lambda: ops.linear(*zeros((4, 5), (5,))), ShapeError, r"\(…, D\)"),
    "bias": (lambda: ops.linear(*zeros((4, 5), (5, 2), (3,))), ShapeError, r"b of shape \(2,\)"),
    "population": (lambda: ops.linear(*zeros((2, 4, 5), (3, 5, 2))), ShapeError, "population"),
    "activation": (
        lambda: ops.linear(*zeros((4, 5), (5, 2)), None, "gelu"),
        ConfigError,
        "None, relu, tanh, sigmoid",
    ),
    "dy": (lambda: ops.linear_backward(*zeros((4, 3), (4, 5), (5, 2))), ShapeError, r"\(4, 2\)"),
    "dy-population": (
        lambda: ops.linear_backward(*zeros((4, 2), (4, 5), (3, 5, 2))),
        ShapeError,
        r"dy of shape \(3, 4, 2\)",
    ),
    "no-y": (
        lambda: ops.linear_backward(*zeros((4, 2), (4, 5), (5, 2)), None, "relu"),
        ShapeError,
        "expected y",
    ),
    "wrong-y": (
        lambda: ops.linear_backward(*zeros((4, 2), (4, 5), (5, 2), (4, 1)), "relu"),
        ShapeError,
        "expected y",
    ),
    "narrow-x": (
        lambda: ops.linear_backward(*zeros((6, 3), (6, 3), (4, 3))),
        ShapeError,
        r"`linear_backward`: expected x of shape \(…, 4\) for W of shape \(4, 3\), got \(6, 3\)",
    ),
    "wide-x": (
        lambda: ops.linear_backward(*zeros((6, 3), (6, 5), (4, 3))),
        ShapeError,
        r"expected x of shape \(…, 4\)",
    ),
    "unknown": (
        lambda: ops.linear_backward(*zeros((4, 2), (4, 5), (5, 2), (4, 2)), "gelu"),
        ConfigError,
        "relu, tanh, sigmoid",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_clear_error(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("position", range(3))
def test_mixed_libraries_are_refused(position):
    torch = torch_or_skip()
    arrays = zeros((4, 5), (5, 2), (2,))
    arrays[position] = torch.tensor(arrays[position])
    with pytest.raises(BackendError, match="one library"):
        ops.linear(*arrays)
