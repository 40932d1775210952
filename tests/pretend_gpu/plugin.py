"""For pytest, as ``-p pretend_device.plugin``: a test in which the device had a problem fails.

Each array has memory of its own (no pool), so that freed memory is known as such; with
``PRETEND_GPU_POOL=1`` CuPy's pool is used as it is on a real device.
"""

from __future__ import annotations

import gc
import os

import cupy
import pytest

from . import device


def pytest_configure() -> None:
    if os.environ.get("PRETEND_GPU_POOL") != "1":
        cupy.cuda.set_allocator(_own_memory)


def _own_memory(size: int) -> cupy.cuda.MemoryPointer:
    """Memory that is freed with its array; without any left, the error that a pool raises."""
    try:
        return cupy.cuda.memory._malloc(size)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status != 2:  # cudaErrorMemoryAllocation
            raise
        free, total = cupy.cuda.runtime.memGetInfo()
        raise cupy.cuda.memory.OutOfMemoryError(size, total - free) from error


def pytest_report_header() -> str:
    return "a pretend GPU: the real CuPy and NVRTC, kernels run on the CPU"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item):
    """What a test freed is looked at as well: whether something was written beside it."""
    yield
    if device.problems:
        gc.collect()
        found = "\n".join(f"{text} ({n} times)" for text, n in device.problems.items())
        device.problems.clear()
        pytest.fail(f"the device had a problem:\n{found}", pytrace=False)


def pytest_terminal_summary(terminalreporter) -> None:
    kinds = ("launch", "graph launch", "product", "cudaMalloc", "wait")
    if not device.count("launch"):  # other processes ran the tests
        return
    counts = ", ".join(f"{device.count(kind)} {kind}" for kind in kinds)
    terminalreporter.write_line(f"pretend GPU: {counts}")
