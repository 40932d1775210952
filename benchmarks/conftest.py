"""xpmlp's cases (``xpmlp/bench``) under pytest-benchmark: one test a case and contestant.

Each contestant is built and checked before it is timed, and waits for its device inside of the
timed call. ``--quick`` takes few cases, ``--only`` parts of their names, ``--contestants`` who.
pytest-benchmark runs one test after the other; figures to be quoted come from ``xpmlp bench``,
which lets contestants take turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from xpmlp.bench import Case, select_cases
from xpmlp.bench.floors import Floors
from xpmlp.bench.machine import describe_machine, versions
from xpmlp.bench.peers import PEERS
from xpmlp.bench.solver import Build, Solver
from xpmlp.bench.suite import open_contestants, prepare
from xpmlp.bench.threads import equal_threads, limit_loaded, thread_count
from xpmlp.bench.timing import GROUP_SECONDS, HEAVY_SECONDS, come_to_rest, plan
from xpmlp.errors import DataError

ROUNDS, HEAVY_ROUNDS = 25, 3


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xpmlp")
    group.addoption("--quick", action="store_true", help="few cases, no compiling peers")
    group.addoption("--only", help="parts of case names, separated by commas")
    group.addoption("--contestants", help="such as xpmlp,torch (default: all that are installed)")


def pytest_configure(config: pytest.Config) -> None:
    # Other libraries warn about themselves; here that is not ours to fail on.
    config.addinivalue_line("filterwarnings", "default")


def names() -> list[str]:
    return ["xpmlp", *(peer.title for peer in PEERS.values())]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case of the module's ``GROUP``, with every contestant."""
    config = metafunc.config
    quick, only = config.getoption("--quick"), config.getoption("--only")
    wanted = config.getoption("--contestants")
    chosen = names() if wanted is None else [name.strip() for name in wanted.split(",")]
    unknown = set(chosen) - set(names())
    if unknown:
        raise pytest.UsageError(f"--contestants: expected some of {names()}, got {unknown}")
    cases = [case for case in select_cases(only, quick) if case.group == metafunc.module.GROUP]
    pairs = [(case, name) for case in cases for name in chosen]
    ids = [f"{case.title}-{name}" for case, name in pairs]
    metafunc.parametrize(("case", "contestant"), pairs, ids=ids)


@pytest.fixture(scope="session")
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[dict, dict[str, str], dict]]:
    """All contestants with equal threads; why others are missing; the threads, in words."""
    quick = request.config.getoption("--quick")
    with equal_threads(thread_count()) as notes:
        contestants, missing = open_contestants(["numpy"], PEERS, quick, lambda text: None)
        limit_loaded(thread_count(), notes)
        yield contestants, missing, notes


@pytest.fixture(scope="session")
def floors() -> Floors:
    return Floors(thread_count())


@pytest.fixture
def run_case(benchmark: Any, opened: tuple, floors: Floors) -> Callable[[Case, str], None]:
    """Check a contestant in a case, then time it."""

    def run(case: Case, name: str) -> None:
        contestants, missing, threads = opened
        if name in missing:
            pytest.skip(f"{name}: {missing[name]}")
        builds: dict[str, Build] = contestants[name]
        if case.kind not in builds:
            pytest.skip(f"{name} has nothing for {case.kind}")
        try:
            inputs = case.inputs()
        except DataError as error:
            pytest.skip(str(error))
        row: dict[str, Any] = {"wrong": {}, "not_run": {}, "kernels": {}}
        solver = prepare(case, inputs, {name: builds}, row).get(name)
        assert not row["wrong"], row["wrong"]
        if solver is None:
            pytest.skip(f"{name} did not run: {row['not_run'].get(name, 'not offered')}")
        benchmark.group = case.title
        moved, flops = case.work()
        floor = floors.seconds(moved, flops)
        benchmark.extra_info.update(
            contestant=name,
            kind=case.kind,
            case=case.name,
            case_group=case.group,
            floor_seconds=None if floor is None else floor * case.units,
            kernels=row["kernels"].get(name, []),
            threads=threads,
            missing=missing,
            versions=versions(),
            machine=describe_machine(("numpy",)),
        )
        _time(benchmark, solver)

    return run


def _time(benchmark: Any, solver: Solver) -> None:
    if solver.own_clock:
        with solver.context():
            # What is timed here includes the tests between epochs; the solver's own clock does not.
            result = benchmark.pedantic(solver.run, rounds=1)
        benchmark.extra_info["own_clock"] = result
        return
    single = plan(solver).single
    calls = max(1, math.ceil(GROUP_SECONDS / single))
    heavy = single > HEAVY_SECONDS
    come_to_rest()
    with solver.context():
        benchmark.pedantic(
            solver.run,
            rounds=HEAVY_ROUNDS if heavy else ROUNDS,
            iterations=calls,
            warmup_rounds=0 if heavy else 10,
        )
