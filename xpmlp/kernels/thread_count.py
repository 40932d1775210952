"""How many threads to use, whoever computes: ``XPMLP_NUM_THREADS``, else the processors, as far as
a container's quota goes.

Kernels, NumPy's BLAS beside them, the benchmarks and ``xpmlp info`` all ask here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from typing import Any

from ..errors import ConfigError
from .cpu_quota import cpu_quota

VARIABLE = "XPMLP_NUM_THREADS"
QUOTA = "quota of the container"
_BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NO_CONTROL = 'not set: threadpoolctl is missing, pip install "xpmlp[fast]"'


def thread_count() -> tuple[int, str]:
    """The number of threads, at most one for each processor that this process may use, and why.

    A quota is rounded: 1.5 processors are two threads.

    Raises
    ------
    ConfigError
        If ``XPMLP_NUM_THREADS`` is set to something else than a number ≥ 1.
    """
    usable = getattr(os, "sched_getaffinity", None)
    processors, named = len(usable(0)) if usable else os.cpu_count() or 1, "processors"
    quota = cpu_quota()
    if quota + 0.5 < processors:
        processors, named = max(1, int(quota + 0.5)), QUOTA
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return processors, named
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text, re.ASCII):
        raise ConfigError(f"expected {VARIABLE} to be a number ≥ 1, got {text[:40]!r}")
    if int(text) > processors:
        return processors, f"{named}, fewer than {VARIABLE}"
    return int(text), VARIABLE


def limit_blas() -> None:
    """Hold BLAS to ``XPMLP_NUM_THREADS`` or to a quota, where threadpoolctl is installed.

    BLAS has threads of its own, which would otherwise compete with those of the kernels.
    """
    count, decided_by = thread_count()
    control = _control()
    if control is not None and _limits(decided_by):
        control.threadpool_limits(limits=count, user_api="blas")


def own_threads(count: int | None) -> None:
    """In a worker beside others: this many threads from now on; None for one, unless the variable
    says how many.

    Where two threads a worker wait for each other on cores that others use, a step takes ten times
    as long as on one.
    """
    if count is None and os.environ.get(VARIABLE, "").strip():
        return
    count = count or 1
    os.environ[VARIABLE] = str(count)
    for name in _BLAS_VARIABLES:
        os.environ.setdefault(name, str(count))
    limit_blas()
    kernels: Any = sys.modules.get("xpmlp.kernels.numba.threads")
    if kernels is not None:  # it has run some before, on all cores
        kernels._count = min(kernels._count, count)


def describe_threads() -> str:
    """Who uses how many threads, and what decided it, in one line."""
    count, decided_by = thread_count()
    limit_blas()
    return f"kernels {count} ({decided_by}); BLAS {_describe_blas(decided_by)}"


def _limits(decided_by: str) -> bool:
    return decided_by == VARIABLE or decided_by.startswith(QUOTA)


def _describe_blas(decided_by: str) -> str:
    limited = _limits(decided_by)
    control = _control()
    if control is None:
        return NO_CONTROL if limited else "its own choice"
    pools = [pool for pool in control.threadpool_info() if pool["user_api"] == "blas"]
    known = dict.fromkeys(f"{pool['num_threads']} {pool['internal_api']}" for pool in pools)
    asked = [decided_by] if limited else [name for name in _BLAS_VARIABLES if name in os.environ]
    return f"{', '.join(known) or 'none found'} ({', '.join(asked) or 'its own choice'})"


def _control() -> Any:
    """The library that can tell BLAS how many threads to use, if installed."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return None
    return importlib.import_module("threadpoolctl")
