"""The whole run: contestants opened, every case checked and timed, one record at the end."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backend import NAMES, use_backend
from ..errors import BackendError, ConfigError, DataError
from . import free_choice, ours
from .cases import Case, select_cases, settings_as_json
from .floors import Floors, best_of
from .machine import describe_machine, versions
from .peers import Peer, choose_peers
from .referee import Referee, WrongResultError, check_accuracy
from .solver import Arrays, Build, NotOfferedError, Solver
from .threads import equal_threads, limit_loaded, thread_count
from .timing import Timing, measure, time_limit

FORMAT = "xpmlp-bench-1"
OURS = "xpmlp"
SECONDS, QUICK_SECONDS = 6.0, 1.5  # of timing a case, all contestants together
READY_SECONDS = 90.0  # for a compiler to get a case ready

Contestants = dict[str, dict[str, Build]]
Progress = Callable[[str], None]


def run_suite(
    *,
    backends: Sequence[str] | None = None,
    peers: str | None = None,
    only: str | None = None,
    quick: bool = False,
    seconds: float | None = None,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Measure.

    Parameters
    ----------
    backends : sequence of str, optional
        Where xpmlp itself runs. Default: NumPy, and CuPy where a device answers.
    peers : str, optional
        Names separated by commas, or ``"none"``. Default: all.
    only : str, optional
        Parts of case names, separated by commas.
    quick : bool
        Few cases, short, without the peers that compile for long.
    seconds : float, optional
        For timing each case.
    progress : callable
        Told what is going on, in words.

    Returns
    -------
    dict
        The record; see docs/benchmarks.md. Everything in it can be written as JSON.

    Raises
    ------
    ConfigError
        For unknown names; the message lists the known ones.
    BackendError
        If a backend that was asked for cannot be used.
    """
    cases = select_cases(only, quick)
    chosen, where = choose_peers(peers), _choose_backends(backends)
    count = thread_count()
    record: dict[str, Any] = {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": describe_machine(where),
        "versions": versions(),
        "backends": list(where),
    }
    with equal_threads(count) as notes:
        contestants, missing = open_contestants(where, chosen, quick, progress)
        limit_loaded(count, notes)
        record |= {"threads": notes, "missing": missing}
        floors = Floors(count)
        _add_rivals(floors)
        budget = seconds or (QUICK_SECONDS if quick else SECONDS)
        record["cases"] = []
        for number, case in enumerate(cases, 1):
            progress(f"{number}/{len(cases)} {case.title}")
            record["cases"].append(run_case(case, contestants, floors, budget))
        record["floors"] = floors.to_json()
    return record


