"""Every stride, transposition and broadcast as cuBLAS calls, under cuBLAS's rules on the CPU."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from kernels.cuda import stand_in
from step import numpy_graph

from xpmlp.kernels.cuda import products
from xpmlp.kernels.cuda.matmul import matmul

LAYOUTS = ("rows", "columns", "padded rows", "padded columns", "every second", "reversed")


@pytest.fixture
def device(monkeypatch):
    def no_kernel(op, suffix):
        raise AssertionError("expected cuBLAS")

    never = {"threads": (0, 0), "tensor cores": (0, 0)}
    monkeypatch.setattr("xpmlp.kernels.cuda.matmul.OURS", never)
    monkeypatch.setattr("xpmlp.kernels.cuda.matmul._plans", {})
    return stand_in.put_in_place(monkeypatch, no_kernel)


def laid_out(values: np.ndarray, layout: str) -> np.ndarray:
    """The same matrices in another arrangement of memory."""
    *lead, rows, columns = values.shape
    if "columns" in layout:
        extra = 3 if "padded" in layout else 0
        store = np.full((*lead, columns, rows + extra), np.nan, values.dtype)
        view = np.swapaxes(store, -1, -2)[..., :rows, :]
    elif layout == "every second":
        store = np.full((*lead, 2 * rows, 2 * columns), np.nan, values.dtype)
        view = store[..., ::2, ::2]
    elif layout == "reversed":
        view = np.full((*lead, rows, columns), np.nan, values.dtype)[..., ::-1, ::-1]
    else:
        extra = 3 if "padded" in layout else 0
        view = np.full((*lead, rows, columns + extra), np.nan, values.dtype)[..., :columns]
    view[...] = values
    return view


def on_device(x: np.ndarray) -> np.ndarray:
    """The same elements with the same strides in the stand-in's memory."""
    spans = [(n - 1) * step for n, step in zip(x.shape, x.strides, strict=True)]
    before = -sum(span for span in spans if span < 0)
    size = before + sum(span for span in spans if span > 0) + x.itemsize
    store = np.asarray(stand_in.empty((size,), np.uint8))
    view = np.ndarray(x.shape, x.dtype, store, before, x.strides)
    view[...] = x
    return view.view(numpy_graph.Traced)


def check(a: np.ndarray, b: np.ndarray) -> None:
    c = np.asarray(matmul(on_device(a), on_device(b)))
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64))
    assert c.shape == expected.shape and c.dtype == a.dtype
    eps = {"float16": 2.0**-9, "float32": 2.0**-21}.get(a.dtype.name, 2.0**-50)
    np.testing.assert_allclose(c.astype(np.float64), expected, rtol=eps * 8, atol=eps * 16)


@pytest.mark.parametrize("shape", list(product((1, 2, 5), (1, 3, 4), (1, 2, 6))), ids=str)
def test_every_layout_of_both_operands(device, rng, shape):
    i, k, j = shape
    a, b = rng.standard_normal((i, k)), rng.standard_normal((k, j))
    for a_layout, b_layout in product(LAYOUTS, LAYOUTS):
        check(laid_out(a, a_layout), laid_out(b, b_layout))


@pytest.mark.parametrize("a_layout", LAYOUTS)
@pytest.mark.parametrize("b_layout", LAYOUTS)
@pytest.mark.parametrize(
    ("a_lead", "b_lead"),
    [
        ((), ()),
        ((3,), (3,)),
        ((3,), ()),
        ((), (3,)),
        ((3,), (1,)),
        ((1,), (3,)),
        ((2, 3), (2, 3)),
        ((2, 3), (3,)),
        ((2, 1), (1, 3)),
        ((2, 3), (2, 1)),
        ((2, 1, 2), (3, 1)),
    ],
    ids=str,
)
def test_every_broadcast_of_every_layout(device, rng, a_lead, b_lead, a_layout, b_layout):
    for i, k, j in ((4, 3, 5), (1, 3, 5), (4, 1, 5), (4, 3, 1)):
        a = rng.standard_normal((*a_lead, i, k)).astype(np.float32)
        b = rng.standard_normal((*b_lead, k, j)).astype(np.float32)
        check(laid_out(a, a_layout), laid_out(b, b_layout))


