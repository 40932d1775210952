"""The error function against the C library's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import assert_result

from xpmlp.ops.erfc import erfc, normal_cdf


@pytest.mark.parametrize(("dtype", "end"), [("float64", 26.0), ("float32", 9.0)])
def test_equals_math_erfc_far_into_the_tail(library, dtype, end):
    z = np.linspace(-6, end, 701).astype(dtype)
    expected = np.array([math.erfc(v) for v in z.astype(np.float64)])
    assert_result(library, erfc(library.array(z)), expected, "tail", dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_body_is_good_to_the_last_digits(library, dtype):
    z = np.linspace(-1, 1, 401).astype(dtype)
    expected = np.array([math.erfc(v) for v in z.astype(np.float64)])
    assert_result(library, erfc(library.array(z)), expected, "body", dtype)


def test_limits(library):
    z = library.array([-math.inf, -1e30, 0.0, 1e30, math.inf, math.nan])
    np.testing.assert_array_equal(library.numpy(erfc(z)), [2, 2, 1, 0, 0, math.nan])


def test_normal_cdf_is_symmetric():
    x = np.linspace(0, 5, 11)
    np.testing.assert_allclose(normal_cdf(x) + normal_cdf(-x), 1, rtol=1e-15)
    assert normal_cdf(np.array([1.959963984540054]))[0] == pytest.approx(0.975, rel=1e-14)
