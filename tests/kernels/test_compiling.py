"""Signals and forks while numba compiles leave everything usable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("numba")

import xpmlp
from xpmlp.kernels.numba.compiling import undisturbed

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_for_the_end(name):
    done = []

    @undisturbed
    def compile():
        undisturbed(os.kill)(os.getpid(), getattr(signal, name))  # one function calls another
        done.append("compiled")

    def stop(number, frame):
        raise InterruptedError(number)

    before = signal.signal(getattr(signal, name), stop)
    try:
        with pytest.raises(InterruptedError):
            compile()
        assert done == ["compiled"]
        assert signal.getsignal(getattr(signal, name)) is stop
        undisturbed(done.append)("once more")
    finally:
        signal.signal(getattr(signal, name), before)


def test_signals_that_nobody_handles_are_left_alone():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        seen = []
        undisturbed(lambda: seen.append(signal.getsignal(signal.SIGTERM)))()
        assert seen == [signal.SIG_DFL]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_there_are_none():
    seen = []
    thread = threading.Thread(target=undisturbed(lambda: seen.append(1)))
    thread.start()
    thread.join()
    assert seen == [1]


COMPILE = """
import numpy as np, os, signal, sys, threading, time, traceback
from numba import njit
from numba.core import event
from xpmlp.kernels.numba.sources import compiled
def work(x):
    total = 0.0
    for i in range(x.shape[0]):
        total += np.exp(x[i]) + np.sin(x[i])
    return total
x = np.ones(9)
started = threading.Event()
class Listen(event.Listener):
    def on_start(self, e): started.set()
    def on_end(self, e): pass
event.register("numba:run_pass", Listen())
"""
FORK = """
def other():
    function = compiled(work, parallel=True)
    function(x)
thread = threading.Thread(target=other)
thread.start()
started.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    assert compiled(lambda x: x + 1)(1) == 2
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.join()
"""
INTERRUPT = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
first = compiled(work)
def interrupt():
    started.wait()
    time.sleep(float(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    first(x)
    time.sleep(2)
except KeyboardInterrupt:
    print("interrupted")
assert abs(first(x) - 9 * (np.exp(1) + np.sin(1))) < 1e-9
assert abs(compiled(work)(x) - first(x)) < 1e-9
"""


def run(code, *arguments, folder):
    root = str(Path(xpmlp.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "NUMBA_CACHE_DIR": str(folder)}
    path = folder / "program.py"
    path.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(path), *arguments],
        **{"env": environment, "capture_output": True, "text": True, "timeout": 120},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@posix
@pytest.mark.slow
def test_a_fork_while_another_thread_compiles(tmp_path):
    run(COMPILE + FORK, folder=tmp_path)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("delay", ["0", "0.05", "0.2"])
def test_an_interrupt_while_it_compiles(tmp_path, delay):
    assert run(COMPILE + INTERRUPT, delay, folder=tmp_path) == "interrupted\n"


def test_the_collector_is_back_afterwards():
    import gc

    seen = []
    undisturbed(lambda: seen.append(gc.isenabled()))()
    assert seen == [False] and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        undisturbed(lambda: 1 / 0)()
    assert gc.isenabled()
