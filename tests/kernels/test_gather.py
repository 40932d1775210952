"""The gather kernel against the op's reference: the same bits, wherever the rows lie."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import DataError
from xpmlp.ops.gather import reference

pytest.importorskip("numba")

SOURCES = ("uint8", "int8", "uint16", "int16", "int64", "float32", "float64")
# A row of one element, of no vector's length, of MNIST's; few rows, and enough for two threads.
SIZES = [(1, (1,)), (7, (13,)), (9, (3, 5)), (130, (28, 28)), (4, (0,)), (0, (5,))]


def data(source, shape, rng):
    if source.startswith("float"):
        return rng.normal(size=shape).astype(source)
    limits = np.iinfo(source)
    return rng.integers(limits.min, limits.max, shape, dtype=source, endpoint=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("chosen", "row"), SIZES, ids=str)
def test_same_bits_as_the_reference(source, dtype, chosen, row, rng):
    x = data(source, (50, *row), rng)
    index = rng.integers(0, 50, chosen)
    features = [(rng.random(row) + 0.1).astype(dtype) for _ in range(2)]
    for mean, std in ((None, None), (33.3, 78.9), (0.0, 1e-30), features):
        assert "kernel numba" in ops.explain("gather_rows", x, index, mean, std, dtype=dtype)
        y = ops.gather_rows(x, index, mean, std, dtype=dtype)
        with np.errstate(over="ignore"):
            expected = reference(x, index, mean, std, dtype=dtype)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected)


def test_every_byte_and_many_deviations(rng):
    x = np.arange(256, dtype=np.uint8)[:, None]
    for mean, std in zip(rng.random(200) * 255, rng.random(200) * 100 + 1e-3, strict=True):
        y = ops.gather_rows(x, np.arange(256), mean, std, dtype="float32")
        expected = (x.astype(np.float32) - np.float32(mean)) / np.float32(std)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("rows", [5, 200])
def test_members_of_a_population_and_a_given_buffer(rows, rng):
    x = data("uint8", (300, 784), rng)
    index = rng.integers(0, 300, (3, rows)).astype(np.int32)
    out = np.full((3, rows, 784), np.nan, np.float32)
    y = ops.gather_rows(x, index, 1.5, 2.0, dtype="float32", out=out)
    assert y is out
    for member in range(3):
        alone = ops.gather_rows(x, index[member], 1.5, 2.0, dtype="float32")
        np.testing.assert_array_equal(y[member], alone)


@pytest.mark.parametrize("wrong", [-1, 300, 1 << 40])
@pytest.mark.parametrize("rows", [5, 200])
def test_row_numbers_outside_are_named(rows, wrong, rng):
    index = np.zeros(rows, np.int64)
    index[3] = wrong
    with pytest.raises(DataError, match=f"0…299, got {wrong} at place 3"):
        ops.gather_rows(data("uint8", (300, 784), rng), index, dtype="float32")


def test_reasons_to_refuse():
    x, index = np.zeros((4, 6), np.uint8), np.arange(3)

    def why(x, *more, dtype="float32", **options):
        return ops.explain("gather_rows", x, *(more or (index,)), dtype=dtype, **options)

    assert "result is float16" in why(x, dtype="float16")
    assert "numba does not convert" in why(x.astype(np.float16))
    assert "row after row" in why(x[:, ::2])
    assert "row after row" in why(x.astype(">i2"))
    assert "no array of integers" in why(x, index.astype(float))
    assert "mean is float32 of shape (3,)" in why(x, index, *[np.zeros(3, np.float32)] * 2)
    assert "mean is float64" in why(x, index, np.zeros(6), np.zeros(6))
    assert "differ in shape" in why(x, index, np.zeros(6, np.float32), 1.0)
    assert "out is float32 of shape (4, 6)" in why(x, out=np.zeros((4, 6), np.float32))
    assert "not C-contiguous" in why(x, out=np.zeros((3, 12), np.float32)[:, ::2])
