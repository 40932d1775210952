"""The numba kernel of piecewise-linear maps against the reference, on inputs that lie anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from checks import unchanged

from xpmlp import ops
from xpmlp.ops.piecewise_linear import count_codes, reference

pytest.importorskip("numba")

MIXED = (("linear", 1), ("bins", 5), ("levels", 4), ("bins", 1), ("levels", 1), ("bins", 40))
SHAPES = {
    "one number": ((("linear", 1),), (1, 1), 1, None),
    "one bin": ((("bins", 1),), (3, 1), 1, None),
    "one level": ((("levels", 1),), (3, 1), 17, None),
    "mixed": (MIXED, (50, 6), 37, None),
    "leading": (MIXED, (3, 2, 9, 6), 5, None),
    "many rows": (MIXED, (3001, 6), 70, None),
    "members": (MIXED, (5, 50, 6), 33, 5),
    "shared": (MIXED, (50, 6), 33, 5),
    "one member": (MIXED, (1, 50, 6), 8, 1),
}


def draw(rng, case, dtype):
    columns, shape, M, population = SHAPES[case]
    x = rng.uniform(-2.0, 8.0, shape)
    x[..., ::3, :] = np.rint(x[..., ::3, :])
    lead = () if population is None else (population,)
    W, b = rng.normal(size=(*lead, count_codes(columns), M)), rng.normal(size=(*lead, M))
    return columns, x.astype(dtype), W.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SHAPES)
def test_the_kernel_gives_what_the_reference_gives(case, dtype, rng):
    columns, x, W, b = draw(rng, case, dtype)
    tolerance = {"float32": 3e-5, "float64": 1e-13}[dtype]
    for bias in (b, None):
        assert "kernel numba" in ops.explain("piecewise_linear", x, W, bias, columns=columns)
        with unchanged(x, W, b):
            y = ops.piecewise_linear(x, W, bias, columns=columns)
        expected = reference(x, W, bias, columns=columns)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_of_any_kind_are_in_their_bins_and_levels(dtype):
    columns = (("linear", 1), ("bins", 3), ("levels", 3))
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(7, 20)).astype(dtype), rng.normal(size=20).astype(dtype)
    tiny, past = np.finfo(dtype).tiny, np.nextafter(np.dtype(dtype).type(3), 4)
    values = [0.0, -0.0, tiny, -tiny, 1.0, 3.0, past, 1e30, -1e30, 2.5, np.inf, -np.inf, np.nan]
    for value in values:
        x = np.zeros((2, 3), dtype)
        x[1, 1:] = value
        y = ops.piecewise_linear(x, W, b, columns=columns)
        with np.errstate(invalid="ignore"):
            expected = reference(x, W, b, columns=columns)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6, err_msg=str(value))


def test_any_layout_is_taken(rng):
    columns, x, W, b = draw(rng, "mixed", "float64")
    expected = reference(x, W, b, columns=columns)
    for other in (np.asfortranarray(x), x[::-1][::-1], np.repeat(x, 2, axis=1)[:, ::2]):
        for weights in (np.asfortranarray(W), np.repeat(W, 2, axis=0)[::2]):
            y = ops.piecewise_linear(other, weights, b, columns=columns)
            np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)
    x.flags.writeable = False
    np.testing.assert_allclose(ops.piecewise_linear(x, W, b, columns=columns), expected, atol=1e-13)


@pytest.mark.parametrize("case", ["many rows", "members"])
def test_results_do_not_depend_on_the_number_of_threads(case, rng, monkeypatch):
    from xpmlp.kernels.numba import launching

    columns, x, W, b = draw(rng, case, "float32")
    y = ops.piecewise_linear(x, W, b, columns=columns)
    monkeypatch.setattr(launching, "enter_parallel", lambda: False)
    np.testing.assert_array_equal(ops.piecewise_linear(x, W, b, columns=columns), y)


def test_batches_that_are_not_one_a_member_are_left_to_the_reference(rng):
    columns, x, W, b = draw(rng, "members", "float64")
    assert "reference" in ops.explain("piecewise_linear", x[:1], W, b, columns=columns)
    y = ops.piecewise_linear(x[:1], W, b, columns=columns)
    np.testing.assert_allclose(y, reference(x[0], W, b, columns=columns), rtol=1e-13, atol=1e-13)
