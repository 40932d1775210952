"""The same bits in every process and every thread: kernels and whole training steps."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kernel_work import WORK, digest, digests

from xpmlp import ops

pytest.importorskip("numba")


@pytest.fixture(scope="module")
def expected():
    """What this process gets, with its threads awake."""
    first = digests()
    assert len(set(first)) == 2 * len(WORK)
    assert digests() == first
    return first


def test_spawned_children_get_the_same_bits(expected):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map_async(digests, [(0, 1), (0, 1)]).get(120) == [expected, expected]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads, which is the point
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX's own word on it
def test_forked_children_get_the_same_bits(expected):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(digests, [(0, 1), (0, 1)]).get(120) == [expected, expected]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_fork_while_another_thread_computes(expected):
    """The child must not wait for a region whose holder does not exist there."""
    done = threading.Event()

    def keep_busy():
        while not done.is_set():
            digest(WORK[0])

    other = threading.Thread(target=keep_busy)
    other.start()
    try:
        with multiprocessing.get_context("fork").Pool(4) as pool:
            assert pool.map_async(digest, WORK[:4]).get(60) == expected[:4]
    finally:
        done.set()
        other.join()


def test_threads_that_call_different_kernels_at_once(expected, often_switched):
    """Two by two the same work, on different data: on the same, shared memory would not show."""
    turns = [
        [((pair + i) % len(WORK), seed) for i in range(18)] for pair in range(4) for seed in (0, 1)
    ]
    start = threading.Barrier(len(turns))

    def run(turn):
        start.wait()
        return [digest(WORK[number], seed) for number, seed in turn]

    with ThreadPoolExecutor(len(turns)) as pool:
        results = list(pool.map(run, turns))
    for turn, result in zip(turns, results, strict=True):
        assert result == [expected[seed * len(WORK) + number] for number, seed in turn]


@pytest.fixture
def often_switched():
    """Python threads take turns every few microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("count", ["1", "2"])
def test_the_number_of_threads_does_not_change_a_bit(expected, count):
    code = "from kernel_work import digests; print(*digests())"
    environment = os.environ | {"XPMLP_NUM_THREADS": count, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no list of processors to alter")
def test_64_threads_give_the_same_bits(expected):
    """On a machine that says it has as many processors, and with as many of Python's threads."""
    code = (
        "import os; os.sched_getaffinity = lambda pid: set(range(64))\n"
        "from xpmlp.kernels import thread_count\n"
        "thread_count.cpu_quota = lambda: 64.0\n"
        "from kernel_work import WORK, digest, digests\n"
        "from xpmlp.kernels.numba import threads\n"
        "assert threads.parallel_threads() == 64, threads.parallel_threads()\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(64) as pool:\n"
        "    several = list(pool.map(digest, [WORK[i % len(WORK)] for i in range(128)]))\n"
        "own = digests()\n"
        "assert several == [own[i % len(WORK)] for i in range(128)]\n"
        "print(*own)"
    )
    environment = os.environ | {"NUMBA_NUM_THREADS": "64", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("XPMLP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected


def test_the_work_runs_on_kernels():
    """The tests above would prove nothing about references."""
    x = np.ones((300, 784), np.uint8)
    assert "kernel numba" in ops.explain("gather_rows", x, np.zeros(9, int), dtype="float32")
    a = np.ones((200, 64, 64), np.float32)
    assert "kernel numba" in ops.explain("matmul", a, a)
