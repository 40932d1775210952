"""No op answers a wrong argument with a raw error, or with a result."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import ConfigError, DataError, DTypeError, ShapeError, XpmlpError

OPS = [name for name in ops.__all__ if name not in ("explain", "without_kernels")]
NUMBERS = {
    **{"p": 0.5, "rng": None, "step": 1, "dtype": "float32"},
    **{"lr": 0.1, "momentum": 0.9, "nesterov": True, "eps": 1e-8, "gain": 0.1, "gain1": 0.1},
    **{"ahead": 0.1, "adaptive": 0.1, "keep": 0.9},
    **{"columns": (("linear", 1),) * 4, "size": 2, "groups": 1},
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
    if name == "gather_rows" and library.name == "cupy":
        pytest.skip("row numbers on a device are not looked at")
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


WRONG_NUMBERS = [
    *[("rms_norm", "eps", value) for value in (-1.0, float("nan"), float("inf"), "0.5", True)],
    *[("orthogonalize", "eps", value) for value in (0.0, -1e-9)],
    *[("adam_update", "correction2", value) for value in (0.0, -0.5, [0.5, 0.5])],
    *[("rmsprop_update", "gain", value) for value in (1e30, np.array([0.1, np.nan]))],
    *[("momentum_update", "momentum", value) for value in (1.0, np.array([[0.5], [-0.5]]))],
    *[("momentum_update", "nesterov", value) for value in (None, 2, "no")],
    *[("leaky_relu", "slope", value) for value in (np.ma.masked_equal(0.1, 0.1), b"1")],
    *[("softmax", "axis", value) for value in (True, 0.0)],
    *[("softmax_cross_entropy", name, "a") for name in ("z_loss", "ignore_index")],
]


@pytest.mark.parametrize(("name", "option", "value"), WRONG_NUMBERS)
def test_numbers_out_of_bounds_are_named(name, option, value):
    op = getattr(ops, name)
    given, arrays = arguments(op, lambda a: a.astype(np.int64 if a.ndim == 1 else np.float32))
    positional = [given[key] for key in arrays]
    if name == "rms_norm":
        positional[1] = positional[1][0]
    options = _others(given, arrays) | {option: value}
    with pytest.raises(XpmlpError, match=f"`{name}`: expected {option}"):
        op(*positional, **options)
    if name in ("rms_norm", "leaky_relu", "softmax", "orthogonalize"):  # also by position
        place = list(inspect.signature(op).parameters).index(option)
        before = [options.get(key, 5) for key in list(inspect.signature(op).parameters)[:place]]
        before[: len(positional)] = positional
        with pytest.raises(XpmlpError, match=f"`{name}`: expected {option}"):
            op(*before, value)


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.array(0.5), 1])
def test_numbers_of_any_type_compute_as_plain_ones(number):
    w = np.ones((2, 3), np.float32)
    result = ops.sgd_update(w, w, lr=number)
    np.testing.assert_array_equal(result, ops.sgd_update(w, w, lr=float(number)))
    assert result.dtype == np.float32


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("kind", [np.matrix, lambda a: np.ma.masked_equal(a, a[0, 0])])
def test_arrays_with_operators_of_their_own_are_refused(kind):
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    for call in (ops.silu, ops.relu, lambda x: ops.matmul(x, x.T), ops.softmax):
        with pytest.raises(DTypeError, match=r"expected (x|a) "):
            call(kind(x))


def test_gradients_of_another_shape_are_refused():
    x = np.ones((2, 3), np.float32)
    for wrong in (x[:1], x[None], np.float32(1.0)):
        with pytest.raises(ShapeError, match=r"expected y of shape \(2, 3\)"):
            ops.sigmoid_backward(x, x, wrong)
        with pytest.raises(ShapeError, match=r"expected x of shape \(2, 3\)"):
            ops.elu_backward(dy=x, x=wrong, y=x)


def test_a_variance_below_zero_is_refused():
    x, feature = np.ones((2, 3)), np.ones(3)
    with pytest.raises(DataError, match="`batch_norm_inference_backward`: expected var ≥ 0"):
        ops.batch_norm_inference_backward(x, x, feature, feature, -feature)
    with pytest.raises(DataError, match="`batch_norm_inference`: expected var ≥ 0"):
        ops.batch_norm_inference(x, feature, feature, feature, -feature)
    with pytest.raises(ShapeError, match="var of shape"):
        ops.batch_norm_inference(x, feature, feature, feature, np.ones((2, 3)))


def test_a_gather_takes_both_mean_and_std():
    with pytest.raises(ConfigError, match="both or neither"):
        ops.gather_rows(np.ones((2, 3)), np.arange(2), std=2.0, dtype="float32")
