"""Units on MPI's ranks, by mpi4py.futures."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xpmlp.errors import ConfigError, MissingDependencyError
from xpmlp.units import Mpi, Pool

MPIEXEC = shutil.which(
    "mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
)
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or MPIEXEC is None,
    reason="needs xpmlp[mpi] and an MPI with mpiexec",
)
ROOT_MAY = tuple(
    f"{name}_ALLOW_RUN_AS_ROOT{more}" for name in ("OMPI", "PRTE") for more in ("", "_CONFIRM")
)


def mpiexec(count, *arguments):
    return subprocess.run(
        [MPIEXEC, "-n", str(count), sys.executable, "-m", "mpi4py.futures", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ
        | dict.fromkeys(ROOT_MAY, "1")
        | {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"},
    )


@needs_mpi
@pytest.mark.slow
def test_each_unit_once_and_a_sweep_as_here():
    done = mpiexec(3, Path(__file__).with_name("mpi_program.py"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {
        "workers": 2,
        "numbers": list(range(64)),
        "sums": [sum(range(50_000))],
        "processes": 2,
        "threads": [1],
        "tries": 64,
        "populations": [1, 1, 1],
        "same": True,
    }


@needs_mpi
@pytest.mark.slow
def test_the_command(tmp_path):
    asked = ("--lr", "1e-3,1e-2", "--hidden", "8", "--epochs", "2", "--no-plots", "--mpi")
    done = mpiexec(3, "-m", "xpmlp", "sweep", *asked, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "3 of 3 networks trained" in done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["populations"] == [1, 1, 1]


def test_one_rank_is_too_few():
    if importlib.util.find_spec("mpi4py") is None:
        with pytest.raises(MissingDependencyError, match=r"xpmlp\[mpi\]"):
            Pool(Mpi())
    else:
        with pytest.raises(ConfigError, match="at least two ranks"):
            Pool(Mpi())
