"""``xpmlp sweep`` on several processes, killed and gone on with, and in shards."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xpmlp.cli.sweeping import executor_of, parse_shard
from xpmlp.errors import ConfigError
from xpmlp.units import Dask, Mpi, Processes

GRID = ("--lr", "1e-3:1e-1:log:4", "--weight-decay", "0,0.1", "--hidden", "8", "--seeds", "2")
REST = ("--quiet", "--no-plots")
LINE = [
    *(sys.executable, "-m", "xpmlp", "sweep", *GRID, "--epochs", "20", *REST),
    *("--processes", "2", "--save-every", "0", "--out"),
]

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def rows_of(folder):
    with open(Path(folder) / "sweep.csv") as file:
        return list(csv.DictReader(file))


def same_end(ours, theirs):
    for name in ("sweep.csv", "model.safetensors"):
        assert Path(ours, name).read_bytes() == Path(theirs, name).read_bytes(), name
    assert {p.name for p in Path(ours).iterdir()} == {p.name for p in Path(theirs).iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that nobody disturbs."""
    folder = tmp_path_factory.mktemp("sweeps") / "whole"
    subprocess.run([*LINE, folder], check=True)
    rows = rows_of(folder)
    assert len(rows) == 18 and len({(row["setting"], row["seed"]) for row in rows}) == 18
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_that_are_stopped_go_on_to_the_same_table(number, command, whole):
    process = subprocess.Popen([*LINE, "run"])
    while not (Path("run/sweep.csv").is_file() and len(rows_of("run")) >= 4):
        assert process.poll() is None
        time.sleep(0.02)
    workers = children_of(process.pid)
    assert len(workers) >= 2 or sys.platform != "linux"
    process.send_signal(number)
    assert process.wait() == (-number if number == signal.SIGKILL else 128 + number)
    there = [row for row in rows_of("run") if row["ending"] == "finished"]
    assert 4 <= len(there) < 18 and all(row in rows_of(whole) for row in there)
    for _ in range(100):  # its processes end with it
        time.sleep(0.05)
        if not any(map(runs, workers)):
            break
    assert not any(map(runs, workers))
    status, _, err = command("sweep", "--resume", "run", *REST, "--processes", "2")
    assert status == 0, err
    same_end("run", whole)
    result = json.loads(Path("run/result.json").read_text())
    assert len(result["populations"]) == 9 and result["failed"] == 0


def children_of(process):
    """The processes that it has started, where the system tells."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == process and state != "Z":
                found.append(file)
    return found


def runs(stat):
    with contextlib.suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
def test_shards_are_merged_into_what_one_sweep_would_be(command, whole):
    asked = ("sweep", *GRID, "--epochs", "20", *REST)
    shards = ("shard-1", "shard-2")
    for part, shard in enumerate(shards, 1):
        status, _, err = command(*asked, "--shard", f"{part}/2", "--out", shard)
        assert status == 0, err
    rows = [tuple(row.values()) for shard in shards for row in rows_of(shard)]
    assert sorted(rows) == sorted(tuple(row.values()) for row in rows_of(whole))
    status, _, err = command("merge", *shards, "--out", "merged", *REST)
    assert status == 0 and "were not finished" not in err, err
    same_end("merged", whole)
    # One is missing, and trained.
    status, _, err = command("merge", "shard-1", *REST)
    assert status == 0 and "4 of 9 populations were not finished; they are trained now" in err
    same_end("runs/merged-1", whole)
    # Others are refused.
    other = ("sweep", "--lr", "0.1", "--epochs", "1", *REST, "--shard", "1/2", "--out", "other")
    assert command(*other)[0] == 0
    refused = {"other": "axes", str(whole): "a shard, with checkpoints/plan", "none": "config.json"}
    for wrong, message in refused.items():
        status, _, err = command("merge", "shard-1", wrong, "--out", "not")
        assert status == 1 and message in err and not Path("not").exists(), err


def test_only_one_executor_and_good_shards(command):
    assert executor_of(3, None, False) == Processes(3)
    assert executor_of(None, "tcp://a:1", False) == Dask("tcp://a:1")
    assert executor_of(None, None, True) == Mpi() and executor_of(None, None, False) is None
    with pytest.raises(ConfigError, match="one of"):
        executor_of(3, "tcp://a:1", False)
    assert parse_shard(" 2/4 ") == (2, 4)
    for wrong in ("0/2", "3/2", "2", "a/b", "-1/2"):
        with pytest.raises(ConfigError, match="--shard"):
            parse_shard(wrong)
    status, _, err = command("sweep", "--lr", "0.1", "--epochs", "1", *REST, "--shard", "3/3")
    assert status == 2 and "at most" in err and not list(Path("runs").iterdir())
