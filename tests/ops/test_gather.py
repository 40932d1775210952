"""Minibatch gather on every library: rows as chosen, converted, normalized."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.backend import dtype_name
from xpmlp.errors import DTypeError

ROWS, SHAPE = 11, (3, 2)


@pytest.mark.parametrize("source", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("index", [[4, 0, 10, 4], [[1, 2, 3], [9, 9, 0]]], ids=["N", "PN"])
def test_rows_as_chosen(library, rng, source, index):
    x = rng.integers(0, 100, (ROWS, *SHAPE)).astype(source)
    index = np.array(index)
    mean, std = (rng.random(SHAPE).astype(np.float32) + 0.5 for _ in range(2))
    arrays = library.array(x), library.array(index)
    y = ops.gather_rows(*arrays, dtype="float32")
    assert dtype_name(y.dtype) == "float32"
    np.testing.assert_array_equal(library.numpy(y), x[index].astype(np.float32))
    y = ops.gather_rows(*arrays, 2.5, 0.75, dtype="float32")
    expected = (x[index].astype(np.float32) - np.float32(2.5)) / np.float32(0.75)
    np.testing.assert_allclose(library.numpy(y), expected, rtol=1e-6)
    y = ops.gather_rows(*arrays, library.array(mean), library.array(std), dtype="float32")
    assert dtype_name(y.dtype) == "float32"
    expected = (x[index].astype(np.float32) - mean) / std
    np.testing.assert_allclose(library.numpy(y), expected, rtol=1e-6)


def test_row_numbers_must_be_integers(library):
    x, index = library.array(np.zeros((3, 2), np.uint8)), library.array([0.0, 1.0], "float32")
    with pytest.raises(DTypeError, match="row numbers as integers"):
        ops.gather_rows(x, index, dtype="float32")
