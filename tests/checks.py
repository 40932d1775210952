"""Checks that many tests share: what an op returns, what it leaves alone, how arrays may lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tolerances import tolerance

from xpmlp.backend import array_namespace, dtype_name, to_numpy


def assert_result(library: Any, actual: Any, expected: Any, what: str, dtype: str) -> None:
    """The values, and that library, dtype and shape are those of the inputs."""
    assert array_namespace(actual) is library.xp
    assert dtype_name(actual.dtype) == dtype
    expected = np.asarray(expected)
    assert tuple(actual.shape) == expected.shape
    np.testing.assert_allclose(
        to_numpy(actual).astype(np.float64), expected, **tolerance(what, dtype)
    )


@contextmanager
def unchanged(*arrays: Any) -> Iterator[None]:
    """Fails if an array holds other bits after the block than before."""
    before = [to_numpy(a).copy() for a in arrays]
    yield
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(to_numpy(array), copy, err_msg="an input was written to")


def layouts(library: Any, values: np.ndarray) -> dict[str, Any]:
    """The same matrix of numbers lying differently in memory."""
    xp = library.xp
    wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
    wide[..., ::2] = values
    swapped = np.ascontiguousarray(np.swapaxes(values, -1, -2))
    found = {
        "transposed": xp.matrix_transpose(library.array(swapped)),
        "stepped": library.array(wide)[..., ::2],
    }
    if library.name != "torch":  # which has no negative strides
        found["reversed"] = library.array(np.ascontiguousarray(values[..., ::-1]))[..., ::-1]
    return found


def torch_or_skip() -> Any:
    """torch as a second opinion on gradients; without it the finite differences remain."""
    return pytest.importorskip("torch", reason="torch is not installed to compare with")
