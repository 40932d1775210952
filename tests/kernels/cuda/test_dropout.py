"""dropout.cu on the CPU: bit for bit the op's reference."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.driver import At
from kernels.cuda.elements import SUFFIXES, decode, encode, poisoned

from xpmlp.kernels.cuda import geometry
from xpmlp.ops.dropout import reference
from xpmlp.random import Generator, random_bits

DEVICE = geometry.Device()


def mask_arguments(rates, seeds, stream, suffix):
    """keys, thresholds, scales and stream as the kernels take them."""
    rates = np.broadcast_to(np.asarray(rates, np.float64), len(seeds))
    keys = np.array([(seed & 0xFFFFFFFF, seed >> 32) for seed in seeds], np.uint32)
    thresholds = np.rint(rates * (1 << 24)).astype(np.uint32)
    return keys, thresholds, encode(1.0 / (1.0 - rates), suffix), stream


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (2, 1026), (1, 4096)])
def test_dropout_draws_the_reference_mask(shim, rng, suffix, shape):
    members, size = shape
    seeds, rates = [2**63 + 5 * i for i in range(members)], [0.1 + 0.2 * i for i in range(members)]
    x = encode(rng.normal(size=shape), suffix)
    x.reshape(-1)[0] = encode(np.array([np.inf]), suffix)[0]
    y = poisoned(shape, x.dtype)
    arguments = mask_arguments(rates, seeds, 9, suffix)
    launch = geometry.elementwise("dropout", size, members, suffix, DEVICE)
    shim("dropout", suffix).launch(
        launch, x, y, size, members, *arguments, np.array([2**32 + 3], np.int64), 4
    )
    values = decode(x, suffix) if suffix == "bf16" else x
    expected = reference(values, tuple(rates), Generator(seeds, 9), 7)
    if suffix == "bf16":  # NumPy has no bfloat16: kept or not, and by which factor
        factors = decode(arguments[2], suffix)[:, None]
        expected = decode(encode(np.where(expected != 0, values * factors, 0), suffix), suffix)
    np.testing.assert_array_equal(decode(y, suffix), expected.astype(np.float64))
    assert members * size < 8 or 0 < np.count_nonzero(expected) < expected.size


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_dropout_works_in_place_unaligned_and_without_a_step_on_the_device(shim, rng, suffix):
    x = encode(rng.normal(size=(1, 103)), suffix)
    arguments = mask_arguments([0.5], [3], 2, suffix)
    launch = geometry.elementwise("dropout", 103, 1, suffix, DEVICE)
    expected = poisoned(x.shape, x.dtype)
    shim("dropout", suffix).launch(launch, x, expected, 103, 1, *arguments, None, 5)
    moved = At(x, geometry.ITEMSIZE[suffix])
    shim("dropout", suffix).launch(launch, moved, moved, 103, 1, *arguments, None, 5)
    assert x.tobytes() == expected.tobytes()
    assert 30 < np.count_nonzero(decode(x, suffix)) < 75


def test_a_thread_takes_several_quads_and_a_layer_several_members(shim, rng):
    x = rng.normal(size=(5, 4000)).astype(np.float32)
    y, again = np.empty_like(x), np.empty_like(x)
    arguments = mask_arguments([0.3], range(5), 2, "f32")
    full = geometry.elementwise("dropout", 4000, 5, "f32", DEVICE)
    small = geometry.Launch(full.kernel, (2, 2, 1), (64, 1, 1))
    for launch, out in ((full, y), (small, again)):
        shim("dropout", "f32").launch(launch, x, out, 4000, 5, *arguments, None, 5)
    np.testing.assert_array_equal(y, again)


def test_an_element_that_draws_the_rate_itself_is_kept(shim):
    x, y = np.ones((1, 8), np.float32), poisoned((1, 8), np.float32)
    bits = random_bits(np, (8,), Generator(3, 2), 5)
    arguments = mask_arguments([bits[5] / 2**24], [3], 2, "f32")
    launch = geometry.elementwise("dropout", 8, 1, "f32", DEVICE)
    shim("dropout", "f32").launch(launch, x, y, 8, 1, *arguments, None, 5)
    np.testing.assert_array_equal(y[0] > 0, bits >= bits[5])