def test_strides_of_the_batch_may_be_anything(device, rng):
    a, b = rng.standard_normal((6, 4, 3)), rng.standard_normal((6, 3, 5))
    check(a[::2], b[1::2])
    check(a[::-1], b[::-1])
    assert min(device.products[-1][0].first_step, device.products[-1][0].second_step) > 0
    check(np.broadcast_to(a[0], (6, 4, 3)), b)
    check(a, np.broadcast_to(b[0], (6, 3, 5)))
    check(
        np.swapaxes(np.ascontiguousarray(np.swapaxes(a, 0, 1)), 0, 1), b
    )  # (B, M, K) kept as M, B, K
    check(np.broadcast_to(a[0, 0], (4, 3)), b)  # every row the same


@pytest.mark.parametrize("a_layout", ["rows", "columns", "padded rows"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_type(device, rng, a_layout, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    a = rng.integers(-3, 4, (2, 4, 3)).astype(dtype)
    b = rng.integers(-3, 4, (2, 3, 5)).astype(dtype)
    c = np.asarray(matmul(on_device(laid_out(a, a_layout)), on_device(b)))
    np.testing.assert_array_equal(c.astype(float), a.astype(float) @ b.astype(float))


def test_a_batch_times_a_matrix_is_one_product(device, rng):
    W = rng.standard_normal((3, 5))
    for a in (rng.standard_normal((7, 4, 3)), rng.standard_normal((7, 1, 6))[..., :3]):
        device.products.clear()
        check(a, W)
        assert [call.count for call, *_ in device.products] == [1]
        assert device.products[0][0].n == 7 * a.shape[1]


def test_transposed_operands_are_not_copied(device, rng, monkeypatch):
    def copied(array):
        raise AssertionError("copied")

    monkeypatch.setattr("xpmlp.kernels.cuda.launch.library", lambda: None)
    a, b = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 3))
    for x, y in (
        (a.swapaxes(-1, -2), b.swapaxes(-1, -2)),
        (a.swapaxes(-1, -2)[..., :2, :], b.swapaxes(-1, -2)[..., 1:]),
        (a[..., :3, :][..., :3], b.swapaxes(-1, -2)),
    ):
        device.products.clear()
        check(x, y)
        assert len(device.products) == 1 and device.products[0][0].count == 2


def test_broadcasting_is_a_step_of_zero_not_a_loop(device, rng):
    check(rng.standard_normal((4, 3)), rng.standard_normal((8, 3, 5)))
    assert [(call.count, call.second_step) for call, *_ in device.products] == [(8, 0)]


def test_empty_products(device):
    assert matmul(np.ones((0, 3)), np.ones((3, 2))).shape == (0, 2)
    np.testing.assert_array_equal(matmul(np.ones((2, 0)), np.ones((0, 3))), np.zeros((2, 3)))
    assert not device.products


def test_the_result_goes_where_it_is_told(device, rng):
    out = stand_in.empty((4, 5), np.float64)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((3, 5))
    assert matmul(on_device(a), on_device(b), out) is out
    np.testing.assert_allclose(out, a @ b, rtol=1e-12)


def test_layouts_that_must_be_copied():
    assert products.layout(4, 3, 3, 1) == (False, 3)
    assert products.layout(4, 3, 1, 4) == (True, 4)
    assert products.layout(4, 3, 7, 1) == (False, 7)
    assert products.layout(4, 3, 6, 2) is None
    assert products.layout(4, 3, 0, 1) is None
    assert products.layout(4, 3, -3, 1) is None
    assert products.layout(4, 3, 2**31, 1) is None
    assert products.layout(1, 3, 99, 1) == (False, 3)
    assert products.layout(4, 1, 2, 99) == (False, 2)
