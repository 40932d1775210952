"""``xpmlp info``: what would run here, and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from typing import Any

from .. import __version__, get_backend
from ..backend import NAMES, backend_problems
from ..data.fetch import user_cache
from ..ops.dispatch import kernel_summary, thread_summary

_EXTRAS = {
    "numba": "fast",
    "cupy": "cuda12 or cuda13",
    "torch": "torch",
    "jax": "jax",
    "pandas": "cli",
    "pyarrow": "cli",
    "pooch": "cli",
    "safetensors": "cli",
    "matplotlib": "cli",
    "sklearn": "sklearn",
    "onnx": "onnx",
}


def collect() -> dict[str, Any]:
    """Everything ``xpmlp info`` prints, as JSON-able values."""
    backend = get_backend()
    problems = backend_problems()
    return {
        "xpmlp": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": backend.name,
        "device": backend.place or "cpu",
        "why": backend.reason,
        "kernels": kernel_summary(backend.name),
        "threads": thread_summary(),
        "backends": {
            name: f"ready, version {_version(name)}" if problems[name] is None else problems[name]
            for name in NAMES
        },
        "libraries": {name: _library(name, extra) for name, extra in _EXTRAS.items()},
        "data": [os.environ.get("XPMLP_DATA") or "XPMLP_DATA is not set", str(user_cache())],
    }


def _library(name: str, extra: str) -> str:
    if importlib.util.find_spec(name) is None:
        return f"missing (extra {extra})"
    return _version(name)


def _version(name: str) -> str:
    for distribution in importlib.metadata.packages_distributions().get(name, ()):
        return importlib.metadata.version(distribution)
    return "unknown version"
