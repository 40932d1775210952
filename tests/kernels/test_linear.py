"""The numba kernels of linear and its backward: shapes, layouts, threads, when they stand aside."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checks import unchanged

from xpmlp import ops
from xpmlp.errors import ShapeError
from xpmlp.ops.activations import FUSABLE
from xpmlp.testing import gradcheck_function

pytest.importorskip("numba")

from xpmlp.kernels.numba import launching
from xpmlp.kernels.numba import products as kernel

definition = importlib.import_module("xpmlp.ops.linear")  # in ops, the name is the function's

ACTIVATIONS = (None, "relu", "tanh", "sigmoid")
# x and W; what the threads divide: members, rows, columns, or nothing.
SHAPES = {
    "ones": ((1, 1), (1, 1)),
    "odd": ((5, 7), (7, 3)),
    "one row": ((1, 33), (33, 17)),
    "one column": ((19, 33), (33, 1)),
    "one input": ((50, 1), (1, 35)),
    "rows": ((301, 130), (130, 67)),
    "columns": ((9, 300), (300, 803)),
    "nothing long": ((40, 700), (700, 100)),
    "deep": ((300, 257), (257, 90)),
    "tall": ((3001, 5), (5, 70)),
    "leading": ((2, 3, 20, 5), (5, 4)),
    "members": ((9, 61, 19), (9, 19, 33)),
    "three members": ((3, 100, 40), (3, 40, 30)),
    "shared batch": ((61, 19), (9, 19, 33)),
    "a batch of one": ((1, 61, 19), (9, 19, 33)),
    "shared by three": ((100, 40), (3, 40, 30)),
    "one member": ((1, 12, 5), (1, 5, 4)),
    "one member's weights": ((6, 12, 5), (1, 5, 4)),
    "one member, shared batch": ((12, 5), (1, 5, 4)),
}


def draw(rng, case, dtype="float32"):
    """dy, x, W, b of a shape."""
    x_shape, W_shape = SHAPES[case]
    y_shape = (*np.broadcast_shapes(x_shape[:-2], W_shape[:-2]), x_shape[-2], W_shape[-1])
    shapes = y_shape, x_shape, W_shape, (*W_shape[:-2], W_shape[-1])
    dy, x, W, b = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    return dy, x, (W / W_shape[-2] ** 0.5).astype(dtype), b


def exactly(dy, x, W, b, activation, y):
    """y and the gradients in float64, and for each element the sum of the summands' sizes."""
    dy, x, W, y = (a.astype(np.float64) for a in (dy, x, W, y))
    bias = 0.0 if b is None else b.astype(np.float64)[..., None, :]
    z = x @ W + bias
    dz = dy if activation is None else FUSABLE[activation][1](dy, y, y)
    values = (
        z if activation is None else FUSABLE[activation][0](z),
        *definition.reference_backward(dz, x, W, None, None, True),
    )
    x, W, dz = abs(x), abs(W), abs(dz)
    sizes = x @ W + abs(bias), *definition.reference_backward(dz, x, W, None, None, True)
    return values, sizes


def check(dy, x, W, b, activation):
    """The kernels take them, and are as right as sums in any order can be; all that they gave."""
    assert "kernel numba" in ops.explain("linear", x, W, b, activation=activation)
    with unchanged(*(a for a in (dy, x, W, b) if a is not None)):
        y = ops.linear(x, W, b, activation)
        assert "kernel numba" in ops.explain("linear_backward", dy, x, W, y, activation=activation)
        gradients = ops.linear_backward(dy, x, W, y, activation)
        none, dW, db = ops.linear_backward(dy, x, W, y, activation, input_grad=False)
    assert none is None
    np.testing.assert_array_equal(dW, gradients[1])
    np.testing.assert_array_equal(db, gradients[2])
    terms = W.shape[-2], W.shape[-1] * len(np.atleast_3d(W)), y.size // W.shape[-1], y.size
    results, eps = (y, *gradients), np.finfo(x.dtype).eps
    for result, value, size, n in zip(
        results, *exactly(dy, x, W, b, activation, y), terms, strict=True
    ):
        assert result.dtype == x.dtype and result.shape == value.shape
        assert result.flags.c_contiguous and result.flags.writeable
        # Rounding errors of a sum of n terms grow with √n, of 128 in turn; f and f′ add a few.
        assert (abs(result - value) <= size * eps * (4 + min(n, 128) ** 0.5) + 4 * eps).all()
    return results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case, activation, dtype, rng):
    dy, x, W, b = draw(rng, case, dtype)
    check(dy, x, W, b if activation != "tanh" else None, activation)


