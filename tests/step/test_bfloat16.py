"""Products of bfloat16 numbers with float32 sums: the kernel, and steps that use it."""

from __future__ import annotations

import dataclasses

import gemm_parity
import numpy as np
import pytest

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

from xpmlp import ops
from xpmlp.errors import BackendError
from xpmlp.kernels.numba import gemm, simd
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.step import TrainStep

has_products = pytest.mark.skipif(
    not simd.target().bfloat16, reason="this processor has no AVX512-BF16"
)


def rounded(values):
    """To the nearest bfloat16 number, half to even, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


@has_products
@pytest.mark.parametrize("first", gemm_parity.LAYOUTS)
@pytest.mark.parametrize("second", gemm_parity.LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (13, 34, 50), (700, 531, 100)])
def test_factors_are_rounded_and_sums_are_not(shape, first, second, rng):
    rows, depth, columns = shape
    a = rng.normal(size=(2, rows, depth)).astype(np.float32)
    b = rng.normal(size=(2, depth, columns)).astype(np.float32)
    expected = rounded(a).astype(np.float64) @ rounded(b).astype(np.float64)
    c = np.full((2, rows, columns), np.nan, np.float32)
    laid_out = gemm_parity.laid_out
    gemm_parity.product(laid_out(a, first), laid_out(b, second), c, kind=gemm.bfloat16_product)
    bound = np.abs(a) @ np.abs(b) * np.finfo(np.float32).eps
    assert (np.abs(c - expected) <= bound * (1 + depth**0.5)).all()


@has_products
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_strange_numbers_stay_strange(bad):
    a, b = np.ones((1, 3, 5), np.float32), np.ones((1, 5, 4), np.float32)
    a[0, 1, 2] = bad
    c = np.zeros((1, 3, 4), np.float32)
    gemm_parity.product(a, b, c, kind=gemm.bfloat16_product)
    assert np.array_equal(c[0, 1], np.full(4, bad, np.float32), equal_nan=True)
    assert (c[0, ::2] == 5).all()


@has_products
def test_a_nan_with_low_bits_only_is_none_the_less_one():
    a = np.array([[[0x7F800001]]], np.uint32).view(np.float32)
    c = np.zeros((1, 1, 1), np.float32)
    gemm_parity.product(a, np.ones_like(a), c, kind=gemm.bfloat16_product)
    assert np.isnan(c).all()


def trained(rng, precision, *, population=None, dtype="float32", steps=30):
    net = FullyConnectedNet([40, 64, 5], population=population, dtype=dtype, seed=0)
    step = TrainStep(net, SoftmaxCrossEntropy(), SGD(0.05), precision=precision)
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(90, 40)).astype(dtype), draw.integers(0, 5, 90)
    losses = [step(x, y) for _ in range(steps)]
    return net, step, np.array(losses), (x, y)


@has_products
@pytest.mark.parametrize("population", [None, 3])
def test_a_step_trains_nearly_as_in_single_precision(population, rng):
    net, step, losses, batch = trained(rng, "bf16", population=population)
    assert step.explain(*batch) == "compiled"
    plain, _, expected, _ = trained(rng, None, population=population)
    np.testing.assert_allclose(losses, expected, rtol=0.01)
    assert not np.array_equal(losses, expected)  # it did round
    for name, value in net.params.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, plain.params[name], atol=0.01)


@has_products
def test_the_first_outputs_are_products_of_rounded_factors(rng):
    net = FullyConnectedNet([40, 5], dtype="float32", seed=0)
    weights, bias = (np.array(net.params[name]) for name in sorted(net.params, reverse=True)[:2])
    if weights.ndim == 1:
        weights, bias = bias, weights
    step = TrainStep(net, SoftmaxCrossEntropy(), SGD(0.05), precision="bf16")
    x = rng.normal(size=(90, 40)).astype(np.float32)
    step(x, rng.integers(0, 5, 90))
    expected = rounded(x) @ rounded(weights) + bias
    np.testing.assert_allclose(step.outputs, expected, rtol=1e-5, atol=1e-5)


def test_where_it_cannot_be_it_is_refused(rng, monkeypatch):
    with pytest.raises(BackendError, match="on NumPy there is 'bf16' and no 'fp16'"):
        trained(rng, "fp16")
    with ops.without_kernels(), pytest.raises(BackendError, match="leave precision out"):
        trained(rng, "bf16")
    if simd.target().bfloat16:
        with pytest.raises(BackendError, match="its numbers are float64"):
            trained(rng, "bf16", dtype="float64")
    without = dataclasses.replace(simd.target(), bfloat16=False)
    monkeypatch.setattr(simd, "target", lambda: without)
    with pytest.raises(BackendError, match="this processor has no products of bfloat16 numbers"):
        trained(rng, "bf16")
