"""Batched products: leading axes, views, edge sizes."""

from __future__ import annotations

import numpy as np
import pytest
from checks import assert_result, layouts, torch_or_skip, unchanged

from xpmlp import ops
from xpmlp.errors import BackendError, ShapeError

SHAPES = {
    "plain": ((3, 4), (4, 5)),
    "batch": ((2, 3, 4), (2, 4, 5)),
    "shared-right": ((2, 3, 4), (4, 5)),
    "shared-left": ((3, 4), (2, 4, 5)),
    "broadcast": ((2, 1, 3, 4), (7, 4, 5)),
    "ones": ((1, 1), (1, 1)),
    "empty-sum": ((2, 3, 0), (0, 5)),
    "empty-batch": ((0, 3, 4), (4, 5)),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", SHAPES)
def test_values(library, rng, case, dtype):
    a, b = (rng.normal(size=shape).astype(dtype) for shape in SHAPES[case])
    xa, xb = library.array(a), library.array(b)
    with unchanged(xa, xb):
        c = ops.matmul(xa, xb)
    expected = np.einsum("...ik,...kj->...ij", a.astype(np.float64), b.astype(np.float64))
    assert_result(library, c, expected, "reduction", dtype)


def test_any_layout_of_either_operand(library, rng):
    a, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 5))
    for xa in layouts(library, a).values():
        for xb in layouts(library, b).values():
            assert_result(library, ops.matmul(xa, xb), a @ b, "reduction", "float64")


@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 4), (5, 4)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (3, 4, 5))],
    ids=["inner", "vector-left", "vector-right", "leading"],
)
def test_shapes_that_do_not_fit(library, a, b):
    with pytest.raises(ShapeError, match="`matmul`: expected"):
        ops.matmul(library.array(np.zeros(a)), library.array(np.zeros(b)))


def test_half_precision_stays_half(rng):
    a = rng.normal(size=(3, 4)).astype(np.float16)
    assert ops.matmul(a, a.T).dtype == np.float16


def test_mixed_libraries_are_refused():
    torch = torch_or_skip()
    with pytest.raises(BackendError, match=r"numpy\.ndarray, torch\.Tensor"):
        ops.matmul(np.ones((2, 2)), torch.ones((2, 2)))
