"""Comparison of arrays that looks at more than the values."""

from __future__ import annotations

import numpy as np

from ..backend import Array, dtype_name, to_numpy


def assert_close(
    actual: Array,
    expected: Array,
    *,
    rtol: float = 1e-6,
    atol: float = 0.0,
    check_dtype: bool = True,
    check_library: bool = False,
) -> None:
    """Raise AssertionError unless two arrays agree in shape, dtype and values.

    Parameters
    ----------
    actual, expected : array
        Of any supported library, not necessarily the same.
    rtol, atol : float
        ``|actual − expected| ≤ atol + rtol · |expected|`` must hold for every element; NaN equals
        NaN.
    check_dtype : bool
        Whether the dtypes must have the same name.
    check_library : bool
        Whether both must come from the same array library.
    """
    if check_library and type(actual) is not type(expected):
        raise AssertionError(f"expected a {type(expected)}, got a {type(actual)}")
    if tuple(actual.shape) != tuple(expected.shape):
        raise AssertionError(f"expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}")
    if check_dtype and dtype_name(actual.dtype) != dtype_name(expected.dtype):
        raise AssertionError(
            f"expected dtype {dtype_name(expected.dtype)}, got {dtype_name(actual.dtype)}"
        )
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), rtol=rtol, atol=atol)
