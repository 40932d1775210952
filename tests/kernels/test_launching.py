"""What a record may be made of when an op launches an instruction: whatever it is, or an error."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

from xpmlp.kernels.numba import elementwise, launching, products, tape, update
from xpmlp.kernels.numba.launching import launch

F4 = np.dtype("float32")


def doubled(x, members=1, factor=2.0):
    """``x · factor`` by the instruction that scales what it is given."""
    y = x.copy(order="C")
    factors = np.full(int(members), factor, F4)
    assert launch(elementwise.scaled(F4), (members, 1, x.size // int(members), y, factors)) == 0
    return y


@pytest.mark.parametrize("one", [1, True, np.int32(1), np.uint64(1)], ids=repr)
def test_any_integer(one):
    x = np.arange(5, dtype=F4)
    np.testing.assert_array_equal(doubled(x, members=one), 2 * x)


def rates(*given):
    """The weight 1 after a step of plain gradient descent, gradient 1."""
    w, g, new = np.ones(3, F4), np.ones(3, F4), np.empty(3, F4)
    launch(update._NEW["sgd"](F4), update.NewSGD.plain(1, 1, 3, w, g, w, w, new, w, w, given))
    return new[0]


def test_floats_in_a_tuple_and_what_python_makes_floats_of():
    assert rates(0.5, 0.0, 1.0, 1.0) == rates(0.5, 0, 1, 1) == 0.5
    assert rates(np.float64(0.25), 0.0, 1.0, 1.0) == rates(np.float32(0.25), 0.0, 1.0, 1.0) == 0.75


@pytest.mark.parametrize("parallel", [False, True])
def test_operands_that_do_not_lie_in_order_are_copied(parallel, rng):
    wide = rng.normal(size=(6, 8)).astype(F4)
    shifted = np.frombuffer(bytearray(wide.nbytes + 1), np.uint8)[1:].view(F4).reshape(6, 8)
    shifted[...] = wide
    for x in (wide[:, ::2], wide.T, shifted, wide.view(np.memmap)):
        y = np.empty(x.shape, F4)
        call = elementwise.positive(F4), (1, 1, x.size, x, y)
        if parallel:
            launching.launch_in_parts(3, *call)
        else:
            launch(*call)
        np.testing.assert_array_equal(y, np.maximum(x, 0))


@pytest.mark.parametrize("wrong", [None, "text", [1, 2], 1j, object], ids=str)
def test_what_is_no_number(wrong):
    x = np.ones(3, F4)
    with pytest.raises((TypeError, ValueError)):
        launch(elementwise.positive(F4), (1, 1, 3, x, wrong))
    with pytest.raises((TypeError, ValueError)):
        launch(update._NEW["sgd"](F4), (1, 1, 3, x, x, x, x, x, x, x, (wrong,)))


def test_an_integer_too_large():
    x = np.ones(3, F4)
    with pytest.raises(OverflowError):
        launch(elementwise.positive(F4), (1, 1, 1 << 63, x, x))


@pytest.mark.parametrize("parallel", [False, True])
def test_records_and_calls_that_do_not_fit(parallel):
    x = np.ones(3, F4)
    function = elementwise.positive(F4)
    run = (lambda *calls: launching.launch_in_parts(2, *calls)) if parallel else launch
    for calls in (
        [function, (1, 1, 3, x, x, *range(600))],
        [function, (1, 1, 3, x, x, (0.5,) * 600)],
        [function, (1, 1, 3, x, x)] * 9,
        [(function,) * 9, (1, 1, 3, x, x)],
    ):
        with pytest.raises(TypeError, match="fit into 512 words"):
            run(*calls)


def test_several_calls_one_after_another():
    x, y, z = (np.full(4, value, F4) for value in (-1.0, 7.0, 7.0))
    positive, negative = elementwise.positive(F4), elementwise.scaled(F4)
    minus = np.array([-3.0], F4)
    launch(negative, (1, 1, 4, x, minus), positive, (1, 1, 4, x, y), positive, (1, 1, 4, y, z))
    assert x.tolist() == y.tolist() == z.tolist() == [3.0] * 4


def test_the_first_status_ends_it():
    from xpmlp.kernels.numba.losses import check_shares

    x, y = np.full(4, 2.0, F4), np.zeros(4, F4)
    checks = check_shares(F4), (1, 1, 4, x, 1.0)
    assert launch(*checks, elementwise.positive(F4), (1, 1, 4, x, y)) == 1
    assert not y.any()


def test_nothing_is_kept(rng):
    x = rng.normal(size=(6, 8)).astype(F4)
    y = np.empty((6, 8), F4)
    record = (1, 1, x.size, x, y)
    before = [sys.getrefcount(each) for each in (x, y, record)]
    for _ in range(100):
        launch(elementwise.positive(F4), record)
        launch(elementwise.positive(F4), (1, 1, x.size, x[:, ::-1], y))
    assert [sys.getrefcount(each) for each in (x, y, record)] == before


def test_other_threads_of_python_run_meanwhile(rng, monkeypatch):
    monkeypatch.setattr(products, "_PARALLEL_WORK", 1 << 62)
    a = rng.normal(size=(1, 100, 100)).astype(F4)
    products.matmul(a, a)
    turns, done = [], threading.Event()

    def count():
        while not done.wait(1e-4):
            turns.append(None)

    other = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    other.start()
    try:
        sys.setswitchinterval(1000.0)  # nobody has to let go of the interpreter
        before = len(turns)
        for _ in range(5000):
            products.matmul(a, a)
            if len(turns) > before:
                break
        assert len(turns) > before
    finally:
        sys.setswitchinterval(interval)
        done.set()
        other.join()


def test_an_arrays_elements_are_where_compiled_code_looks_for_them():
    area = np.zeros(512, np.int64)
    x = np.ones((2, 3), F4)
    assert launching._launch(tape.address_of(area), 77, (5, x)) == 1
    function, row, mode = area[:3].tolist()
    assert (function, mode) == (77, tape.PARALLEL)
    place = (row - tape.address_of(area)) // 8
    assert area[place : place + 2].tolist() == [5, tape.address_of(x)]
