"""Functions that a recording takes, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.backend import array_namespace
from xpmlp.ops.recordable import clip, concat, sign, stack

X = np.array([-np.inf, -7.0, -0.5, -0.0, 0.0, 1e-300, 0.5, 3.0, np.inf, np.nan])


def test_clip_and_sign(library):
    x = library.array(X)
    np.testing.assert_array_equal(library.numpy(clip(x, -1.0, 2.0)), np.clip(X, -1.0, 2.0))
    np.testing.assert_array_equal(library.numpy(sign(x)), np.sign(X))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 64, 65, 130])
def test_many_arrays(library, rng, count):
    parts = [rng.normal(size=(3, 2)) for _ in range(count)]
    arrays = [library.array(part) for part in parts]
    xp = array_namespace(*arrays)
    for axis in (0, 1, -1):
        found = library.numpy(concat(xp, arrays, axis=axis))
        np.testing.assert_array_equal(found, np.concatenate(parts, axis=axis))
    for axis in (0, 1, 2, -1):
        found = library.numpy(stack(xp, arrays, axis=axis))
        np.testing.assert_array_equal(found, np.stack(parts, axis=axis))
