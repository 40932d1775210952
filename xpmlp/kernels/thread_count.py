"""How many threads to use, whoever computes: ``XPMLP_NUM_THREADS``, else the processors.

Kernels, NumPy's BLAS beside them, the benchmarks and ``xpmlp info`` all ask here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

from ..errors import ConfigError

VARIABLE = "XPMLP_NUM_THREADS"
_BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NO_CONTROL = 'not set: threadpoolctl is missing, pip install "xpmlp[fast]"'


def thread_count() -> tuple[int, str]:
    """The number of threads, at most one for each processor that this process may use, and why.

    Raises
    ------
    ConfigError
        If ``XPMLP_NUM_THREADS`` is set to something else than a number ≥ 1.
    """
    usable = getattr(os, "sched_getaffinity", None)
    processors = len(usable(0)) if usable else os.cpu_count() or 1
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return processors, "processors"
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"expected {VARIABLE} to be a number ≥ 1, got {text!r}")
    if int(text) > processors:
        return processors, f"processors, fewer than {VARIABLE}"
    return int(text), VARIABLE


def limit_blas() -> None:
    """Hold BLAS to ``XPMLP_NUM_THREADS``, where that is set and threadpoolctl is installed.

    BLAS has threads of its own, which would otherwise compete with those of the kernels.
    """
    count, decided_by = thread_count()
    control = _control()
    if control is not None and decided_by == VARIABLE:
        control.threadpool_limits(limits=count, user_api="blas")


def describe_threads() -> str:
    """Who uses how many threads, and what decided it, in one line."""
    count, decided_by = thread_count()
    limit_blas()
    return f"kernels {count} ({decided_by}); BLAS {_describe_blas(decided_by == VARIABLE)}"


def _describe_blas(limited: bool) -> str:
    control = _control()
    if control is None:
        return NO_CONTROL if limited else "its own choice"
    pools = [pool for pool in control.threadpool_info() if pool["user_api"] == "blas"]
    known = dict.fromkeys(f"{pool['num_threads']} {pool['internal_api']}" for pool in pools)
    asked = [VARIABLE] if limited else [name for name in _BLAS_VARIABLES if name in os.environ]
    return f"{', '.join(known) or 'none found'} ({', '.join(asked) or 'its own choice'})"


def _control() -> Any:
    """The library that can tell BLAS how many threads to use, if installed."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return None
    return importlib.import_module("threadpoolctl")
