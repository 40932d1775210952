"""The comparison that the tests of users rest on: what it accepts and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import torch_or_skip

from xpmlp.testing import assert_close


def test_equal_arrays_of_any_library_pass(library):
    assert_close(library.array([1.0, math.nan]), np.array([1.0, math.nan]))


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (np.ones((1, 2)), r"expected shape \(1, 2\), got \(2,\)"),
        (np.ones(2, np.float32), "expected dtype float32, got float64"),
        (np.array([1.0, 1.1]), "Not equal to tolerance"),
        (np.array([1.0, math.nan]), "nan"),
    ],
    ids=["shape", "dtype", "values", "nan"],
)
def test_differences_fail(library, expected, message):
    with pytest.raises(AssertionError, match=message):
        assert_close(library.array(np.ones(2)), expected)


def test_tolerances_are_relative_and_absolute():
    assert_close(np.array([100.0]), np.array([100.5]), rtol=0.01)
    assert_close(np.array([0.0]), np.array([1e-3]), atol=1e-2)
    with pytest.raises(AssertionError):
        assert_close(np.array([100.0]), np.array([100.5]), rtol=0.001)


def test_dtype_and_library_are_checked_on_request():
    torch = torch_or_skip()
    assert_close(np.ones(2, np.float32), np.ones(2), check_dtype=False)
    assert_close(torch.ones(2), np.ones(2, np.float32))
    with pytest.raises(AssertionError, match=r"numpy\.ndarray.*torch\.Tensor"):
        assert_close(torch.ones(2), np.ones(2, np.float32), check_library=True)
