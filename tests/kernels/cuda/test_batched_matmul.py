"""batched_matmul.cu on the CPU, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.elements import EPS, SUFFIXES, WIDE, decode, encode, poisoned

from xpmlp.kernels.cuda import geometry

SIZES = [(1, 1, 1), (16, 16, 16), (5, 17, 3), (32, 8, 20), (17, 33, 32), (64, 64, 64), (70, 5, 65)]


def multiply(shim, suffix, a, b, batches, transposed=(False, False), tensor=False, padding=1):
    """C = A B for encoded operands; a transposed one is stored the other way round."""

    def strides(x, flip):
        each = 0 if x.shape[0] == 1 else x.shape[1] * x.shape[2]
        return (each, 1, x.shape[2]) if flip else (each, x.shape[2], 1)

    m, k = a.shape[1:][::-1] if transposed[0] else a.shape[1:]
    n = b.shape[1] if transposed[1] else b.shape[2]
    c = poisoned((batches, m, n + padding), a.dtype)
    program = shim("batched_matmul", suffix)
    program.launch(
        geometry.batched_matmul(batches, m, k, n, suffix, tensor),
        *(a, *strides(a, transposed[0]), b, *strides(b, transposed[1])),
        *(c, m * (n + padding), n + padding, batches, m, k, n),
    )
    values = decode(c, suffix)
    assert np.isnan(values[..., n:]).all()  # nothing beside C is written
    return values[..., :n]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_every_size_and_transposition_matches(shim, rng, suffix, size, transposed):
    m, k, n = size
    a, b = rng.normal(size=(3, m, k)), rng.normal(size=(3, k, n))
    a, b = (x.swapaxes(1, 2) if flip else x for x, flip in zip((a, b), transposed, strict=True))
    a, b = encode(a, suffix), encode(b, suffix)
    expected = np.matmul(
        *(
            decode(x, suffix).swapaxes(1, 2) if flip else decode(x, suffix)
            for x, flip in zip((a, b), transposed, strict=True)
        )
    )
    wide = EPS["f64" if suffix == "f64" else "f32"] * 64
    actual = multiply(shim, suffix, a, b, 3, transposed)
    np.testing.assert_allclose(actual, expected, rtol=EPS[suffix] + wide, atol=wide)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [(16, 24, 16), (33, 40, 48)])
def test_results_whose_rows_begin_at_multiples_of_sixteen_bytes(shim, rng, suffix, size):
    m, k, n = size
    a, b = encode(rng.normal(size=(3, m, k)), suffix), encode(rng.normal(size=(3, k, n)), suffix)
    wide = EPS["f64" if suffix == "f64" else "f32"] * 64
    expected = decode(a, suffix) @ decode(b, suffix)
    actual = multiply(shim, suffix, a, b, 3, padding=8)
    np.testing.assert_allclose(actual, expected, rtol=EPS[suffix] + wide, atol=wide)


def rounded_to_tf32(x):
    bits = x.astype(np.float32).view(np.uint32) + 0x1000 & ~np.uint32(0x1FFF)
    return bits.view(np.float32)


# Sizes of one tile and of several, with rows that are multiples of 16 bytes and others.
TENSOR_SIZES = [(32, 32, 32), (17, 40, 24), (20, 3, 19), (64, 64, 64), (64, 33, 40), (70, 16, 130)]


@pytest.mark.parametrize("suffix", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("size", TENSOR_SIZES)
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_tensor_cores_match_products_of_rounded_operands(shim, rng, suffix, size, transposed):
    m, k, n = size
    a, b = rng.normal(size=(3, m, k)), rng.normal(size=(3, k, n))
    operands = [encode(x, suffix) for x in (a, b)]
    exact = [decode(x, suffix) for x in operands]
    if suffix == "f32":
        exact = [rounded_to_tf32(x).astype(np.float64) for x in exact]
    stored = [
        np.ascontiguousarray(x.swapaxes(1, 2)) if flip else x
        for x, flip in zip(operands, transposed, strict=True)
    ]
    actual = multiply(shim, suffix, *stored, 3, transposed, True, padding=8 if n % 8 == 0 else 1)
    wide = EPS["f32"] * 64
    np.testing.assert_allclose(actual, exact[0] @ exact[1], rtol=EPS[suffix] + wide, atol=wide)


def test_what_is_not_a_number_stays_in_its_row_and_column(shim, rng):
    a, b = rng.normal(size=(1, 40, 20)), rng.normal(size=(1, 20, 33))
    a[0, 3, 7], b[0, 5, 31] = np.nan, np.inf
    for suffix, tensor in (("f32", False), ("f32", True), ("bf16", True)):
        c = multiply(shim, suffix, encode(a, suffix), encode(b, suffix), 1, tensor=tensor)[0]
        wrong = ~np.isfinite(c)
        assert wrong[3].all() and wrong[:, 31].all()
        assert wrong.sum() == 40 + 33 - 1


@pytest.mark.parametrize("batches", [1, 15, 16, 17, 40])
def test_a_shared_operand_and_batches_that_do_not_fill_a_block(shim, rng, batches):
    a = rng.normal(size=(1, 4, 6)).astype(np.float32)
    b = rng.normal(size=(batches, 6, 5)).astype(np.float32)
    np.testing.assert_allclose(multiply(shim, "f32", a, b, batches), a @ b, rtol=1e-5, atol=1e-5)


def test_a_grid_smaller_than_the_batch(shim, rng):
    a, b = (rng.normal(size=(40, 3, 3)).astype(np.float32) for _ in range(2))
    c = poisoned((40, 3, 3), WIDE["f32"])
    full = geometry.batched_matmul(40, 3, 3, 3, "f32")
    few = geometry.Launch(full.kernel, (2, 1, 1), full.block, full.shared)
    shim("batched_matmul", "f32").launch(few, a, 9, 3, 1, b, 9, 3, 1, c, 9, 3, 40, 3, 3, 3)
    np.testing.assert_allclose(c, a @ b, rtol=1e-5, atol=1e-5)


def test_operands_may_be_slices_of_slices(shim, rng):
    a, b = rng.normal(size=(3, 12, 20)).astype(np.float32), rng.normal(size=(3, 20, 14))
    b = b.astype(np.float32)
    c = poisoned((3, 6, 7), np.float32)
    launch = geometry.batched_matmul(3, 6, 10, 7, "f32")
    arguments = (a, 240, 40, 2, b, 280, 28, 2, c, 42, 7, 3, 6, 10, 7)
    shim("batched_matmul", "f32").launch(launch, *arguments)
    np.testing.assert_allclose(c, a[:, ::2, ::2] @ b[:, ::2, ::2], rtol=1e-5, atol=1e-5)
