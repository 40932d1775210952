"""What the CUDA kernels take and refuse, from shapes and types alone."""

from __future__ import annotations

import re

import numpy as np
import pytest

from xpmlp.errors import BackendError
from xpmlp.ops import cuda_rules as rules
from xpmlp.ops.dispatch import CANDIDATES


class Array:
    """The metadata of a CuPy array."""

    def __init__(self, *shape, dtype="float32", device=0):
        self.shape, self.dtype, self.device = shape, np.dtype(dtype), device
        self.ndim, self.size = len(shape), int(np.prod(shape))


Array.__module__ = "cupy"


def test_what_fits_is_taken():
    a = Array
    assert rules.matmul(a(4, 3), a(3, 5)) is None
    assert rules.linear(a(4, 3), a(3, 5), None, activation="relu") is None
    assert rules.linear(a(2, 4, 3), a(2, 3, 5), a(2, 5), activation=None) is None
    assert rules.linear(a(4, 3), a(2, 3, 5), a(2, 5), activation=None) is None
    assert rules.linear_backward(a(7, 4, 5), a(7, 4, 3), a(3, 5), input_grad=True) is None
    assert rules.softmax_cross_entropy(a(4, 3), a(4, dtype="int64")) is None
    assert rules.softmax_cross_entropy(a(4, 3), a(4, 3)) is None
    assert rules.normalization(a(9, 4, 3), a(3), a(3)) is None
    assert rules.normalization(a(2, 4, 3), a(2, 3), a(2, 3)) is None
    assert rules.batch_norm_backward(a(4, 3), a(4, 3), a(3), a(3), a(3)) is None
    assert rules.layer_norm_backward(a(4, 3), a(4, 3), a(3), a(4, 1), a(4, 1)) is None
    assert rules.dropout(a(4, 3), rates=(0.5,)) is None
    half = {"dtype": "float16"}
    assert (
        rules.batch_norm_backward(a(4, 3, **half), a(4, 3, **half), a(3, **half), a(3), a(3))
        is None
    )


@pytest.mark.parametrize(
    ("reason", "call"),
    [
        ("float64", lambda a: rules.matmul(a(4, 3), a(3, 5, dtype="float64"))),
        ("a is empty", lambda a: rules.matmul(a(0, 3), a(3, 5))),
        ("int32", lambda a: rules.matmul(a(4, 3, dtype="int32"), a(3, 5, dtype="int32"))),
        ("b is a ndarray", lambda a: rules.matmul(a(4, 3), np.ones((3, 5), np.float32))),
        ("uint64", lambda a: rules.softmax_cross_entropy(a(4, 3), a(4, dtype="uint64"))),
        ("float64", lambda a: rules.softmax_cross_entropy(a(4, 3), a(4, 3, dtype="float64"))),
        (r"\(7, 2,", lambda a: rules.linear(a(7, 2, 4, 3), a(2, 3, 5), None, activation=None)),
        (r"\(1, 4, 3\)", lambda a: rules.linear(a(1, 4, 3), a(2, 3, 5), None, activation=None)),
        ("beta", lambda a: rules.normalization(a(4, 3), a(3), a(4))),
        (r"\(4, 4\)", lambda a: rules.normalization(a(4, 4), a(3), a(3))),
        (r"\(3,\)", lambda a: rules.normalization(a(3), a(3), a(3))),
        (r"\(3, 4, 5\)", lambda a: rules.normalization(a(3, 4, 5), a(2, 5), a(2, 5))),
        ("dy", lambda a: rules.batch_norm_backward(a(4, 2), a(4, 3), a(3), a(3), a(3))),
        ("fit", lambda a: rules.layer_norm_backward(a(4, 3), a(4, 3), a(3), a(4), a(4, 1))),
        ("axis", lambda a: rules.elementwise(a())),
        ("shape", lambda a: rules.elementwise(a(4), a(5))),
    ],
    # The reason, and the op that the call names after ``rules``.
    ids=lambda value: value if isinstance(value, str) else value.__code__.co_names[1],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(reason, call):
    assert re.search(reason, call(Array))


def test_arrays_on_two_devices_are_named():
    with pytest.raises(BackendError, match=r"a \(4, 3\) on 0, b \(3, 5\) on 1; make"):
        rules.matmul(Array(4, 3), Array(3, 5, device=1))
    x, W, b = Array(4, 3), Array(3, 5), Array(5, device=1)
    with pytest.raises(BackendError, match=r"x \(4, 3\) on 0, W \(3, 5\) on 0, b \(5,\) on 1"):
        rules.linear(x, W, b, activation=None)
    with pytest.raises(BackendError, match=r"dy \(3,\) on 0, x \(3,\) on 1, y \(3,\) on 0"):
        rules.elementwise(Array(3), Array(3, device=1), Array(3))


def test_every_kernel_exists_and_takes_what_its_op_gives():
    """Names in the table, without importing CuPy."""
    import importlib

    for (_, library), candidates in CANDIDATES.items():
        for candidate in candidates if library == "cupy" else ():
            module, _, function = candidate.target.partition(":")
            assert callable(getattr(importlib.import_module(module), function))
