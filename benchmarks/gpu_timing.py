"""Timing on a device, over xpmlp's own interleaved rounds: many calls, then one wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from xpmlp import ops
from xpmlp.backend import synchronize
from xpmlp.bench.solver import Solver
from xpmlp.bench.timing import measure

_GROUP_SECONDS = 2e-3  # calls are made together until they take about so long


def seconds_of(
    runs: Mapping[str, Callable[[], Any]], seconds: float, wait: Callable[[], None] = synchronize
) -> dict[str, float]:
    """The median time of a call of each, calls one after the other without waiting in between.

    Each must have run before. Host and device time overlap as they do in a training.
    """
    counts = {name: _calls(run, wait) for name, run in runs.items()}
    solvers = {name: Solver(_together(run, counts[name], wait)) for name, run in runs.items()}
    timings = measure(solvers, seconds)
    return {name: t.summary()["median"] / counts[name] for name, t in timings.items()}


def _together(run: Callable[[], Any], count: int, wait: Callable[[], None]) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(count):
            run()
        wait()

    return calls


def _calls(run: Callable[[], Any], wait: Callable[[], None]) -> int:
    """How many calls fill a group."""
    run()
    wait()
    begin = time.perf_counter()
    for _ in range(3):
        run()
    wait()
    single = (time.perf_counter() - begin) / 3
    return max(1, min(200, round(_GROUP_SECONDS / max(single, 1e-7))))


def wait_for_both() -> None:
    """CuPy's stream, and torch's if torch is there."""
    synchronize()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def torch_on_cuda() -> Any:
    """torch if it sees the device, else None."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def microseconds(times: Mapping[str, float]) -> str:
    """For a table's last column."""
    return ", ".join(f"{name} {1e6 * value:.1f} µs" for name, value in times.items())


def without_kernels(run: Callable[[], Any]) -> Callable[[], Any]:
    """What CuPy alone does."""

    def reference() -> Any:
        with ops.without_kernels():
            return run()

    return reference
