"""Wrong arguments end in clear errors or in answers, wherever they are given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpmlp

pytest.importorskip("sklearn")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")


def run(count, seed):
    environment = {**os.environ, "PYTHONPATH": str(Path(xpmlp.__file__).parents[1])}
    program = str(Path(__file__).parent / "arguments.py")
    command = [sys.executable, program, str(count), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_some_wrong_arguments():
    counts, told = run(400, 1)
    assert set(counts) <= {"clear", "accepted", "python"}, told[-3000:]
    assert counts["clear"] > 200
