"""On what it was measured: processor, memory, system, and the versions of everything."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

from ..backend import use_backend

_DISTRIBUTIONS = (
    *("numpy", "numba", "llvmlite", "torch", "jax", "jaxlib", "scikit-learn", "thinc"),
    *("cupy-cuda12x", "cupy-cuda13x"),
)


def describe_machine(backends: tuple[str, ...]) -> dict[str, Any]:
    """Names and numbers as JSON can hold them."""
    usable = getattr(os, "sched_getaffinity", None)
    facts: dict[str, Any] = {
        "cpu": cpu_name(),
        "processors": len(usable(0)) if usable else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if "cupy" in backends:
        facts["gpu"] = _gpu_name()
    return facts


def versions() -> dict[str, str]:
    """xpmlp's, and those of the libraries that are installed."""
    from .. import __version__

    found = {"xpmlp": __version__}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _gpu_name() -> str:
    with use_backend("cupy") as backend:
        properties = backend.xp.cuda.runtime.getDeviceProperties(backend.device.id)
        return properties["name"].decode()
