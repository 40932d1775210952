"""The array libraries every test of an op or layer runs on."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpmlp
from xpmlp import ops
from xpmlp.backend import NAMES, backend_problems

# JAX narrows to 32 bits unless told otherwise before its first use.
os.environ.setdefault("JAX_ENABLE_X64", "1")

TESTS = Path(__file__).parent
LIBRARIES = ("numpy", "numpy-readonly", "array_api_strict", "torch", "jax", "cupy")
ONLY = tuple(filter(None, os.environ.get("XPMLP_TEST_LIBRARIES", "").split(",")))
"""Which of them are tested and looked for; all, if there is none. Importing torch takes seconds."""


@dataclass
class Library:
    """One array library under test: how to make its arrays and look at them."""

    name: str
    xp: Any

    def array(self, values: Any, dtype: str | None = None) -> Any:
        """Values as this library's array; read-only where the library can be."""
        values = np.array(values, dtype=dtype)
        if self.name == "numpy-readonly":
            values.flags.writeable = False
            return values
        return xpmlp.asarray(values)

    def numpy(self, array: Any) -> np.ndarray:
        return xpmlp.to_numpy(array)


_problems: dict[str, str | None] = {}


def problem_of(name: str) -> str | None:
    """Why a backend is not tested, or None; found out once."""
    if ONLY and name not in ONLY:
        return f"XPMLP_TEST_LIBRARIES does not name {name}"
    if name not in _problems:
        _problems.update(backend_problems([name]))
    return _problems[name]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    """Each array library in turn, as the current backend; skipped, with the reason, if absent."""
    name = request.param.partition("-")[0]
    problem = problem_of(name)
    if problem is not None:
        pytest.skip(problem)
    with xpmlp.use_backend(name) as backend:
        yield Library(request.param, backend.xp)


@pytest.fixture
def host_library(library: Library) -> Library:
    """A library whose values are looked at: on a device that would be waited for."""
    if library.name == "cupy":
        pytest.skip("values on a device are not looked at")
    return library


@pytest.fixture
def rng() -> np.random.Generator:
    """Random test data, the same in every run."""
    return np.random.default_rng(231)


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a foreground process; where tests run in the background, it may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def without_kernels() -> Iterator[None]:
    """Every op is its reference."""
    with ops.without_kernels():
        yield


def pytest_report_header() -> list[str]:
    return [f"xpmlp backends: {', '.join(name for name in NAMES if problem_of(name) is None)}"]


SLOW = (
    *("benchmarks/test_gpu.py", "cli/test_kills.py", "fuzz", "kernels/cuda"),
    *("kernels/test_code_cache.py", "kernels/test_found_again.py", "kernels/test_random_shapes.py"),
    *("kernels/test_sources.py", "step/test_captured_kernels.py", "step/test_jitted.py"),
)
"""Files and folders that take minutes as a whole, besides single tests that are marked slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped, with the reason, where no CUDA device answers."""
    for item in items:
        if item.path.relative_to(TESTS).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    problem = problem_of("cupy")
    if problem is not None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=problem))


def pytest_collection_finish() -> None:
    """Sixteen thousand tests live to the end: looking through them was half of the time of some."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI, a library that should have been tested must be there: name them in XPMLP_REQUIRE."""
    required = [name for name in os.environ.get("XPMLP_REQUIRE", "").split(",") if name]
    missing = [name for name in required if importlib.util.find_spec(name) is None]
    if missing:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        raise pytest.UsageError(f"XPMLP_REQUIRE names libraries that are missing: {missing}")
