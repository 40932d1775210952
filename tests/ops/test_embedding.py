"""Rows by number, and sums over equal numbers: against NumPy's indexing, both ways of summing."""

import importlib

import numpy as np
import pytest

import xpmlp
from xpmlp import ops
from xpmlp.errors import DataError, DTypeError, ShapeError

module = importlib.import_module("xpmlp.ops.embedding")
V, D, P = 6, 3, 4


@pytest.fixture(params=["product", "sorted"])
def way(request, monkeypatch):
    """How sums over equal numbers are found."""
    if request.param == "sorted":
        monkeypatch.setattr(module, "_FEW", 0)  # nothing at all is a product still
    else:
        monkeypatch.setattr(module, "_sums_of_equals", None)  # is not called


def added(dy, codes, rows):
    """By NumPy's unbuffered addition."""
    total = np.zeros((rows, dy.shape[-1]))
    np.add.at(total, codes.reshape(-1).astype(int), dy.reshape(-1, dy.shape[-1]))
    return total


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 2), (2, 5, 3), (0, 2)])
def test_values_and_gradients(library, way, rng, shape, dtype):
    W = rng.normal(size=(V, D))
    codes = rng.integers(0, V - 1, shape).astype(dtype)  # the last row is not asked for
    dy = rng.normal(size=(*shape, D))
    given = library.array(codes), library.array(W)
    np.testing.assert_array_equal(library.numpy(ops.embedding(*given)), W[codes.astype(int)])
    dW = library.numpy(ops.embedding_backward(library.array(dy), *given))
    np.testing.assert_allclose(dW, added(dy, codes, V), rtol=1e-13, atol=1e-14)
    padded = library.numpy(ops.embedding_backward(library.array(dy), *given, padding=2))
    np.testing.assert_array_equal(padded, np.where(np.arange(V)[:, None] == 2, 0.0, dW))


@pytest.mark.parametrize("shape", [(5,), (5, 2), (P, 5, 2), (3, P, 5, 2)])
def test_members_have_tables_of_their_own(library, way, rng, shape):
    W, codes = rng.normal(size=(P, V, D)), rng.integers(0, V, shape)
    own = codes.ndim > 2
    expected = np.stack([W[p][codes[..., p, :, :] if own else codes] for p in range(P)], -4 * own)
    given = library.array(codes), library.array(W)
    y = library.numpy(ops.embedding(*given))
    assert y.shape == (codes.shape if own else (P, *codes.shape)) + (D,)
    np.testing.assert_array_equal(y, expected)
    dy = rng.normal(size=y.shape)
    dW = library.numpy(ops.embedding_backward(library.array(dy), *given))
    for p in range(P):
        mine = codes[..., p, :, :] if own else codes
        slopes = dy[..., p, :, :, :] if own else dy[p]
        np.testing.assert_allclose(dW[p], added(slopes, mine, V), rtol=1e-13, atol=1e-14)


def test_many_rows_of_one_code_keep_their_digits(library, monkeypatch):
    monkeypatch.setattr(module, "_FEW", 0)
    codes = library.array(np.zeros(70_000, np.int32))
    dy = library.array(np.full((70_000, 1), 0.1, np.float32))
    W = library.array(np.zeros((2, 1), np.float32))
    dW = library.numpy(ops.embedding_backward(dy, codes, W))
    assert dW.dtype == np.float32
    np.testing.assert_allclose(dW, [[7000.0], [0.0]], rtol=2e-5)


def test_half_precision_is_summed_wider(way, rng):
    codes, dy = np.zeros(1024, int), rng.random((1024, 64)).astype(np.float16)
    dW = ops.embedding_backward(dy, codes, np.zeros((2, 64), np.float16))
    assert dW.dtype == np.float16 and not dW[1].any()
    wide = dy.astype(np.float64).sum(axis=0)
    assert np.abs(dW[0] - wide).max() <= 0.2501  # half of a float16's step above 512


@pytest.mark.parametrize("wrong", [V, -1, 1.5, float("nan"), float("inf")])
def test_what_is_no_row_is_refused_in_host_memory(host_library, rng, wrong):
    codes = rng.integers(0, V, (3, 2)).astype(float)
    codes[1, 1] = wrong
    words = rf"numbers in 0…{V - 1}, got {float(wrong)} at \(1, 1\) \(1 such"
    with pytest.raises(DataError, match=words):
        ops.embedding(host_library.array(codes), host_library.array(np.ones((V, D))))


@pytest.mark.parametrize("W", [(V, D), (P, V, D)])
@pytest.mark.parametrize("wrong", [V, -1, 1.5, float("nan"), float("inf")])
def test_on_a_device_its_row_is_not_a_number(library, rng, wrong, W, monkeypatch):
    monkeypatch.setattr(module, "on_host", lambda array: False)
    codes = rng.integers(0, V, (3, 2)).astype(float)
    W = rng.normal(size=W)
    expected = W[..., codes.astype(int), :].copy()
    codes[1, 1] = wrong
    expected[..., 1, 1, :] = np.nan
    with np.errstate(invalid="ignore"):
        y = library.numpy(ops.embedding(library.array(codes), library.array(W)))
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("dtype", "rows"), [("float16", 2049), ("float32", 2**24 + 1)])
def test_floats_that_have_not_every_code_are_refused(dtype, rows):
    W = np.broadcast_to(np.float32(0), (rows, 1))
    assert ops.embedding(np.zeros(1, dtype), W[:-1]).shape == (1, 1)
    with pytest.raises(DTypeError, match=f"{rows} rows apart, got {dtype}"):
        ops.embedding(np.zeros(1, dtype), W)


@pytest.mark.parametrize(
    ("codes", "W", "words"),
    [
        ((2,), (V,), r"W of shape \(V, D\)"),
        ((2,), (0, D), r"W of shape \(V, D\)"),
        ((3, 2, 2), (P, V, D), r"codes of shape .*\(4, N, K\) for a population of 4"),
    ],
)
def test_wrong_shapes(codes, W, words):
    with pytest.raises(ShapeError, match=words):
        ops.embedding(np.zeros(codes, int), np.ones(W))
    with pytest.raises(ShapeError, match=r"expected dy of shape \(2, 3\)"):
        ops.embedding_backward(np.ones((2, 4)), np.zeros(2, int), np.ones((V, D)))


def test_gradients_are_the_same_bits_again(library, rng):
    codes, dy = rng.integers(0, V, 500), rng.normal(size=(500, D)).astype(np.float32)
    given = [library.array(a) for a in (dy, codes, np.ones((V, D), np.float32))]
    first, again = (xpmlp.to_numpy(ops.embedding_backward(*given)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
