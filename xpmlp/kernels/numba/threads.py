"""How many threads kernels use, and how they keep out of each other's way.

Of numba's threading layers, OpenMP wakes its threads fastest: they look out for work for a while
before they sleep, which decides at parallel regions of 100 µs. But it does not survive a fork, and
the layer that does ("workqueue", the fallback) ends the process when two Python threads enter a
parallel region at once. So a kernel asks for the region first, without waiting, and runs its serial
twin when another thread has it, or in a forked child.

GNU's OpenMP, which numba has on Linux, looks out for 300,000 turns: milliseconds, in which a thread
that waits holds a core that others want too, is then put aside by the system, and keeps its team
waiting. After 20,000 turns it sleeps. With one busy process beside us on each of two cores, a step
of 784-100-10 then took 0.30 ms instead of 0.67, and 0.14 as before on free cores.

Where others want all cores, a team waits at each of a step's twenty barriers for a thread that the
system has put aside for milliseconds. So who runs the same work again and again looks at the clock
(:class:`Pace`): after a run that took twice as long as one thread would have, threads stay apart
for a while, and longer each time it is so again. Results are the same bits either way.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import threading
import warnings
from time import perf_counter

import numba

from ..thread_count import limit_blas, thread_count

if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]

_TURNS = "20000"


def _load_openmp() -> None:
    """Load GNU's OpenMP, which reads how long to look out at that moment, unless that is set."""
    own = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    if own or sys.platform != "linux" or numba.config.THREADING_LAYER not in ("default", "omp"):
        return
    os.environ["GOMP_SPINCOUNT"] = _TURNS
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:  # then numba takes another layer
        pass
    finally:
        del os.environ["GOMP_SPINCOUNT"]  # no word in the matter for other libraries


_load_openmp()

limit_blas()
_count = min(thread_count()[0], numba.config.NUMBA_NUM_THREADS)
_region = threading.Lock()
_told = threading.local()


def parallel_threads() -> int:
    """How many threads a parallel kernel runs on."""
    return _count


def enter_parallel() -> bool:
    """Whether the caller may run a parallel kernel now; it must then ``leave_parallel()``."""
    if _count == 1 or perf_counter() < _apart.until or not _region.acquire(blocking=False):
        return False
    if not hasattr(_told, "count"):  # numba keeps this number for each Python thread
        try:
            numba.set_num_threads(_count)
        except Exception as error:  # the layer that was asked for is not installed
            _serial_from_now_on()
            _region.release()
            warnings.warn(f"kernels run on one thread: {error}", stacklevel=3)
            return False
        _told.count = _count
    return True


def leave_parallel() -> None:
    """Give the parallel region back."""
    _region.release()


_ALONE_FIRST = 3  # times that work is done by one thread before several are
_LEAST, _MOST = 4, 64  # times as long apart as was lost to waiting


class _Apart:
    """Until when threads stay apart, and what that was decided by."""

    def __init__(self):
        self.until, self.stay, self.times = 0.0, 0.0, _LEAST
        self.together = 0.0  # seconds of work side by side since then, without waiting

    def begin(self, lost: float) -> None:
        """From now on, for a multiple of the seconds lost; twice as long as last time where threads
        have not worked side by side for as long as they were apart."""
        self.times = min(2 * self.times, _MOST) if self.together < self.stay else _LEAST
        self.stay, self.together = self.times * lost, 0.0
        self.until = perf_counter() + self.stay


_apart = _Apart()


class Pace:
    """How fast one thread does the same work, and whether several are worth it."""

    def __init__(self):
        self.alone, self.left = math.inf, _ALONE_FIRST

    def enter_parallel(self) -> bool:
        """As the function of this name, once it is known how long one thread takes."""
        if self.left:
            self.left -= 1
            return False
        return enter_parallel()

    def took(self, seconds: float, parallel: bool) -> None:
        """To be told each time; where threads hold each other up, they stay apart for a while."""
        if not parallel:
            self.alone = min(self.alone, seconds)
        elif seconds > 2 * self.alone:
            _apart.begin(seconds - self.alone)
        else:
            _apart.together += seconds


def _serial_from_now_on() -> None:
    """In a forked child the layer's threads were left behind, and perhaps the lock's holder."""
    global _count
    _count = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_serial_from_now_on)
