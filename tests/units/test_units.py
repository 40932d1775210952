"""Units of work: each done once, in processes, threads and here; what is lost comes again."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import unit_work as work

from xpmlp.errors import ConfigError, DataError, MissingDependencyError
from xpmlp.units import Dask, Pool, Processes, Units, shared_data, worker

SPAWN = functools.partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))


@pytest.fixture(scope="module")
def processes():
    with Pool(Processes(2)) as pool:
        yield pool


def results(function, units, data, pool):
    """By number; each comes once."""
    outcomes = list(Units(function, units, data, pool))
    assert sorted(o.number for o in outcomes) == list(range(len(units)))
    return {o.number: o.result if o.failure is None else o.failure for o in outcomes}


@pytest.fixture
def data():
    return {"x": np.arange(100_000.0)}


def test_everywhere_the_same(data, processes):
    expected = results(work.add, range(7), data, None)
    assert expected[3] == data["x"].sum() + 3
    with ThreadPoolExecutor(2) as threads, Pool(threads) as pool:
        assert results(work.add, range(7), data, pool) == expected
    assert results(work.add, range(7), data, processes) == expected


def test_workers_have_their_share_of_the_cores(processes):
    found = results(work.where, range(6), None, processes).values()
    assert len({process for process, *_ in found}) == 2
    assert all(rest == [processes.threads, str(processes.threads)] for _, *rest in found)


def test_arrays_are_mapped_and_never_shared_for_writing(tmp_path, processes):
    np.save(tmp_path / "own.npy", np.arange(40_000.0).reshape(400, 100))
    mapped = np.load(tmp_path / "own.npy", mmap_mode="r")
    x = np.arange(30_000.0).reshape(300, 100)
    data = {
        "plain": x,
        "columns": np.asfortranarray(x),
        "strided": x[:, ::2],
        "mapped": mapped,
        "part": mapped[100:300],
        "view": np.asarray(mapped)[7:200],
        "small": np.arange(3.0),
    }
    first, _ = results(work.kinds, range(2), data, processes).values()
    for name, array in data.items():
        kind, columns, path, total = first[name]
        assert kind == "ndarray" and total == array.sum(), name
        assert columns == array.flags.f_contiguous or array.ndim == 1
        assert (path == str(tmp_path / "own.npy")) == (name in ("mapped", "part", "view")), name
    assert np.array_equal(x, np.arange(30_000.0).reshape(300, 100))
    assert np.load(tmp_path / "own.npy")[0, 1] == 1.0
    assert not list(Path(shared_data.tempfile.gettempdir()).glob("xpmlp-units-*/stop"))


def test_data_are_sent_where_files_are_not_seen(data, processes, monkeypatch):
    monkeypatch.setattr(shared_data.SharedData, "write", lambda self: None)
    assert results(work.add, range(5), data, processes)[4] == data["x"].sum() + 4


def test_a_file_that_has_changed_is_not_taken(tmp_path):
    file = tmp_path / "x.npy"
    np.save(file, np.zeros(40_000))
    mapped = np.load(file, mmap_mode="r")
    shared = shared_data.SharedData(mapped)
    shared.write()
    with shared_data._lock:
        del shared_data._held[shared.ticket.key]
    file.unlink()
    np.save(file, np.ones(40_000))
    with pytest.raises(shared_data.DataMissing):
        shared.ticket.claim()
    shared.close()
    assert not Path(shared.ticket.folder).exists()


@pytest.mark.slow
@pytest.mark.parametrize("make", ["processes", "loky"])
def test_a_pool_that_breaks_is_made_anew(make, tmp_path):
    """One kills its worker each time, one once; the others are done, and none too often."""
    if make == "loky":
        loky = pytest.importorskip("loky", reason="needs loky")
        make = functools.partial(loky.get_reusable_executor, 2)
    else:
        make = SPAWN
    with Pool(make) as pool:
        found = results(work.die, [(str(tmp_path), n) for n in range(6)], {1: 9, 4: 1}, pool)
    assert {n: value for n, value in found.items() if n != 1} == {0: 0, 2: 2, 3: 3, 4: 4, 5: 5}
    assert found[1].startswith("failed: ") and "terminated" in found[1].lower()
    tries = Counter(file.name[0] for file in tmp_path.iterdir())
    assert tries["1"] == 3 and tries["4"] == 2 and sum(tries.values()) <= 11


@pytest.mark.slow
def test_a_given_executor_that_breaks_fails_what_is_left(tmp_path):
    with SPAWN() as executor, Pool(executor) as pool:
        found = results(work.die, [(str(tmp_path), n) for n in range(6)], {1: 1}, pool)
    failed = [value for value in found.values() if isinstance(value, str)]
    assert failed and all("given as a function" in value for value in failed)


def test_what_fails_is_tried_twice_more(tmp_path):
    with ThreadPoolExecutor(2) as threads, Pool(threads) as pool:
        found = results(work.fail, [(str(tmp_path), n) for n in range(5)], {1: 2, 3: 3}, pool)
    assert found[1] == 1 and found[3] == "failed: OSError: no luck"
    tries = Counter(file.name[0] for file in tmp_path.iterdir())
    assert tries == {"0": 1, "1": 3, "2": 1, "3": 3, "4": 1}


def test_the_librarys_own_errors_end_all(processes):
    with pytest.raises(DataError, match="expected numbers"):
        results(work.refuse, range(3), None, None)
    with pytest.raises(DataError, match="expected numbers"):
        results(work.refuse, range(3), None, processes)
    with pytest.raises(ConfigError, match="can be pickled"):
        results(lambda data, unit: unit, range(3), None, processes)
    with pytest.raises(ConfigError, match="that workers can import"):
        results(work.unknown, range(3), None, processes)


def test_another_version_is_refused(monkeypatch, processes):
    monkeypatch.setattr(worker.Task.__new__, "__defaults__", ("0.0.other",))
    with pytest.raises(ConfigError, match=r"workers with xpmlp 0\.0\.other, got one with"):
        results(work.add, range(2), {"x": 1}, processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_what_has_not_begun(number, tmp_path, processes):
    units = Units(work.wait, [(str(tmp_path), n) for n in range(8)], None, processes)

    def press():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=press).start()
    found = [outcome.result for outcome in units]
    assert units.ending.startswith("interrupted") and found == ["asked", "asked"]
    assert len(list(tmp_path.iterdir())) == 2
    # The workers are there for others.
    assert results(work.add, range(2), {"x": 1.0}, processes) == {0: 1.0, 1: 2.0}


def test_who_leaves_early_leaves_nothing(tmp_path):
    with ThreadPoolExecutor(1) as threads, Pool(threads) as pool:
        for outcome in Units(work.fail, [(str(tmp_path), n) for n in range(9)], {}, pool):
            assert outcome.number == 0
            break
    assert len(list(tmp_path.iterdir())) < 9
    assert not shared_data._held


@pytest.mark.parametrize("wrong", [3, "processes", lambda: 3])
def test_what_is_no_executor_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"concurrent\.futures\.Executor"):
        Pool(wrong)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_numbers_of_processes(count):
    with pytest.raises(ConfigError, match="≥ 1"):
        Processes(count)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"xpmlp\[dask\]"):
        Pool(Dask("tcp://127.0.0.1:1"))


def test_a_ticket_is_small(data):
    shared = shared_data.SharedData(data)
    assert len(pickle.dumps(shared.ticket)) < 300
    shared.close()
