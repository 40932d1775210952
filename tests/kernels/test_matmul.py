"""The numba kernel of matmul: broadcasting, layouts, threads, and when it stands aside."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checks import unchanged

from xpmlp import ops

pytest.importorskip("numba")

from xpmlp.kernels.numba import launching
from xpmlp.kernels.numba import products as kernel

# Which axis the threads divide: runs (outer axes), the batch, rows, columns; or none, in serial.
SHAPES = {
    "batch": ((100, 9, 11), (100, 11, 13)),
    "large batch": ((700, 16, 16), (700, 16, 16)),
    "four axes": ((10, 12, 9, 5), (10, 12, 5, 7)),
    "shared right": ((30, 40, 20), (20, 50)),
    "shared left": ((40, 20), (90, 20, 50)),
    "outer": ((60, 1, 30, 20), (60, 4, 20, 30)),
    "outer both": ((2, 1, 30, 8), (40, 8, 30)),
    "inner and outer": ((3, 1, 50, 5, 6), (4, 50, 6, 7)),
    "ones between": ((80, 1, 1, 5, 6), (1, 3, 6, 7)),
    "rows": ((1, 300, 70), (1, 70, 90)),
    "columns": ((20, 300), (300, 800)),
    "one product": ((128, 784), (784, 100)),
}


def check(a, b):
    """The kernel takes them, and is as right as a sum in any order can be."""
    assert "kernel numba" in ops.explain("matmul", a, b)
    with unchanged(a, b):
        c = ops.matmul(a, b)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    bound = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    bound *= np.finfo(a.dtype).eps * (1 + min(a.shape[-1], 256) ** 0.5)
    assert c.dtype == a.dtype and c.shape == expected.shape and c.flags.c_contiguous
    assert (np.abs(c - expected) <= bound).all()
    return c


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case, dtype, rng):
    a, b = (rng.normal(size=shape).astype(dtype) for shape in SHAPES[case])
    check(a, b)


@pytest.mark.parametrize("n", [5, 8, 20])
def test_layouts_of_either_operand(n, rng):
    base = rng.normal(size=(2 * 120, 2 * n, 2 * n)).astype(np.float32)
    plain = np.ascontiguousarray(base[::2, ::2, ::2])
    views = {
        "transposed": np.ascontiguousarray(plain.swapaxes(1, 2)).swapaxes(1, 2),
        "stepped": base[::2, ::2, ::2],
        "backwards": np.ascontiguousarray(plain[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        "columns of a wider one": base[:120, :n, n:],
        "batch last": np.ascontiguousarray(np.moveaxis(plain, 0, -1)).transpose(2, 0, 1),
        "repeated": np.broadcast_to(plain[3], plain.shape),
    }
    for view in views.values():
        for first, second in ((view, plain), (plain, view), (view, view)):
            check(first, second)


def test_read_only_operands(rng):
    a = rng.normal(size=(90, 12, 12)).astype(np.float32)
    a.flags.writeable = False
    check(a, a)


@pytest.mark.parametrize("axis", ["batch", "rows", "columns", "outer"])
def test_threads_change_no_bit(axis, rng, monkeypatch):
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in SHAPES[axis])
    usual = ops.matmul(a, b)
    np.testing.assert_array_equal(usual, ops.matmul(a, b))
    monkeypatch.setattr(kernel, "_PARALLEL_WORK", 1)
    for parts in (1, 2, 3, 5):  # more parts than threads are as good
        monkeypatch.setattr(launching, "parallel_threads", lambda parts=parts: parts)
        np.testing.assert_array_equal(usual, ops.matmul(a, b))


def test_only_outer_axes_take_several_runs(rng, monkeypatch):
    taken = []
    monkeypatch.setattr(
        kernel, "launch", lambda _, record, worth_it: taken.append((record, worth_it))
    )
    for case in ("outer", "large batch", "rows", "columns"):
        kernel.matmul(*(rng.normal(size=shape).astype(np.float32) for shape in SHAPES[case]))
    assert all(worth_it for _, worth_it in taken)
    words = [len(record) for record, _ in taken]
    assert words == [words[1] + 3, *words[1:2] * 3]  # with runs: a program, how many, their starts


def test_many_python_threads_at_once(rng):
    a = rng.normal(size=(400, 24, 24)).astype(np.float32)
    b = rng.normal(size=(400, 24, 24)).astype(np.float32)
    expected = ops.matmul(a, b)

    def work(_):
        return all(np.array_equal(ops.matmul(a, b), expected) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def _in_child(queue, a, b):
    queue.put(ops.matmul(a, b))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX on a fork beside its threads
def test_after_a_fork(rng):
    a = rng.normal(size=(400, 24, 24)).astype(np.float32)
    expected = ops.matmul(a, a)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, a, a))
    child.start()
    try:
        np.testing.assert_array_equal(queue.get(timeout=60), expected)
        child.join(60)
    finally:
        child.kill()
    np.testing.assert_array_equal(ops.matmul(a, a), expected)


def test_borders_of_the_kernel():
    def why(a, b):
        return ops.explain("matmul", a, b).partition(": ")[2]

    def ones(*shape, dtype=np.float32):
        return np.ones(shape, dtype)

    takes = "kernel numba (fits these shapes and dtypes)"
    assert why(ones(70, 4, 4), ones(70, 4, 4)) == takes
    assert "so small" in why(ones(60, 4, 4), ones(60, 4, 4))
    assert why(ones(126, 64), ones(64, 126)) == takes
    assert "so small" in why(ones(124, 64), ones(64, 124))
    assert "so small" in why(ones(100, 8, 8), ones(8, 8))  # one product of 800 rows
    assert "vector" in why(ones(300, 50, 30), ones(300, 30, 1))
    assert "vector" in why(ones(300, 1, 30), ones(300, 30, 50))
    assert "few vectors" in why(ones(5000, 100), ones(100, 4))
    assert why(ones(5000, 100), ones(100, 5)) == takes
    assert why(ones(700, 1, 30), ones(30, 50)) == takes
    big = ones(200, 8, 8)
    for other in ("float64", "float16", "int32", ">f4"):
        assert "not both float" in why(big, big.astype(other))
    assert "not both float" in why(big.astype("complex64"), big.astype("complex64"))
    raw = np.zeros(big.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(big.shape)
    assert "aligned" in why(big, raw)
    assert "recarray" in why(big, big.view(np.recarray))


def test_without_numba_the_reference_runs(monkeypatch):
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import importlib.util; importlib.util.find_spec = lambda name: None\n"
        "import numpy as np; from xpmlp import ops\n"
        "a = np.ones((200, 8, 8), np.float32)\n"
        "assert (ops.matmul(a, a) == 8).all()\n"
        "print(ops.explain('matmul', a, a))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numba is not installed" in done.stdout
