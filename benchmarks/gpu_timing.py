"""Timing on a device: many calls between two events, contestants in turns, medians.

Calls that take less than Python needs to make them are recorded into a graph, whoever's they are,
and its replays are timed: else it would be Python that is measured. How long the host is busy with
a call is measured for itself.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpmlp import ops
from xpmlp.backend import synchronize

from .gpu import sized

_GROUP_SECONDS = 2e-3  # calls are made together until they take about so long
_SMALL = sized(1, 10_000) * 300e-6  # seconds; calls that take less are recorded
_RECORDED = sized(20, 2)  # calls in a graph
_LEAST_ROUNDS, _MOST_ROUNDS = sized(5, 1), sized(60, 1)
_HOST_CALLS = sized(30, 1)  # fewer than a device's queue holds


@dataclass
class Times:
    """Seconds of a call: on the device, on the host (None if it was not measured); how timed."""

    device: float
    host: float | None = None
    recorded: bool = False


def times_of(
    runs: Mapping[str, Callable[[], Any]], seconds: float, *, record: bool = True
) -> dict[str, Times]:
    """The median time of a call of each; each must have run before.

    Names that begin with "torch" are recorded by torch, all others by xpmlp's recorder; nothing is
    recorded where it is the calls that matter, or they replay a recording themselves.
    """
    found, samples, repeats = {}, {}, {}
    for name, run in runs.items():
        single = _seconds(run, 3) / 3
        found[name] = Times(single)
        calls, replay = 1, run
        if single < _SMALL:
            found[name].host = host_seconds(run)
            recorded = recording_of(name, run) if record else None
            if recorded is not None:
                calls, replay, found[name].recorded = _RECORDED, recorded, True
        each = _seconds(replay, 2) / 2
        repeats[name] = max(1, min(200, round(_GROUP_SECONDS / max(each, 1e-7))))
        samples[name] = (replay, calls, [])
    begin = time.perf_counter()
    for number in range(_MOST_ROUNDS):
        for name, (replay, calls, values) in samples.items():
            values.append(_seconds(replay, repeats[name]) / repeats[name] / calls)
        if number + 1 >= _LEAST_ROUNDS and time.perf_counter() - begin > seconds:
            break
    for name, (_, _, values) in samples.items():
        found[name].device = float(np.median(values))
    return found


def _seconds(run: Callable[[], Any], count: int) -> float:
    """Device time of so many calls, one after the other."""
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    wait_for_both()
    begin.record()
    for _ in range(count):
        run()
    end.record()
    wait_for_both()
    return max(cupy.cuda.get_elapsed_time(begin, end) / 1e3, 1e-9)


def host_seconds(run: Callable[[], Any]) -> float:
    """How long the host needs to enqueue a call."""
    wait_for_both()
    values = []
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(_HOST_CALLS):
            run()
        values.append((time.perf_counter() - begin) / _HOST_CALLS)
        wait_for_both()
    return min(values)


def recording_of(name: str, run: Callable[[], Any]) -> Callable[[], Any] | None:
    """A graph of twenty calls, or None if they cannot be recorded."""
    if name.startswith("cupy"):  # which refuses to call cuBLAS while something is recorded
        return None
    try:
        return _torchs(run) if name.startswith("torch") else _ours(run)
    except Exception as error:
        print(f"{name} cannot be recorded, its calls are timed: {type(error).__name__}: {error}")
        traceback.print_exc()
        return None


def _ours(run: Callable[[], Any]) -> Callable[[], Any]:
    from xpmlp.kernels.cuda.graph import Recorder

    recorder, kept = Recorder(), []

    def several() -> None:
        kept[:] = [run() for _ in range(_RECORDED)]

    recorder.rehearse(several)
    replay, _ = recorder.record(several)

    def replayed(recorder: Any = recorder, kept: list = kept) -> None:  # both live as long as this
        replay()

    return replayed


def _torchs(run: Callable[[], Any]) -> Callable[[], Any]:
    import torch

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(beside)
    graph, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        kept[:] = [run() for _ in range(_RECORDED)]

    def replayed(kept: list = kept) -> None:
        graph.replay()

    return replayed


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


def device_note(times: Mapping[str, Times]) -> str:
    """Everybody's time on the device, for a table."""
    return ", ".join(
        f"{name} {1e6 * t.device:.1f} µs"
        + ("" if t.recorded or t.host is None else " (call by call)")
        for name, t in times.items()
    )


def host_note(times: Mapping[str, Times]) -> str:
    """Everybody's time on the host, where it was measured."""
    return ", ".join(
        f"{name} {1e6 * t.host:.1f} µs" for name, t in times.items() if t.host is not None
    )


def without_kernels(run: Callable[[], Any]) -> Callable[[], Any]:
    """What CuPy alone does."""

    def reference() -> Any:
        with ops.without_kernels():
            return run()

    return reference
