"""How long OpenMP's threads look out for work, and when threads do not share work at all."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba")

from xpmlp.kernels.numba import threads
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.training import TrainStep


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another OpenMP")
@pytest.mark.parametrize(("own", "expected"), [({}, "20000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_waiting_threads_sleep_soon_unless_told_otherwise(own, expected):
    pytest.importorskip("numba.np.ufunc.omppool")
    code = (
        "import os, xpmlp.kernels.numba.threads, numba.np.ufunc.omppool\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = clean | {"OMP_DISPLAY_ENV": "verbose"} | own
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr
    assert done.stdout.split() == [str(own.get("GOMP_SPINCOUNT"))]  # nothing is left behind


@pytest.fixture
def clock(monkeypatch):
    """Seconds of a clock that stands still until a test moves it, and two threads that are free."""
    seconds = [100.0]
    monkeypatch.setattr(threads, "perf_counter", lambda: seconds[0])
    monkeypatch.setattr(threads, "_count", 2)
    monkeypatch.setattr(threads, "_told", SimpleNamespace(count=2))
    monkeypatch.setattr(threads, "_apart", threads._Apart())
    return seconds


def works(pace, seconds, clock):
    """One run by a pace; whether it was parallel."""
    parallel = pace.enter_parallel()
    if parallel:
        threads.leave_parallel()
    clock[0] += seconds
    pace.took(seconds, parallel)
    return parallel


def test_threads_stay_apart_after_they_held_each_other_up(clock):
    pace = threads.Pace()
    assert [works(pace, 1e-3, clock) for _ in range(4)] == [False, False, False, True]
    assert works(pace, 1.9e-3, clock) and works(pace, 1e-4, clock)  # slow, but not for long
    assert works(pace, 6e-3, clock)  # 5 ms more than one thread takes
    apart = 0
    while not works(pace, 1e-3, clock):
        apart += 1
    assert apart == 4 * 5
    assert not threads.Pace().enter_parallel()


def test_they_stay_apart_longer_where_it_is_always_so(clock):
    pace, stays = threads.Pace(), []
    for _ in range(3):
        works(pace, 1e-3, clock)
    for _ in range(7):
        before = clock[0]
        while not works(pace, 1e-3 if clock[0] < threads._apart.until else 6e-3, clock):
            pass
        stays.append(round((clock[0] - before) / 1e-3) - 6)
    assert stays == [0, 20, 40, 80, 160, 320, 320]
    while not works(pace, 1e-3, clock):
        pass
    for _ in range(1000):  # side by side for as long as they were apart
        assert works(pace, 5e-4, clock)
    works(pace, 6e-3, clock)
    assert threads._apart.stay == pytest.approx(20e-3)


def test_every_kernel_keeps_to_one_thread_meanwhile(clock):
    assert threads.enter_parallel()
    threads.leave_parallel()
    threads._apart.begin(1.0)
    assert not threads.enter_parallel()
    clock[0] += 4.1
    assert threads.enter_parallel()
    threads.leave_parallel()


def test_the_same_bits_apart_and_together(monkeypatch, rng):
    x, y = rng.normal(size=(200, 300)).astype(np.float32), rng.integers(0, 7, 200)
    found = []
    for until in ([math.inf] * 8, [0.0] * 8, [0.0, math.inf] * 4):
        model = FullyConnectedNet([300, 90, 7], seed=0)
        step = TrainStep(model, SoftmaxCrossEntropy(), Adam(0.01))
        for each in until:
            monkeypatch.setattr(threads._apart, "until", each)
            step(x, y)
        found.append(np.concatenate([value.ravel() for value in model.params.values()]))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
