"""exp and log of the kernels: within 2 units in the last place."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from xpmlp.kernels.numba.elementary import (  # noqa: E402
    exp_nonpositive,
    expm1_nonpositive,
    log1p_of_unit,
    log_positive,
    normal,
    sigmoid,
    tanh,
)


@numba.njit
def exps(x, out):
    for i in range(x.size):
        out[i] = exp_nonpositive(x[i])


@numba.njit
def logs(x, out):
    for i in range(x.size):
        out[i] = log_positive(x[i])


@numba.njit(error_model="numpy")
def tanhs(x, out):
    for i in range(x.size):
        out[i] = tanh(x[i])


@numba.njit(error_model="numpy")
def sigmoids(x, out):
    for i in range(x.size):
        out[i] = sigmoid(x[i])


@numba.njit(error_model="numpy")
def expm1s(x, out):
    for i in range(x.size):
        out[i] = expm1_nonpositive(x[i])


@numba.njit(error_model="numpy")
def log1ps(x, out):
    for i in range(x.size):
        out[i] = log1p_of_unit(x[i])


@numba.njit(error_model="numpy")
def normals(x, distribution, density):
    for i in range(x.size):
        distribution[i], density[i] = normal(x[i])


def ulps(values, exact):
    spacing = np.spacing(np.abs(exact).astype(values.dtype)).astype(np.longdouble)
    return np.max(np.abs(values - exact) / spacing)


@pytest.mark.parametrize(("dtype", "least"), [("float32", -87.3), ("float64", -708.3)])
def test_exp_is_within_two_units_in_the_last_place(dtype, least, rng):
    x = np.concatenate([least * rng.random(100_000), -rng.random(100_000)]).astype(dtype)
    out = np.empty_like(x)
    exps(x, out)
    assert ulps(out, np.exp(x.astype(np.longdouble))) < 2.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_is_within_two_units_in_the_last_place(dtype, rng):
    x = np.exp(12 * rng.random(200_000)).astype(dtype)
    out = np.empty_like(x)
    logs(x, out)
    near = np.abs(x - 1) < 1e-3  # there the result is small, and so is its unit
    assert ulps(out[~near], np.log(x[~near].astype(np.longdouble))) < 2.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tanh_and_sigmoid_are_within_three_units_in_the_last_place(dtype, rng):
    scales = 10.0 ** rng.uniform(-6, 1.2, 200_000)
    x = (scales * rng.choice([-1, 1], scales.size)).astype(dtype)
    out, wide = np.empty_like(x), x.astype(np.longdouble)
    tanhs(x, out)
    assert ulps(out, np.tanh(wide)) < 3.0
    sigmoids(x, out)
    assert ulps(out, 1 / (1 + np.exp(-wide))) < 3.0


@pytest.mark.parametrize(("dtype", "least"), [("float32", -20), ("float64", -40)])
def test_expm1_and_log1p_are_within_four_units_in_the_last_place(dtype, least, rng):
    scales = 10.0 ** rng.uniform(-12, 0, 200_000)
    x = np.concatenate([-scales, least * rng.random(200_000)]).astype(dtype)
    out = np.empty_like(x)
    expm1s(x, out)
    assert ulps(out, np.expm1(x.astype(np.longdouble))) < 4.0
    x = np.concatenate([scales, rng.random(200_000)]).astype(dtype)
    log1ps(x, out)
    assert ulps(out, np.log1p(x.astype(np.longdouble))) < 4.0


def normal_tail(x, density):
    """1 − Φ(x) for x ≥ 0: Φ's series around 0, a continued fraction further out."""
    term = total = x * density
    for n in range(3, 80, 2):
        term = term * x * x / n
        total = total + term
    fraction = x + 0
    for n in range(400, 0, -1):
        fraction = x + n / np.maximum(fraction, 1)
    return np.where(x < 1.2, 0.5 - total, density / np.maximum(fraction, 1))


@pytest.mark.parametrize(("dtype", "most"), [("float32", 13.1), ("float64", 37.6)])
def test_normal_is_within_six_units_in_the_last_place(dtype, most, rng):
    x = np.concatenate([most * rng.random(40_000), 3 * rng.random(40_000), [1e-9, 0]]).astype(dtype)
    wide = x.astype(np.longdouble)
    exact = np.exp(-wide * wide / 2) / np.sqrt(2 * np.longdouble("3.14159265358979323846"))
    out, density = np.empty_like(x), np.empty_like(x)
    normals(x, out, density)
    assert ulps(out, 1 - normal_tail(wide, exact)) < 4.0
    assert ulps(density, exact) < 4.0
    normals(-x, out, density)
    assert ulps(out, normal_tail(wide, exact)) < 6.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_expm1_log1p_and_normal_far_out(dtype):
    x = np.array([0.0, -0.0, -1e-30, -1e5, -np.inf, np.nan], dtype)
    out, density = np.empty_like(x), np.empty_like(x)
    expm1s(x, out)
    np.testing.assert_array_equal(out, np.array([0, -0.0, -1e-30, -1, -1, np.nan], dtype))
    log1ps(-x, out)
    np.testing.assert_array_equal(out[[0, 1, 2, 5]], np.array([-0.0, 0, 1e-30, np.nan], dtype))
    x = np.array([50, -50, 1e30, -1e30, np.inf, -np.inf, np.nan], dtype)
    out, density = np.empty_like(x), np.empty_like(x)
    normals(x, out, density)
    np.testing.assert_array_equal(out, np.array([1, 0, 1, 0, 1, 0, np.nan], dtype))
    np.testing.assert_array_equal(density, np.array([0, 0, 0, 0, 0, 0, np.nan], dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tanh_and_sigmoid_far_out(dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30], dtype)
    out = np.empty_like(x)
    tanhs(x, out)
    np.testing.assert_array_equal(out, np.tanh(x))
    sigmoids(x, out)
    np.testing.assert_array_equal(out, np.array([0.5, 0.5, 1, 0, np.nan, 1, 0, 0.5], dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ends_of_the_range(dtype):
    x = np.array([0.0, -0.0, -np.inf, -1e5, np.nan, -np.nan], dtype)
    out = np.empty_like(x)
    exps(x, out)
    np.testing.assert_array_equal(out, [1, 1, 0, 0, np.nan, np.nan])
    x = np.array([1.0, np.nan, -np.nan, np.inf], dtype)
    logs(x, out[:4])
    np.testing.assert_array_equal(out[:4], [0, np.nan, np.nan, np.nan])
