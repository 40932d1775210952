"""Two ranks train what one process does: with a GPU each by NCCL, or through host memory."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("rank_program.py")
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
        reason="needs mpiexec and mpi4py: pip install mpi4py mpich",
    ),
]


def run(ranks: int, by: str, path: Path) -> list[dict[str, np.ndarray]]:
    environment = os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PYTHONPATH": os.pathsep.join([str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [str(MPIEXEC), "-n", str(ranks), sys.executable, str(PROGRAM), by, str(path)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pretend GPU" not in done.stderr, done.stderr  # where it has said what is wrong
    found = []
    for rank in range(ranks):
        with np.load(f"{path}-{rank}.npz") as file:
            found.append(dict(file))
    return found


WAYS = {"nccl": "captured", "host": "layer by layer (arrays are summed through host memory)"}


@pytest.mark.parametrize("by", WAYS)
def test_two_ranks_train_what_one_process_does(cupy, tmp_path, by):
    pretend = importlib.util.find_spec("pretend_device")  # there each process has a device
    if by == "nccl" and not pretend and (count := cupy.cuda.runtime.getDeviceCount()) < 2:
        pytest.skip(f"needs two GPUs, found {count}")
    (one,) = run(1, by, tmp_path / "one")
    two = run(2, by, tmp_path / "two")
    assert one.pop("way") == "captured"
    for found in two:
        assert found.pop("way") == f"{WAYS[by]}, summed over 2 ranks"
        assert found.keys() == one.keys()
        for name, array in one.items():
            atol = 1e-9 * max(1e-3, np.abs(array).max())
            np.testing.assert_allclose(found[name], array, rtol=0, atol=atol, err_msg=name)
    for name, array in two[0].items():
        np.testing.assert_array_equal(two[1][name], array, err_msg=name)
