"""Changed and made-up files end in answers or clear errors, in time and within memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpmlp

pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
pytest.importorskip("openpyxl")
pytest.importorskip("safetensors")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")
FOLDER = Path(__file__).parent
BOMBS = [
    *("gz of zeros", "gz of a blank line", "npz of zeros", "npy that says it is large"),
    *("idx of zeros", "pickle that runs", "pickle, nested twice over", "tar of many batches"),
    *("model of wide layers", "model of many layers", "model with a deep description"),
    *("parquet of one number", "parquet of one long text", "feather of zeros"),
    *("json of other names in each", "csv of many classes", "csv with one long class"),
    *("csv of one long line", "svmlight, long and wide", "xlsx of entities"),
]


def run(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(xpmlp.__file__).parents[1])}
    command = [sys.executable, str(FOLDER / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def check(done):
    counts = json.loads(done.stdout.splitlines()[-1])["all"]
    assert set(counts) == {"clear", "accepted"}, done.stderr[-3000:]
    return sum(counts.values())


def test_some_changed_files():
    assert check(run("files.py", "300", "--seed", "1")) == 300


@pytest.mark.slow
def test_a_minute_of_changed_files():
    assert check(run("files.py", "100000", "--seed", "2", "--seconds", "60")) > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_means_harm(name):
    done = run("bombs.py", name)
    assert done.stdout.strip() in ("clear", "accepted"), done.stderr[-3000:]
