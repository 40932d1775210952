"""Units on a Dask cluster of processes, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
import warnings
from collections import Counter

import numpy as np
import pytest
import unit_work as work

from xpmlp.data import load_digits
from xpmlp.errors import ConfigError, WorkerError
from xpmlp.sweep import Settings, expand, sweep
from xpmlp.units import Dask, Pool, Units

distributed = pytest.importorskip("distributed", reason="needs xpmlp[dask]")
dask = pytest.importorskip("dask")
pytestmark = [
    pytest.mark.slow,
    # Of Dask itself: what it says of a lost worker, and sockets that it leaves to the collector.
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore:::distributed.*"),
]


@pytest.fixture
def cluster():
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as own,
    ):
        yield own


def test_each_unit_once_though_a_worker_is_killed(cluster, tmp_path):
    data = {"x": np.arange(50_000.0), "pause": 0.02}
    with Pool(Dask(cluster.scheduler_address)) as pool:
        assert pool.workers == 2
        units = [(str(tmp_path), n) for n in range(64)]
        outcomes, killed = [], False
        for outcome in Units(work.note, units, data, pool):
            outcomes.append(outcome)
            if len(outcomes) == 8:
                os.kill(outcome.result[1], signal.SIGKILL)
                killed = True
    assert killed and sorted(o.number for o in outcomes) == list(range(64))
    assert all(o.failure is None and o.result[0] == data["x"].sum() for o in outcomes)
    # What was lost with the worker was done again by the other; nothing else was.
    tries = Counter(file.name.partition("-")[0] for file in tmp_path.iterdir())
    assert len(tries) == 64 and sum(tries.values()) < 64 + 12
    assert {o.result[2] for o in outcomes} == {1}  # threads


def test_a_unit_that_kills_its_workers_fails_alone(cluster, tmp_path):
    with Pool(Dask(cluster.scheduler_address)) as pool:
        units = [(str(tmp_path), n) for n in range(6)]
        found = {o.number: o.failure or o.result for o in Units(work.die, units, {1: 99}, pool)}
    assert found.pop(1).startswith("failed: ")
    assert found == {n: n for n in (0, 2, 3, 4, 5)}


def test_a_sweep_is_what_it_is_here(cluster):
    digits = load_digits()
    x = (digits.x_train / 16.0).reshape(-1, 64).astype(np.float32)
    grid = expand({"lr": [1e-3, 1e-2, 3e-2]}, Settings(hidden=(8,), epochs=2))
    given = (x[:300], digits.y_train[:300], (x[300:400], digits.y_train[300:400]), grid)
    with distributed.Client(cluster.scheduler_address) as client:
        found = sweep(*given, outputs=10, executor=client.get_executor())
        assert client.status == "running"  # it is not ours to close
    assert found.populations == [1, 1, 1]
    for number, own in enumerate(grid):
        alone = sweep(*given[:3], [own], outputs=10)
        assert alone.trials[0].scores == found.trials[number].scores


def test_no_worker_is_an_error_in_words(monkeypatch):
    monkeypatch.setattr("xpmlp.units.pool._WAIT", 0.5)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as empty,
        Pool(Dask(empty.scheduler_address)) as pool,
        pytest.raises(WorkerError, match="a worker of the Dask scheduler"),
    ):
        list(Units(work.add, [1], {"x": 1.0}, pool))


def test_no_scheduler_is_an_error_in_words():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ConfigError, match="address of a Dask scheduler"),
    ):
        Pool(Dask("tcp://127.0.0.1:9"))