def _choose_backends(names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return ("numpy", "cupy") if _cupy_works() else ("numpy",)
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    for name in wanted:
        if name not in NAMES:
            raise ConfigError(
                f"`xpmlp bench --backends`: expected some of {', '.join(NAMES)}, got {name!r}"
            )
        with use_backend(name):  # fails now if it cannot be used
            pass
    if not wanted:
        raise ConfigError(
            f"`xpmlp bench --backends`: expected at least one of {', '.join(NAMES)}, got none"
        )
    return wanted


def _cupy_works() -> bool:
    """Asked of CuPy alone: opening every backend would import JAX before its threads are set."""
    try:
        with use_backend("cupy"):
            return True
    except BackendError:
        return False


def our_name(backend: str) -> str:
    """What xpmlp on a backend is called in records: plain on NumPy."""
    return OURS if backend == "numpy" else f"{OURS} on {backend}"


def open_contestants(
    backends: Sequence[str], peers: dict[str, Peer], quick: bool, progress: Progress
) -> tuple[Contestants, dict[str, str]]:
    """The solvers of each contestant, ours first; and why the others are missing."""
    contestants = {our_name(backend): ours.solvers(backend) for backend in backends}
    missing = {}
    for peer in peers.values():
        if not peer.installed():
            missing[peer.title] = f"not installed ({peer.requires})"
        elif quick and peer.slow_start:
            missing[peer.title] = "left out by --quick: it compiles for long"
        elif variables := free_choice.forced(peer.requires):
            text = free_choice.as_text(variables)
            missing[peer.title] = f"left out, since {text} keeps it from its own choice of code"
        else:
            progress(f"importing {peer.requires}")
            try:
                contestants[peer.title] = peer.solvers()
            except Exception as error:  # an installation that is broken can raise anything
                missing[peer.title] = f"cannot be imported: {_in_short(error)}"
    if "cupy" in backends and "torch" in contestants:
        torch: Any = sys.modules["torch"]
        if torch.cuda.is_available():
            from .peers.torch_eager import torch_solvers

            contestants["torch on cuda"] = torch_solvers(device="cuda")
    return contestants, missing


def _add_rivals(floors: Floors) -> None:
    """Our own product counts too, and torch's where it is at hand: floors should be low, not
    flattering."""

    def in_parts(n: int) -> float:
        """Eight products of half the size, as many operations: they keep to their cores' caches."""
        a = np.ones((8, n // 2, n // 2), np.float32)
        return best_of(lambda: ops.matmul(a, a))

    def whole(n: int) -> float:
        a = np.ones((n, n), np.float32)
        return best_of(lambda: ops.matmul(a, a))

    floors.rivals += [in_parts, whole]
    torch: Any = sys.modules.get("torch")
    if torch is not None:

        def of_torch(n: int) -> float:
            a = torch.ones(n, n)
            return best_of(lambda: a @ a)

        floors.rivals.append(of_torch)


def run_case(
    case: Case, contestants: Contestants, floors: Floors, seconds: float
) -> dict[str, Any]:
    """One row: every contestant checked, then all timed against each other."""
    moved, flops = case.work()
    row: dict[str, Any] = {
        "kind": case.kind,
        "name": case.name,
        "group": case.group,
        "settings": settings_as_json(case),
        "bytes": moved and moved * case.units,
        "flops": flops and flops * case.units,
        "floor_seconds": None,
        "kernels": {},
        "results": {},
        "not_run": {},
        "wrong": {},
    }
    try:
        inputs = case.inputs()
    except DataError as error:
        row["skipped"] = str(error)
        return row
    floor = floors.seconds(moved, flops)
    row["floor_seconds"] = None if floor is None else case.units * floor
    ready = prepare(case, inputs, contestants, row)
    del inputs
    timings = _time(case, ready, seconds, row)
    row["results"] = {name: timing.summary() for name, timing in timings.items()}
    return row


def prepare(
    case: Case, inputs: Arrays, contestants: Contestants, row: dict[str, Any]
) -> dict[str, Solver]:
    """Build and check; what cannot run or is wrong goes into the row, with the reason."""
    to_check = case.for_check()
    referee = Referee(to_check, inputs)
    ready = {}
    for name, builds in contestants.items():
        if case.kind not in builds:
            continue
        try:
            with time_limit(READY_SECONDS):
                if to_check is not case:
                    referee.check(builds[case.kind](to_check, inputs))
                solver = builds[case.kind](case, inputs)
                if solver.own_clock:
                    _warm_up(solver)
                elif to_check is case:
                    referee.check(solver)
                else:
                    with solver.context():
                        solver.run()
        except NotOfferedError:
            continue
        except WrongResultError as error:
            row["wrong"][name] = str(error)
        except Exception as error:  # whatever a library raises, the others go on
            row["not_run"][name] = _in_short(error)
        else:
            ready[name] = solver
            if solver.kernels:
                row["kernels"][name] = list(solver.kernels)
    return ready


def _warm_up(solver: Solver) -> None:
    if solver.warm_up is not None:
        with solver.context():
            solver.warm_up()


def _time(
    case: Case, ready: dict[str, Solver], seconds: float, row: dict[str, Any]
) -> dict[str, Timing]:
    """Times of those that are right; a training must reach its accuracy every time."""
    wanted = None
    if case.kind == "time_to_accuracy":
        wanted = case.settings["race"].accuracy
    elif case.kind == "recipe":
        wanted = case.settings["recipe"].accuracy

    def look(name: str, result: Any) -> None:
        if wanted is not None and name not in row["wrong"]:
            try:
                check_accuracy(result["accuracy"], wanted)
            except WrongResultError as error:
                row["wrong"][name] = str(error)

    timings = measure(ready, seconds, on_result=look) if ready else {}
    return {name: timing for name, timing in timings.items() if name not in row["wrong"]}


def _in_short(error: Exception) -> str:
    """The error's kind and the first line of what it says, cut where it rambles."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"
