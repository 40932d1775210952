"""Squares transposed in registers, against NumPy's transpose."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 7, 8, 10, 16, 33])
@pytest.mark.parametrize("rows", [1, 15, 16, 50, 64])
def test_into_a_tile_and_back(rows, columns, dtype, rng):
    x = rng.normal(size=(rows + 1, columns)).astype(dtype)
    tile = np.full((columns + 1, 64), 7, dtype)
    y = np.full_like(x, 7)
    there, back = _functions()
    there(x.ravel(), columns, rows, columns, tile.ravel(), 64)
    np.testing.assert_array_equal(tile[:columns, :rows], x[1:].T)
    assert not tile[:columns, rows:].any()  # beyond the rows
    assert (tile[columns] == 7).all()  # beyond the tile
    back(tile.ravel(), 64, rows, columns, y.ravel(), columns)
    np.testing.assert_array_equal(y[1:], x[1:])
    assert (y[0] == 7).all()


def _functions():
    """Compiled at first use; numba must not be needed to collect this file."""
    if not _compiled:
        from xpmlp.kernels.numba.transpose import transpose_in, transpose_out

        @numba.njit
        def there(x, begin, m, n, tile, width):
            transpose_in(x, begin, m, n, tile, width)

        @numba.njit
        def back(tile, width, m, n, y, begin):
            transpose_out(tile, width, m, n, y, begin)

        _compiled.extend((there, back))
    return _compiled


_compiled: list = []
