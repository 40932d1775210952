"""The same number of threads for everyone, and a note of what could be set and what could not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..ops import dispatch


def thread_count() -> int:
    """XPMLP_NUM_THREADS, else the processors that this process may use."""
    return dispatch.thread_count()[0]


@contextmanager
def equal_threads(count: int) -> Iterator[dict[str, str]]:
    """Inside, libraries that are imported later start with ``count`` threads.

    Call :func:`limit_loaded` once they are imported. Yields the notes that it fills. The
    environment, and limits on libraries, are put back at the end.
    """
    # NPROC is what JAX's CPU client takes its number of threads from, at its start.
    names = ("XPMLP_NUM_THREADS", "NPROC")
    before = {name: os.environ.get(name) for name in names}
    notes: dict[str, str] = {}
    limits: list[Any] = []
    notes["xpmlp"] = f"{count} ({'XPMLP_NUM_THREADS' if before[names[0]] else 'processors'})"
    if "jax" in sys.modules and before["NPROC"] != str(count):
        notes["jax"] = "not set: it was imported before"
    else:
        notes["jax"] = f"{count} (NPROC)"
    os.environ.update(dict.fromkeys(names, str(count)))
    _open_limits[id(notes)] = limits
    try:
        yield notes
    finally:
        del _open_limits[id(notes)]
        for undo in reversed(limits):
            undo()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_open_limits: dict[int, list[Any]] = {}


def limit_loaded(count: int, notes: dict[str, str]) -> None:
    """Limit the libraries that are loaded now, and write down which and how."""
    limits = _open_limits[id(notes)]
    if importlib.util.find_spec("threadpoolctl") is None:
        notes["BLAS"] = 'not set: threadpoolctl is missing, pip install "xpmlp[fast]"'
    else:
        control: Any = importlib.import_module("threadpoolctl")
        limiter = control.threadpool_limits(limits=count)
        limits.append(limiter.restore_original_limits)
        pools = [pool for pool in control.threadpool_info() if pool["user_api"] == "blas"]
        known = dict.fromkeys(
            f"{pool['num_threads']} ({pool['internal_api']} for {pool.get('architecture') or '?'})"
            for pool in pools
        )
        notes["BLAS"] = ", ".join(known) or "none found"
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        previous = torch.get_num_threads()
        torch.set_num_threads(count)
        limits.append(lambda: torch.set_num_threads(previous))
        notes["torch"] = str(torch.get_num_threads())
    if "jax" not in sys.modules:
        notes.pop("jax", None)
