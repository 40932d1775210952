"""Sums over a row: every length, and nothing of what lies beyond the row."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from xpmlp.kernels.numba.row_sums import centred_sums, slope_sums  # noqa: E402
from xpmlp.kernels.numba.simd import address  # noqa: E402


@numba.njit
def both(centre, dy, gamma, x, size):
    return (
        centred_sums(centre, address(x), size),
        slope_sums(centre, address(dy), address(gamma), address(x), size),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 100, 1000])
def test_sums_of_every_length(size, dtype, rng):
    dy, gamma, x = (rng.normal(size=size + 64).astype(dtype) for _ in range(3))
    for array in (dy, gamma, x):
        array[size:] = np.nan
    centre = np.dtype(dtype).type(0.5)
    centred, slopes = both(centre, dy, gamma, x, size)
    dy, gamma, x = (array[:size].astype(np.longdouble) for array in (dy, gamma, x))
    away = x - 0.5
    tolerance = 20 * np.finfo(dtype).eps * max(1, size)
    np.testing.assert_allclose(centred, [away.sum(), (away**2).sum()], tolerance, tolerance)
    expected = [(dy * gamma).sum(), (dy * gamma * away).sum()]
    np.testing.assert_allclose(slopes, expected, tolerance, tolerance)


def test_no_number_goes_through():
    row = np.array([1, np.nan, 2], np.float32)
    ones = np.ones(3, np.float32)
    assert np.isnan(both(np.float32(0), ones, ones, row, 3)).sum() == 3  # not Σ dy γ
