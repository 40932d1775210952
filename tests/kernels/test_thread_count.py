"""XPMLP_NUM_THREADS decides for kernels and for NumPy's BLAS, and says so."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from xpmlp.errors import ConfigError
from xpmlp.kernels import cpu_quota
from xpmlp.kernels import thread_count as module
from xpmlp.kernels.thread_count import describe_threads, limit_blas, thread_count


def processors(monkeypatch, count):
    monkeypatch.setattr(module, "cpu_quota", lambda: math.inf)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)


def test_who_decides(monkeypatch):
    processors(monkeypatch, 3)
    monkeypatch.delenv("XPMLP_NUM_THREADS", raising=False)
    assert thread_count() == (3, "processors")
    monkeypatch.setenv("XPMLP_NUM_THREADS", " 2 ")
    assert thread_count() == (2, "XPMLP_NUM_THREADS")
    monkeypatch.setenv("XPMLP_NUM_THREADS", "8")
    assert thread_count() == (3, "processors, fewer than XPMLP_NUM_THREADS")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²", "٣", "9" * 5000])
def test_no_number_of_threads(monkeypatch, text):
    monkeypatch.setenv("XPMLP_NUM_THREADS", text)
    with pytest.raises(ConfigError, match=f"number ≥ 1, got '{text[:40]}'"):
        thread_count()


GROUPS = {  # what /proc/self/cgroup says, files below /sys/fs/cgroup, processors' worth
    "version 2": ("0::/app\n", {"app/cpu.max": "150000 100000\n", "cpu.max": "max 100000"}, 1.5),
    "version 2, above": ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200 100"}, 2),
    "version 2, the strictest": ("0::/a\n", {"a/cpu.max": "9 1", "cpu.max": "3 1"}, 3),
    "version 2, own namespace": ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
    "version 1": (
        "4:memory:/m\n3:cpu,cpuacct:/docker/0\n0::/\n",
        {
            "cpu,cpuacct/docker/0/cpu.cfs_quota_us": "300000\n",
            "cpu,cpuacct/docker/0/cpu.cfs_period_us": "100000\n",
            "memory/m/cpu.max": "1 1",
        },
        3,
    ),
    "version 1, in a container": (
        "3:cpuacct,cpu:/docker/0\n",
        {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"},
        2.5,
    ),
    "version 1, no limit": (
        "1:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        math.inf,
    ),
    "rubbish": ("?\n::\n\n0::/\n", {"cpu.max": "many few words"}, math.inf),
    "not a quota": ("0::/\n", {"cpu.max": "nan 0"}, math.inf),
    "no groups": (None, {}, math.inf),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_quota_of_a_container(monkeypatch, tmp_path, name):
    groups, files, expected = GROUPS[name]
    monkeypatch.setattr(cpu_quota, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cpu_quota, "_MOUNT", tmp_path / "fs")
    if groups is not None:
        (tmp_path / "cgroup").write_text(groups)
    for path, content in files.items():
        (tmp_path / "fs" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / path).write_text(content)
    assert cpu_quota.cpu_quota() == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [(0.1, 1), (1.4, 1), (1.5, 2), (3.9, 4), (7, 7), (63, 63)]
)
def test_a_quota_decides_for_kernels_and_blas(monkeypatch, quota, expected):
    processors(monkeypatch, 64)
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    monkeypatch.delenv("XPMLP_NUM_THREADS", raising=False)
    assert thread_count() == (expected, "quota of the container")
    assert module._limits(thread_count()[1])
    monkeypatch.setenv("XPMLP_NUM_THREADS", "64")
    assert thread_count() == (expected, "quota of the container, fewer than XPMLP_NUM_THREADS")


def test_no_more_threads_than_processors_for_a_large_quota(monkeypatch):
    processors(monkeypatch, 2)
    monkeypatch.setattr(module, "cpu_quota", lambda: 16.0)
    monkeypatch.delenv("XPMLP_NUM_THREADS", raising=False)
    assert thread_count() == (2, "processors")


def test_affinity(monkeypatch):
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    monkeypatch.setattr(module, "cpu_quota", lambda: math.inf)
    monkeypatch.delenv("XPMLP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert thread_count() == (1, "processors")
    finally:
        os.sched_setaffinity(0, before)


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
