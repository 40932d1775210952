"""No kernel reads or writes beside its arrays, by an op or in a compiled step.

Programs whose NumPy arrays begin, or end, beside memory that nobody may touch: a fault ends them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import random_ops

import xpmlp

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="maps pages as Linux does")

PLACES = "end", "begin"
TESTS = Path(__file__).parents[1]
BESIDE = "import guarded_memory as g; g.install({0!r}); g.touch_the_byte_beside({0!r})"


def run(*command):
    folders = Path(xpmlp.__file__).parents[1], TESTS, TESTS / "step"
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
    )


def check(*command):
    done = run(*command)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert done.stdout.strip() == "done"


@pytest.mark.parametrize("place", PLACES)
def test_a_byte_too_far_is_a_fault(place):
    assert run("-c", BESIDE.format(place)).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("place", PLACES)
def test_ops_stay_inside_their_arrays(place):
    check(random_ops.__file__, 0, "float32", "float64", "--calls", 400, "--guard", place)


@pytest.mark.parametrize("place", PLACES)
def test_compiled_steps_stay_inside_their_arrays(place):
    check(TESTS / "step" / "guarded_steps.py", place, "--examples", 10)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_many_more_stay_inside_their_arrays(place):
    options = "--calls", 4_000, "--seed", 1, "--guard", place
    check(random_ops.__file__, 0, "float32", "float64", *options)
    check(TESTS / "step" / "guarded_steps.py", place, "--examples", 60)
