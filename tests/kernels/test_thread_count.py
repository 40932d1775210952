"""XPMLP_NUM_THREADS decides for kernels and for NumPy's BLAS, and says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xpmlp.errors import ConfigError
from xpmlp.kernels import thread_count as module
from xpmlp.kernels.thread_count import describe_threads, limit_blas, thread_count


def processors(monkeypatch, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)


def test_who_decides(monkeypatch):
    processors(monkeypatch, 3)
    monkeypatch.delenv("XPMLP_NUM_THREADS", raising=False)
    assert thread_count() == (3, "processors")
    monkeypatch.setenv("XPMLP_NUM_THREADS", " 2 ")
    assert thread_count() == (2, "XPMLP_NUM_THREADS")
    monkeypatch.setenv("XPMLP_NUM_THREADS", "8")
    assert thread_count() == (3, "processors, fewer than XPMLP_NUM_THREADS")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_no_number_of_threads(monkeypatch, text):
    monkeypatch.setenv("XPMLP_NUM_THREADS", text)
    with pytest.raises(ConfigError, match=f"number ≥ 1, got '{text}'"):
        thread_count()


@pytest.fixture
def blas():
    """What threadpoolctl knows of NumPy's BLAS, at 2 threads; put back afterwards."""
    control = pytest.importorskip("threadpoolctl")
    if not blas_pools(control):
        pytest.skip("threadpoolctl does not know this BLAS")
    with control.threadpool_limits(limits=2, user_api="blas"):
        yield lambda: blas_pools(control)


def blas_pools(control):
    pools = [pool for pool in control.threadpool_info() if pool["user_api"] == "blas"]
    return {f"{pool['num_threads']} {pool['internal_api']}" for pool in pools}


def test_blas_is_limited_when_asked_for_only(monkeypatch, blas):
    processors(monkeypatch, 4)
    for name in (*module._BLAS_VARIABLES, "XPMLP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    limit_blas()
    assert all(pool.startswith("2 ") for pool in blas())
    assert describe_threads().startswith("kernels 4 (processors); BLAS 2 ")
    assert describe_threads().endswith(" (its own choice)")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert describe_threads().endswith(" (OMP_NUM_THREADS)")
    monkeypatch.setenv("XPMLP_NUM_THREADS", "1")
    assert describe_threads().startswith("kernels 1 (XPMLP_NUM_THREADS); BLAS 1 ")
    assert describe_threads().endswith(" (XPMLP_NUM_THREADS)")
    assert all(pool.startswith("1 ") for pool in blas())


def test_without_threadpoolctl_it_says_so(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("XPMLP_NUM_THREADS", "1")
    limit_blas()
    assert describe_threads() == f"kernels 1 (XPMLP_NUM_THREADS); BLAS {module.NO_CONTROL}"
    monkeypatch.delenv("XPMLP_NUM_THREADS")
    assert describe_threads().endswith("(processors); BLAS its own choice")


def test_the_first_kernel_limits_blas(blas):
    pytest.importorskip("numba")
    code = (
        "import threadpoolctl; from xpmlp.kernels.numba import threads\n"
        "print(threads.parallel_threads(), *{p['num_threads'] for p in "
        "threadpoolctl.threadpool_info() if p['user_api'] == 'blas'})"
    )
    environment = os.environ | {"XPMLP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["1", "1"]
