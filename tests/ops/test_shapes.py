"""The shape and dtype helpers that the ops share."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.errors import ConfigError, DTypeError, ShapeError
from xpmlp.ops import shapes


@pytest.mark.parametrize(
    ("start", "goal"),
    [((2, 3, 4), (4,)), ((2, 3, 4), (3, 1)), ((2, 3, 4), (1, 1, 1)), ((3, 4), (3, 4)), ((5,), ())],
    ids=str,
)
def test_sum_to_shape_undoes_broadcasting(library, rng, start, goal):
    a = rng.normal(size=start)
    summed = shapes.sum_to_shape(library.xp, library.array(a), goal)
    assert tuple(summed.shape) == goal
    # ⟨a, broadcast(u)⟩ = ⟨sum_to_shape(a), u⟩ defines it.
    u = rng.normal(size=goal)
    np.testing.assert_allclose((library.numpy(summed) * u).sum(), (a * u).sum(), rtol=1e-12)


def test_sum_wide_counts_beyond_half_precision():
    total = shapes.sum_wide(np, np.ones((5000, 3), np.float16), 0)
    assert total.dtype == np.float16
    assert total.tolist() == [5000] * 3


def test_per_member(library):
    values = library.array([1.0, 2.0])
    assert tuple(shapes.per_member(values, 3).shape) == (2, 1, 1)
    assert shapes.per_member(0.5, 3) == 0.5


def test_per_feature(library):
    assert tuple(shapes.per_feature(library.xp, library.array(np.ones(4))).shape) == (4,)
    assert tuple(shapes.per_feature(library.xp, library.array(np.ones((2, 4)))).shape) == (2, 1, 4)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((3, 4), (4, 5), ()),
        ((2, 3, 4), (4, 5), (2,)),
        ((3, 4), (2, 4, 5), (2,)),
        ((6, 1, 3, 4), (2, 4, 5), (6, 2)),
    ],
    ids=str,
)
def test_leading_shape(first, second, expected):
    assert shapes.leading_shape("here", np.ones(first), np.ones(second)) == expected


def test_leading_shape_that_does_not_fit():
    with pytest.raises(ShapeError, match=r"`here`.*\(2, 3, 4\) and \(3, 4, 5\)"):
        shapes.leading_shape("here", np.ones((2, 3, 4)), np.ones((3, 4, 5)))


def test_checks_say_what_was_expected():
    with pytest.raises(DTypeError, match="`f`: expected x of a floating dtype, got int8"):
        shapes.check_floating("f", "x", np.ones(2, np.int8))
    with pytest.raises(ShapeError, match=r"expected x of shape \(N, D\), got \(2,\)"):
        shapes.check_ndim("f", "x", np.ones(2), 2, "(N, D)")
    with pytest.raises(ShapeError, match=r"expected x of shape \(3,\), got \(2,\)"):
        shapes.check_same_shape("f", "x", np.ones(2), (3,))
    with pytest.raises(ConfigError, match="expected mode to be one of a, None, got 'b'"):
        shapes.check_choice("f", "mode", "b", ("a", None))
