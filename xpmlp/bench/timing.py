"""How long contestants take, side by side: interleaved rounds, medians, nothing else running.

Each round times every contestant once, beginning with another one each time, so that a machine that
slows down slows all of them. Two things would make such times worthless, and cost time to avoid:

- Idle workers of thread pools go on spinning, OpenBLAS's for about 0.1 s, and take a processor from
  whoever comes next. So before each sample the whole process must have come to rest.
- A pool that has slept runs its first calls on too few processors, until the system has spread its
  workers. So before each sample the contestant runs untimed for a while.

The garbage collector is off meanwhile.
"""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .solver import Solver

WARM_SECONDS = 0.04
GROUPS, GROUP_SECONDS = 5, 0.004  # a sample is so many groups of calls, each about so long
REST_SECONDS = 0.06  # what coming to rest takes about, to plan with
MOST_REST_SECONDS = 0.5
TICK_SECONDS = 0.012  # systems account for a thread that goes on running at ticks of up to 10 ms
HEAVY_SECONDS = 0.3  # calls from this length on are not repeated to warm up
LEAST_ROUNDS, MOST_ROUNDS = 3, 40
TRAININGS = 9  # of each contestant: whether a seed takes two epochs or three is luck
LATE = 8  # times over its time, a case ends with fewer than the least rounds


@dataclass
class Timing:
    """The times of one contestant in one case.

    Attributes
    ----------
    calls : int
        Calls in a group, which are timed together.
    groups : int
        Groups in a sample.
    single : float
        Seconds of one call, roughly.
    seconds : list of float
        Of one call, a value a group.
    details : list of dict
        What solvers with a clock of their own returned.
    """

    calls: int = 1
    groups: int = 1
    single: float = 0.0
    seconds: list[float] = field(default_factory=list)
    details: list[dict[str, float]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Median, 20th and 80th percentile, and how they came about."""
        low, median, high = np.percentile(self.seconds, (20, 50, 80)).tolist()
        values = {"median": median, "p20": low, "p80": high}
        values |= {"samples": len(self.seconds), "calls": self.calls}
        for name in ("accuracy", "epochs"):
            if self.details and name in self.details[0]:
                values[name] = float(np.median([detail[name] for detail in self.details]))
        return values


def measure(
    solvers: Mapping[str, Solver],
    seconds: float,
    *,
    on_result: Callable[[str, Any], None] = lambda name, result: None,
) -> dict[str, Timing]:
    """Time solvers against each other.

    Parameters
    ----------
    solvers : mapping of str to Solver
        Each has run before, so that nothing is left to compile.
    seconds : float
        About how long all of it may take. Three rounds are made in any case, and nine of
        trainings, unless they take eight times as long.
    on_result : callable
        Given the contestant's name and what ``run`` returned last, after each sample.

    Returns
    -------
    dict of str to Timing
    """
    timings = {name: plan(solver) for name, solver in solvers.items()}
    names, least = list(solvers), LEAST_ROUNDS
    most = _most_rounds(timings, seconds)
    if any(solver.own_clock for solver in solvers.values()):  # for how long is not known
        least = most = TRAININGS
    begin = time.perf_counter()
    with no_garbage_collection():
        for number in range(most):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                on_result(name, _sample(solvers[name], timings[name]))
            spent = time.perf_counter() - begin
            if spent > seconds * (1 if number + 1 >= least else LATE):
                break
    return timings


def _most_rounds(timings: Mapping[str, Timing], seconds: float) -> int:
    """As many as fit."""
    round_seconds = sum(
        REST_SECONDS + t.single * t.calls * t.groups + _warm_seconds(t) for t in timings.values()
    )
    return max(LEAST_ROUNDS, min(MOST_ROUNDS, int(seconds / round_seconds)))


def plan(solver: Solver) -> Timing:
    """How long a call takes, and so how many make a sample."""
    if solver.own_clock:
        return Timing()
    come_to_rest()
    times: list[float] = []
    with solver.context():
        while not times or (sum(times) < WARM_SECONDS and times[-1] < HEAVY_SECONDS):
            begin = time.perf_counter()
            solver.run()
            times.append(time.perf_counter() - begin)
    single = max(min(times), 1e-9)
    calls = max(1, math.ceil(GROUP_SECONDS / single))
    groups = max(1, min(GROUPS, round(GROUPS * GROUP_SECONDS / single)))
    return Timing(calls, groups, single)


def _warm_seconds(timing: Timing) -> float:
    return 0.0 if timing.single > HEAVY_SECONDS else WARM_SECONDS


def _sample(solver: Solver, timing: Timing) -> Any:
    """One contestant's turn; what its last call returned."""
    run, calls, clock = solver.run, range(timing.calls), time.perf_counter
    come_to_rest()
    with solver.context():
        if solver.own_clock:
            result = run()
            timing.seconds.append(result["seconds"])
            timing.details.append(result)
            return result
        result, warm = None, clock() + _warm_seconds(timing)
        while clock() < warm:
            run()
        for _ in range(timing.groups):
            begin = clock()
            for _ in calls:
                result = run()
            timing.seconds.append((clock() - begin) / timing.calls)
        return result


def come_to_rest() -> float:
    """Sleep until the process uses next to no processor time; how many seconds that took."""
    begin = time.perf_counter()
    while True:
        wall, used = time.perf_counter(), time.process_time()
        time.sleep(TICK_SECONDS)
        wall, used = time.perf_counter() - wall, time.process_time() - used
        waited = time.perf_counter() - begin
        if used < 0.2 * wall or waited > MOST_REST_SECONDS:
            return waited


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect once, then not again inside."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class TooSlowError(Exception):
    """What :func:`time_limit` raises."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TooSlowError inside after that many seconds, where signals can do that.

    On Windows and outside of the main thread there is no limit.
    """
    can = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not can:
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise TooSlowError(f"took longer than {seconds:g} s to get ready")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
