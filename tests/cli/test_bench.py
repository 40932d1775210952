"""``xpmlp bench`` as a person uses it. Nothing here looks at how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from xpmlp.bench import free_choice, shapes, timing
from xpmlp.bench.floors import Floors
from xpmlp.cli import main


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Two small cases and no waiting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in free_choice.FORCING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shapes, "SOFTMAX_CROSS_ENTROPY", ((6, 3), (4, 50)))
    monkeypatch.setattr(shapes, "SOFTMAX_QUICK", ((6, 3), (4, 50)))
    for name in ("TICK_SECONDS", "MOST_REST_SECONDS", "WARM_SECONDS", "GROUP_SECONDS"):
        monkeypatch.setattr(timing, name, 0.0)
    monkeypatch.setattr(Floors, "copy_speed", lambda self, moved: 1e10)
    monkeypatch.setattr(Floors, "product_speed", lambda self: 1e11)


@pytest.fixture
def bench(monkeypatch, capsys):
    """Run the command: (exit status, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["xpmlp", "bench", *arguments])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


QUICK = ("--quick", "--only", "softmax", "--peers", "numpy")


def test_a_table_json_and_a_picture_come_out(bench, tmp_path):
    status, out, err = bench(*QUICK, "--out", "b.json", "--plot", "b.svg")
    assert status == 0, err
    for text in ("softmax_cross_entropy 6×3", "NumPy alone", "of floor", "geometric mean"):
        assert text in out
    assert "threads: xpmlp" in out
    record = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert [case["name"] for case in record["cases"]] == ["6×3", "4×50"]
    assert "<svg" in (tmp_path / "b.svg").read_text(encoding="utf-8")


def test_in_a_file_no_cell_is_cut(bench, monkeypatch):
    from xpmlp.cli import app

    monkeypatch.setattr(app.console, "_width", 40)
    status, out, err = bench(*QUICK)
    assert status == 0, err
    assert "softmax_cross_entropy 6×3" in out
    assert "…" not in out


def test_missing_peers_are_on_the_screen(bench, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        "xpmlp.bench.peers.importlib.util.find_spec",
        lambda name: None if name == "thinc" else find(name),
    )
    status, out, _ = bench("--quick", "--only", "softmax", "--peers", "numpy,thinc")
    assert status == 0
    assert "thinc: missing, not installed (thinc)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "sofmax"), "there are softmax_cross_entropy, matmul"),
        (("--backends", "numpi"), "expected some of numpy, cupy, torch"),
        (("--peers", "pandas"), "expected some of numpy, torch, torch.compile, jax"),
        (("--out", "no/such/folder.json"), "in a folder that exists"),
    ],
)
def test_mistakes_end_with_one_line_before_anything_is_measured(bench, arguments, message):
    status, out, err = bench("--quick", *arguments)
    assert status == 2 and out == ""
    assert message in err and "Traceback" not in err


def test_a_wrong_result_of_ours_ends_with_status_1(bench, monkeypatch):
    monkeypatch.setattr("xpmlp.ops.softmax_cross_entropy", lambda x, y: (x.sum(), x))
    status, out, _ = bench(*QUICK)
    assert status == 1
    assert "xpmlp: WRONG RESULT" in out and "wrong" in out


def test_what_forces_another_librarys_code_is_taken_away(bench, monkeypatch):
    begun = []
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(free_choice, "problem_without", lambda: None)

    def run(command, env):
        begun.append(command)
        assert "OPENBLAS_CORETYPE" not in env
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    status, out, err = bench(*QUICK)
    assert status == 0 and out == ""
    assert "without OPENBLAS_CORETYPE=Haswell" in err
    assert begun == [[sys.executable, "-m", "xpmlp", "bench", *QUICK]]


def test_where_results_are_wrong_without_it_numpy_is_not_measured(bench, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(free_choice, "problem_without", lambda: "NumPy's product fails")
    status, out, err = bench(*QUICK)
    assert status == 0, err
    assert "without which NumPy's product fails" in err
    assert "NumPy alone: missing, left out, since OPENBLAS_CORETYPE=Haswell" in out
