"""Batch, layer and RMS normalization, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
from checks import assert_result, layouts, torch_or_skip, unchanged
from tolerances import tolerance

from xpmlp import ops
from xpmlp.errors import BackendError, DTypeError, ShapeError
from xpmlp.testing import gradcheck_function

EPS = 1e-3  # large enough to be noticed when it is left out or put outside the root


def forward(name, x, gamma, beta, mean, var):
    """y alone, of any of the four."""
    if name == "batch_norm_inference":
        return ops.batch_norm_inference(x, gamma, beta, mean, var, EPS)
    if name == "rms_norm":
        return ops.rms_norm(x, gamma, EPS)[0]
    return getattr(ops, name)(x, gamma, beta, EPS)[0]


def gradients(name, dy, x, gamma, beta, mean, var):
    """dx, dgamma and (but for RMS) dbeta."""
    if name == "batch_norm_inference":
        return ops.batch_norm_inference_backward(dy, x, gamma, mean, var, EPS)
    if name == "rms_norm":
        return ops.rms_norm_backward(dy, x, gamma, ops.rms_norm(x, gamma, EPS)[1])
    saved = getattr(ops, name)(x, gamma, beta, EPS)[1:]
    extra = (EPS,) if name == "batch_norm" else ()
    return getattr(ops, f"{name}_backward")(dy, x, gamma, *saved, *extra)


NAMES = ("batch_norm", "batch_norm_inference", "layer_norm", "rms_norm")
# x, and what γ, β and running statistics look like; P = 3, N = 4, D = 5.
SHAPES = {
    "plain": ((4, 5), (5,)),
    "leading": ((2, 4, 5), (5,)),
    "members": ((3, 4, 5), (3, 5)),
    "outer": ((2, 3, 4, 5), (3, 5)),
    "single": ((1, 1), (1,)),
}


def numbers(rng, case, dtype="float64", mean=2.0):
    shape, features = SHAPES[case]
    x = rng.normal(mean, 3, size=shape)
    gamma, beta = rng.normal(size=features), rng.normal(size=features)
    running_mean, running_var = rng.normal(size=features), rng.uniform(0.5, 2, size=features)
    return [a.astype(dtype) for a in (x, gamma, beta, running_mean, running_var)]


def by_torch(name, dy, x, gamma, beta, mean, var):
    """y and gradients by autograd through the plain formula in float64."""
    torch = torch_or_skip()
    x, gamma, beta, mean, var, dy = (
        torch.tensor(np.asarray(a, np.float64)) for a in (x, gamma, beta, mean, var, dy)
    )
    leaves = [t.requires_grad_() for t in (x, gamma, beta)]

    def wide(t):
        return t if t.ndim == 1 else t[:, None, :]

    if name == "rms_norm":
        y = x / torch.sqrt((x**2).mean(-1, keepdim=True) + EPS) * wide(gamma)
    else:
        if name == "layer_norm":
            mu, s2 = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        elif name == "batch_norm":
            kept = {x.ndim - 1} | ({x.ndim - 3} if gamma.ndim == 2 else set())
            axes = tuple(i for i in range(x.ndim) if i not in kept)
            mu, s2 = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
        else:
            mu, s2 = wide(mean), wide(var)
        y = (x - mu) / torch.sqrt(s2 + EPS) * wide(gamma) + wide(beta)
    y.backward(dy)
    return y.detach().numpy(), [t.grad.numpy() for t in leaves if t.grad is not None]


@pytest.mark.parametrize(
    ("case", "name", "dtype"),
    [
        (case, name, ("float32", "float64")[(i + j) % 2])
        for i, case in enumerate(["plain", "leading", "members", "outer"])
        for j, name in enumerate(NAMES)
    ],
)
def test_values_and_gradients(library, rng, case, name, dtype):
    values = numbers(rng, case, dtype)
    dy = rng.normal(size=values[0].shape).astype(dtype)
    arrays, ady = [library.array(a) for a in values], library.array(dy)
    with unchanged(ady, *arrays):
        y = forward(name, *arrays)
        computed = gradients(name, ady, *arrays)
    expected, wanted = by_torch(name, dy, *values)
    assert_result(library, y, expected, "normalization", dtype)
    for actual, gradient in zip(computed, wanted, strict=True):
        assert_result(library, actual, gradient, "normalization", dtype)


@pytest.mark.parametrize("case", ["plain", "members"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_derivatives(library, rng, name, case):
    x, gamma, beta, mean, var = (library.array(a) for a in numbers(rng, case))

    def all_gradients(dy, x, gamma, beta):
        found = [*gradients(name, dy, x, gamma, beta, mean, var), None]
        return found[:3]

    gradcheck_function(
        lambda x, gamma, beta: forward(name, x, gamma, beta, mean, var),
        all_gradients,
        x,
        gamma,
        beta,
        tolerance=1e-5,
    )


@pytest.mark.parametrize("name", NAMES)
def test_population_equals_separate_networks(library, rng, name):
    values = numbers(rng, "members")
    dy = rng.normal(size=values[0].shape)
    arrays = [library.array(a) for a in values]
    y = library.numpy(forward(name, *arrays))
    together = [library.numpy(g) for g in gradients(name, library.array(dy), *arrays)]
    for p in range(3):
        alone = [a[p] for a in values]
        np.testing.assert_allclose(y[p], forward(name, *alone), rtol=1e-12)
        for g, single in zip(together, gradients(name, dy[p], *alone), strict=True):
            np.testing.assert_allclose(g[p], single, **tolerance("normalization", "float64"))


@pytest.mark.parametrize("case", ["plain", "members"])
def test_batch_statistics(library, rng, case):
    x, gamma, beta, *_ = numbers(rng, case)
    _, mean, var = ops.batch_norm(*(library.array(a) for a in (x, gamma, beta)))
    assert_result(library, mean, x.mean(-2), "normalization", "float64")
    assert_result(library, var, x.var(-2), "normalization", "float64")


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_inference", "layer_norm"])
def test_a_large_mean_does_no_harm(library, rng, name):
    """In one pass, E[x²] − E[x]² of 1e8 would leave nothing of a variance of 9 in float32."""
    x, gamma, beta, mean, var = numbers(rng, "plain", "float32", mean=1e4)
    mean = mean + np.float32(1e4)
    y = forward(name, *(library.array(a) for a in (x, gamma, beta, mean, var)))
    expected, _ = by_torch(name, np.ones_like(x), x, gamma, beta, mean, var)
    assert_result(library, y, expected, "large mean", "float32")


@pytest.mark.parametrize("name", NAMES)
def test_constant_rows_and_single_elements_stay_finite(library, name):
    for shape in ((1, 1), (4, 5)):
        features = (shape[-1],)
        values = [np.full(shape, 7.0), *(np.full(features, v) for v in (2.0, 0.5, 7.0, 0.0))]
        arrays = [library.array(a) for a in values]
        y = library.numpy(forward(name, *arrays))
        np.testing.assert_allclose(y, 2.0 if name == "rms_norm" else 0.5, rtol=1e-4)
        for g in gradients(name, library.array(np.ones(shape)), *arrays):
            assert np.isfinite(library.numpy(g)).all()


@pytest.mark.parametrize("name", NAMES)
def test_any_layout(library, rng, name):
    values = numbers(rng, "plain")
    dy = rng.normal(size=(4, 5))
    rest = [library.array(a) for a in values[1:]]
    expected, wanted = by_torch(name, dy, *values)
    ady = layouts(library, dy)
    for layout, x in layouts(library, values[0]).items():
        y = forward(name, x, *rest)
        assert_result(library, y, expected, "normalization", "float64")
        for actual, g in zip(gradients(name, ady[layout], x, *rest), wanted, strict=True):
            assert_result(library, actual, g, "normalization", "float64")


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_accumulates_wider(rng, name):
    values = numbers(rng, "plain", "float16", mean=100.0)
    values[3] = values[3] + np.float16(100)
    dy = rng.normal(size=(4, 5)).astype(np.float16)
    expected, wanted = by_torch(name, dy, *values)
    y = forward(name, *values)
    assert y.dtype == np.float16
    limits = tolerance("normalization", "float16")
    np.testing.assert_allclose(y, expected, **limits)
    for actual, g in zip(gradients(name, dy, *values), wanted, strict=True):
        assert actual.dtype == np.float16
        np.testing.assert_allclose(actual, g, **limits)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "rms_norm"])
def test_half_precision_keeps_its_statistics_in_float32(rng, name):
    x, gamma, beta, *_ = numbers(rng, "plain", "float16")
    _, *saved = ops.rms_norm(x, gamma) if name == "rms_norm" else getattr(ops, name)(x, gamma, beta)
    assert all(s.dtype == np.float32 for s in saved)


def test_half_precision_sums_many_rows():
    x = np.ones((40_000, 3), np.float16)
    dy, gamma = np.full_like(x, 0.1), np.ones(3, np.float16)
    statistics = np.ones(3, np.float32), np.ones(3, np.float32)
    _, _, dbeta = ops.batch_norm_backward(dy, x, gamma, *statistics)
    np.testing.assert_allclose(dbeta, 4000, rtol=1e-3)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "rms_norm"])
def test_bad_input_is_a_clear_error(name):
    def call(x, gamma, beta=None):
        if name == "rms_norm":
            return ops.rms_norm(x, gamma)
        return getattr(ops, name)(x, gamma, np.zeros_like(gamma) if beta is None else beta)

    for shape, features in [
        ((4, 5), (6,)),
        ((0, 5), (5,)),
        ((0, 4, 5), (5,)),
        ((4, 5), (3, 5)),
        ((2, 4, 5), (3, 5)),
        ((5,), (5,)),
    ]:
        with pytest.raises(ShapeError, match=f"`{name}`: expected x of shape"):
            call(np.zeros(shape), np.ones(features))
    with pytest.raises(DTypeError, match="floating dtype, got int64"):
        call(np.zeros((4, 5), np.int64), np.ones(5))
    if name != "rms_norm":
        with pytest.raises(ShapeError, match=r"beta of shape \(5,\), got \(4, 5\)"):
            call(np.zeros((4, 5)), np.ones(5), np.ones((4, 5)))


@pytest.mark.parametrize("name", NAMES)
def test_mixed_libraries_are_refused(rng, name):
    torch = torch_or_skip()
    used = {"batch_norm_inference": 5, "rms_norm": 2}.get(name, 3)
    for position in range(used):
        values = numbers(rng, "plain")
        values[position] = torch.tensor(values[position])
        with pytest.raises(BackendError, match="one library"):
            forward(name, *values)
