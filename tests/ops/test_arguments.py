"""No op answers a wrong argument with a raw error, or with a result."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import DTypeError, XpmlpError

OPS = [name for name in ops.__all__ if name not in ("explain", "without_kernels")]
NUMBERS = {
    **{"p": 0.5, "rng": None, "step": 1, "dtype": "float32"},
    **{"lr": 0.1, "momentum": 0.9, "nesterov": True, "eps": 1e-8, "gain": 0.1, "gain1": 0.1},
    **{"columns": (("linear", 1),) * 4},
    **{"gain2": 0.1, "correction1": 0.5, "correction2": 0.5, "steps": 5},
}
WRONG = {
    "list": [[1.0, 2.0]],
    "number": 1.5,
    "text": "abc",
    "None": None,
    "complex": np.ones((4, 4), complex),
    "dates": np.full((4, 4), np.datetime64("2020-01-01")),
    "texts": np.full((4, 4), "a"),
    "objects": np.full((4, 4), None),
}


def arguments(op, make):
    """Arguments that fit, and which of them are arrays."""
    found, arrays = {}, []
    for name, parameter in inspect.signature(op).parameters.items():
        kind = str(parameter.annotation)
        if kind == "Array":
            integers = name in ("index", "targets")
            found[name] = make(np.arange(4) if integers else np.ones((4, 4)))
            arrays.append(name)
        elif parameter.default is parameter.empty:
            found[name] = NUMBERS[name]
    return found, arrays


@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name", OPS)
def test_what_is_no_array_of_numbers_is_named(library, name, what, kernels, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    op = getattr(ops, name)
    given, arrays = arguments(op, library.array)
    for wrong in arrays:
        with pytest.raises(XpmlpError, match=f"`{name}`") as caught:
            op(*({**given, wrong: WRONG[what]}[key] for key in arrays), **_others(given, arrays))
        assert type(caught.value).__module__ == "xpmlp.errors"
        if wrong == arrays[0]:
            assert isinstance(caught.value, DTypeError) and wrong in str(caught.value)


@pytest.mark.parametrize("name", OPS)
def test_shapes_that_do_not_fit_are_told(library, name):
    op = getattr(ops, name)
    given, arrays = arguments(op, library.array)
    if len(arrays) < 2:
        pytest.skip("one array fits itself")
    wrong = arrays[1] if name == "embedding" else arrays[0]  # whose codes may have any shape
    given[wrong] = library.array(np.ones(7) if name == "embedding" else np.ones((3, 2, 7)))
    with pytest.raises(XpmlpError):
        op(**given)


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_options_that_are_no_numbers_are_told(kernels, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x = np.ones((4, 4))
    for call in (
        lambda: ops.sgd_update(x, x, lr="fast"),
        lambda: ops.adagrad_update(x, x, x, lr=0.1, eps=None),
        lambda: ops.batch_norm(x, x[0], x[0], eps="small"),
        lambda: ops.leaky_relu(x, slope="steep"),
    ):
        with pytest.raises(XpmlpError, match=r"`\w+`: expected"):
            call()


def test_a_call_that_is_none_stays_pythons_own_error():
    with pytest.raises(TypeError, match="missing") as caught:
        ops.softmax()
    assert not isinstance(caught.value, XpmlpError)


def _others(given, arrays):
    return {name: value for name, value in given.items() if name not in arrays}