def laid_out(a):
    """The same numbers, lying differently in memory."""
    wide = np.full((*a.shape[:-2], 2 * a.shape[-2], 3 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2, ::3] = a
    swapped = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    last = np.ascontiguousarray(np.moveaxis(a, 0, -1))
    frozen = a.copy()
    frozen.flags.writeable = False
    return {
        "transposed": swapped,
        "stepped": wide[..., ::2, ::3],
        "backwards": np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
        "first axis last": np.moveaxis(last, -1, 0),
        "read-only": frozen,
        "repeated": np.broadcast_to(a[..., :1, :], a.shape),
    }


@pytest.mark.parametrize("case", ["odd", "rows", "leading", "members", "shared batch"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_layouts_of_every_operand(case, activation, rng):
    dy, x, W, b = draw(rng, case)
    views = [laid_out(a) for a in (dy, x, W)]
    biases = np.repeat(b, 2, axis=-1)[..., ::2]
    for how in views[0]:
        check(views[0][how], x, W, b, activation)
        check(dy, views[1][how], W, biases, activation)
        check(dy, x, views[2][how], b, activation)
        check(views[0][how], views[1][how], views[2][how], biases, activation)


def test_slopes_heed_the_layout_of_y(rng):
    dy, x, W, b = draw(rng, "odd")
    for activation in ACTIVATIONS[1:]:
        y = ops.linear(x, W, b, activation)
        expected = ops.linear_backward(dy, x, W, y, activation)
        for how, view in laid_out(y).items():
            if how == "repeated":
                continue
            for a, e in zip(ops.linear_backward(dy, x, W, view, activation), expected, strict=True):
                np.testing.assert_array_equal(a, e, err_msg=how)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_batch_that_only_looks_as_if_each_member_had_its_own(activation, rng):
    dy, x, W, b = draw(rng, "shared batch")
    check(dy, np.broadcast_to(x, (len(W), *x.shape)), W, b, activation)
    check(dy, np.broadcast_to(x, (1, *x.shape)), np.broadcast_to(W[0], W.shape), b, activation)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_no_number_goes_where_the_reference_lets_it(activation, dtype, rng):
    dy, x, W, b = draw(rng, "odd", dtype)
    x[0, 0], x[1, 1], dy[2, 0], dy[3, 1] = np.nan, np.inf, np.nan, -np.inf
    b[2] = -np.inf
    x[4] = 0
    y = ops.linear(x, W, b, activation)
    gradients = ops.linear_backward(dy, x, W, y, activation)
    with np.errstate(all="ignore"), ops.without_kernels():
        expected = ops.linear(x, W, b, activation)
        gradients_expected = ops.linear_backward(dy, x, W, expected, activation)
    assert np.isnan(expected[0]).all() and not np.isfinite(gradients_expected[1]).all()
    tolerance = 32 * np.finfo(dtype).eps
    for a, e in zip((y, *gradients), (expected, *gradients_expected), strict=True):
        np.testing.assert_allclose(a, e, tolerance, tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", ["members", "shared batch"])
def test_gradients_are_the_derivatives(case, activation, rng):
    _, x, W, b = (a[:2, :5] for a in draw(rng, case, "float64"))

    def gradients(dy, x, W, b):
        y = ops.linear(x, W, b, activation)
        assert "kernel numba" in ops.explain("linear_backward", dy, x, W, y, activation=activation)
        return ops.linear_backward(dy, x, W, y, activation)

    x, W, b = np.ascontiguousarray(x)[..., :5], W[..., :4], b[..., :4]
    gradcheck_function(lambda x, W, b: ops.linear(x, W, b, activation), gradients, x, W, b)


def both(dy, x, W, b, activation):
    y = kernel.linear(x, W, b, activation)
    return y, *kernel.linear_backward(dy, x, W, y, activation, True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "case",
    ["rows", "columns", "nothing long", "tall", "members", "three members", "shared by three"],
)
def test_threads_change_no_bit(case, activation, rng, monkeypatch):
    operands = draw(rng, case)
    monkeypatch.setattr(launching, "enter_parallel", lambda: False)
    usual = both(*operands, activation)
    monkeypatch.undo()
    monkeypatch.setattr(kernel, "_PARALLEL_WORK", 1)
    for parts in (1, 2, 3, 5):  # more parts than threads are as good
        monkeypatch.setattr(launching, "parallel_threads", lambda parts=parts: parts)
        for result, expected in zip(both(*operands, activation), usual, strict=True):
            np.testing.assert_array_equal(result, expected)


def test_when_threads_are_asked_for(rng, monkeypatch):
    asked = []
    monkeypatch.setattr(kernel, "launch", lambda *calls, worth_it: asked.append(worth_it))
    for case in ("odd", "rows", "three members", "members"):
        both(*draw(rng, case), "relu")
    assert asked == [False, False, *[True] * 6]


def test_many_python_threads_at_once(rng):
    operands = draw(rng, "rows")
    expected = both(*operands, "tanh")

    def work(_):
        return all(
            np.array_equal(a, e)
            for _ in range(10)
            for a, e in zip(both(*operands, "tanh"), expected, strict=True)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_borders_of_the_kernels():
    def ones(*shape, dtype=np.float32):
        return np.ones(shape, dtype)

    def why(x, W, b=None):
        return ops.explain("linear", x, W, b, activation="relu").partition(": ")[2]

    takes = "kernel numba (fits these shapes and dtypes)"
    assert why(ones(2, 3), ones(3, 4), ones(4)) == takes
    assert why(ones(1, 784), ones(784, 100)) == takes
    assert "vector" in why(ones(1, 801), ones(801, 100))
    assert "vector" in why(ones(1, 1, 801), ones(801, 100))
    assert "vector" in why(ones(801, 100), ones(100, 1))
    assert why(ones(5, 1, 801), ones(801, 100)) == takes
    assert "vector" in why(ones(50, 1, 40), ones(50, 40, 41))
    assert "(3,)" in why(ones(3), ones(3, 4))
    assert "(2, 5, 4, 3)" in why(ones(2, 5, 4, 3), ones(5, 3, 4))
    assert "(2, 5, 3, 4)" in why(ones(2, 5, 4, 3), ones(2, 5, 3, 4))
    assert "empty" in why(ones(0, 3), ones(3, 4))
    assert "empty" in why(ones(4, 0), ones(0, 3))
    x, W = ones(4, 3), ones(3, 5)
    for other in ("float64", "float16", "int32", ">f4"):
        assert "not all float" in why(x, W.astype(other))
        assert "not all float" in why(x, W, ones(5).astype(other))
    assert "not all float" in why(x.astype("float16"), W.astype("float16"))
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert "aligned" in why(raw, W)
    assert "recarray" in why(x, W.view(np.recarray))
    dy = ones(4, 5)
    back = ops.explain("linear_backward", dy, x, W, dy.astype("float64"), activation="relu")
    assert "not all float" in back
    assert takes in ops.explain("linear_backward", dy, x, W)


@pytest.mark.parametrize("case", ["no rows", "no inputs", "a vector"])
def test_what_is_refused_still_works(case):
    x_shape, D = {"no rows": ((0, 3), 3), "no inputs": ((4, 0), 0), "a vector": ((3,), 3)}[case]
    x, W, b = np.ones(x_shape), np.ones((D, 5)), np.ones(5)
    y = ops.linear(x, W, b, "relu")
    np.testing.assert_array_equal(y, np.full((*x_shape[:-1], 5), 1.0 + D))
    dx, dW, db = ops.linear_backward(y, x, W, y, "relu")
    assert dx.shape == x.shape and dW.shape == W.shape
    np.testing.assert_array_equal(db, np.full(5, y.sum() / 5))


def test_without_an_activation_no_y_is_looked_at(rng, monkeypatch):
    handed_over = []

    def choose(op, reference, *arrays, **options):
        handed_over.append(arrays[3])
        return reference

    monkeypatch.setattr(definition, "choose", choose)
    dy, x, W, _ = draw(rng, "odd")
    ops.linear_backward(dy, x, W, np.zeros(3))
    assert handed_over == [None]
    with pytest.raises(ShapeError, match="expected y"):
        ops.linear_backward(dy, x, W, None, "relu")
