"""Equal arrays as one, and what is found about them once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from xpmlp.sklearn.in_common import InCommon


def test_equal_arrays_are_one_and_others_are_not(rng):
    common, x = InCommon(), rng.random((200, 3))
    assert common.same(x) is x and common.same(x.copy()) is x
    for place in ((0, 0), (77, 1), (199, 2)):  # at a glance, equal to x
        other = x.copy()
        other[place] += 1e-12
        assert common.same(other) is other and common.same(other.copy()) is other
    for other in (x.astype(np.float32), x[:-1], x.T):
        assert common.same(other) is other
    assert common.same(np.array(["a", "b"])) is common.same(np.array(["a", "b"]))
    assert common.same(None) is None


def test_sparse_ones_too():
    common = InCommon()
    x = sparse.random_array((50, 4), density=0.3, format="csr", random_state=0)
    moved = sparse.csr_array((x.data, x.indices[::-1].copy(), x.indptr), x.shape)
    assert common.same(x) is x and common.same(x.copy()) is x
    assert common.same(moved) is moved


def test_functions_are_called_once_for_equal_arrays(rng):
    common, calls, x = InCommon(), [], rng.random((20, 2))

    def total(values, weights=None, scale=1.0):
        calls.append(scale)
        return scale * values.sum()

    assert common.once(total, x) is common.once(total, x.copy())
    assert common.once(total, x, scale=2.0) == pytest.approx(2 * x.sum())
    assert common.once(total, x + 1.0) == pytest.approx(x.sum() + 40)
    assert common.once(total, x, x) == common.once(total, x)
    assert calls == [1.0, 2.0, 1.0, 1.0]


def test_numbers_of_equal_arrays(rng):
    common, x, y = InCommon(), rng.random(3), rng.random(3)
    assert common.number_of(x, y) == common.number_of(x.copy(), y.copy()) == 0
    assert common.number_of(y, x) == 1
