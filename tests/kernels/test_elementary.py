"""exp and log of the kernels: within 2 units in the last place."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from xpmlp.kernels.numba.elementary import (  # noqa: E402
    exp_nonpositive,
    from_ordered_bits,
    log_positive,
    ordered_bits,
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


@numba.njit
def there_and_back(x, bits, out):
    for i in range(x.size):
        bits[i] = ordered_bits(x[i])
        out[i] = from_ordered_bits(bits[i], x[i])


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ordered_bits_order_as_the_floats(dtype, rng):
    x = np.sort(np.concatenate([rng.normal(size=1000) * 1e3, [0.0, np.inf, -np.inf]])).astype(dtype)
    bits, out = np.empty(x.size, np.int64), np.empty_like(x)
    there_and_back(x, bits, out)
    assert (np.diff(bits) >= 0).all()
    np.testing.assert_array_equal(out, x)
