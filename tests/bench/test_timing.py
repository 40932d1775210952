"""Timing: order of turns, what is inside of the clock, and limits. Never how long things take."""

from __future__ import annotations

import contextlib
import gc
import threading
import time

import pytest

from xpmlp.bench import timing
from xpmlp.bench.solver import Solver
from xpmlp.bench.timing import TooSlowError, measure, no_garbage_collection, time_limit


def test_contestants_take_turns_and_each_begins_once(hasty):
    turns = []
    solvers = {name: Solver(lambda name=name: turns.append(name) or name) for name in "abc"}
    results = []
    timings = measure(solvers, 0.3, on_result=lambda name, result: results.append((name, result)))
    order = [name for name, _ in results]
    assert order == [*"abc", *"bca", *"cab"]
    assert all(name == result for name, result in results)
    assert turns == [*"abc", *order]  # planning runs each once before all else
    assert all(len(t.seconds) == 3 for t in timings.values())


def test_a_clock_of_its_own_is_believed(hasty):
    solver = Solver(lambda: {"seconds": 7.0, "accuracy": 0.5, "epochs": 3}, own_clock=True)
    summary = measure({"it": solver}, 0.01)["it"].summary()
    assert summary["median"] == summary["p20"] == 7.0
    assert (summary["accuracy"], summary["epochs"]) == (0.5, 3.0)


def test_trainings_are_repeated_more_often_for_their_seeds_are_luck(hasty, monkeypatch):
    monkeypatch.setattr(timing, "LATE", 1e15)
    training = Solver(lambda: {"seconds": 7.0}, own_clock=True)
    assert len(measure({"it": training}, 1e-9)["it"].seconds) == 9
    groups = timing.plan(Solver(lambda: None)).groups
    assert measure({"it": Solver(lambda: None)}, 1e-9)["it"].summary()["samples"] == 3 * groups
    monkeypatch.setattr(timing, "LATE", 0)
    assert len(measure({"it": training}, 1e-9)["it"].seconds) == 1


def test_the_context_is_entered_around_runs(hasty):
    inside, seen = [], []

    @contextlib.contextmanager
    def context():
        inside.append(True)
        yield
        inside.pop()

    measure({"it": Solver(lambda: seen.append(bool(inside)), context=context)}, 0.0)
    assert seen and all(seen) and not inside


def test_garbage_is_not_collected_meanwhile(hasty):
    seen = []
    measure({"it": Solver(lambda: seen.append(gc.isenabled()))}, 0.0)
    assert gc.isenabled() and not any(seen[1:])
    with pytest.raises(ZeroDivisionError), no_garbage_collection():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_percentiles_are_those_of_the_samples():
    summary = timing.Timing(calls=2, seconds=[float(n) for n in range(11)]).summary()
    assert (summary["p20"], summary["median"], summary["p80"]) == (2.0, 5.0, 8.0)
    assert (summary["samples"], summary["calls"]) == (11, 2)


def test_rest_ends_although_a_thread_goes_on_spinning(monkeypatch):
    monkeypatch.setattr(timing, "MOST_REST_SECONDS", 0.05)
    stop = threading.Event()
    spinner = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    spinner.start()
    try:
        assert timing.come_to_rest() >= 0.05
    finally:
        stop.set()
        spinner.join()


def test_a_limit_ends_what_takes_too_long():
    with pytest.raises(TooSlowError, match=r"longer than 0\.05 s"), time_limit(0.05):
        time.sleep(5)
    with time_limit(None):
        pass
