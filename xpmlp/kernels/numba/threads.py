"""How many threads kernels use, and how they keep out of each other's way.

Of numba's threading layers, OpenMP wakes its threads fastest: they look out for work for a while
before they sleep, which decides at parallel regions of 100 µs. But it does not survive a fork, and
the layer that does ("workqueue", the fallback) ends the process when two Python threads enter a
parallel region at once. So a kernel asks for the region first, without waiting, and runs its serial
twin when another thread has it, or in a forked child.
"""

from __future__ import annotations

import os
import threading

import numba

from ...errors import ConfigError

if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]


def _requested() -> int:
    """XPMLP_NUM_THREADS, else the processors that this process may use."""
    text = os.environ.get("XPMLP_NUM_THREADS", "").strip()
    if not text:
        usable = getattr(os, "sched_getaffinity", None)
        return len(usable(0)) if usable else os.cpu_count() or 1
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"expected XPMLP_NUM_THREADS to be a number ≥ 1, got {text!r}")
    return int(text)


_count = min(_requested(), numba.config.NUMBA_NUM_THREADS)
_region = threading.Lock()
_told = threading.local()


def parallel_threads() -> int:
    """How many threads a parallel kernel runs on."""
    return _count


def enter_parallel() -> bool:
    """Whether the caller may run a parallel kernel now; it must then ``leave_parallel()``."""
    if _count == 1 or not _region.acquire(blocking=False):
        return False
    if not hasattr(_told, "count"):  # numba keeps this number for each Python thread
        numba.set_num_threads(_count)
        _told.count = _count
    return True


def leave_parallel() -> None:
    """Give the parallel region back."""
    _region.release()


def _serial_from_now_on() -> None:
    """In a forked child: the layer's threads were left behind, and perhaps the lock's holder."""
    global _count
    _count = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_serial_from_now_on)
