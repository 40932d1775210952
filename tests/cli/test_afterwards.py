"""What a run leaves to be looked at, and the commands that make more of it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from xpmlp.cli import export as exporting
from xpmlp.data import load_digits

QUICK = ("--epochs", "2", "--hidden", "16", "--quiet", "--no-plots")
SMALL = (*QUICK, "--members", "2", "--folds", "2", "--bins", "4")

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def write_table(path, *, regression=False, rows=80):
    rng = np.random.default_rng(0)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["<b>size</b>", "kind", "when", "goal"])
        for row in range(rows):
            x = rng.normal()
            kind = rng.choice(["<i>red</i>", "blue", ""])
            goal = round(10 * x + rng.normal(), 3) if regression else ("high" if x > 0 else "low")
            writer.writerow(
                [round(x, 3), kind, f"2024-0{1 + row % 9}-{10 + row % 7} 0{row % 10}:30", goal]
            )
    return path


def test_training_and_evaluation_leave_a_page(command, tmp_path):
    command("train", *QUICK, "--out", "run")
    page = tmp_path / "run" / "report.html"
    first = page.read_text(encoding="utf-8")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"{100 * result['test_accuracy']:.2f} %" in first
    assert "First layer" in first and "data:image/png" in first
    page.unlink()
    command("evaluate", "run")
    again = page.read_text(encoding="utf-8")
    assert again.count("<svg") == first.count("<svg") and "Worst mistakes" in again
    command("train", *QUICK, "--out", "none", "--no-report")
    command("evaluate", "none", "--no-report")
    assert not (tmp_path / "none" / "report.html").exists()


def test_another_file_has_a_page_of_its_own(command, tmp_path):
    data = load_digits()
    np.savez(tmp_path / "few.npz", x=data.x_test[:50], y=data.y_test[:50])
    command("train", *QUICK, "--out", "run")
    before = (tmp_path / "run" / "report.html").read_bytes()
    assert command("evaluate", "run", "few.npz")[0] == 0
    assert "50 rows of few.npz scored" in (tmp_path / "run" / "report-few.html").read_text("utf-8")
    assert (tmp_path / "run" / "report.html").read_bytes() == before


def test_a_table_is_told_in_its_own_words(command, tmp_path):
    write_table(tmp_path / "t.csv")
    command("train", "t.csv", *SMALL, "--out", "run")
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;size&lt;/b&gt;" in text and "<b>size" not in text
    assert "&lt;i&gt;red&lt;/i&gt;" in text and "(missing)" in text and "2024-0" in text
    assert "80 rows, 4 columns" in text


def test_warnings_are_on_the_page(tmp_path):
    """In a process of its own, since the tests' makes errors of warnings."""
    code = (
        "import warnings, sys; from xpmlp.cli import train\n"
        "kept = train._result\n"
        "def told(*a, **k):\n    warnings.warn('<u>beware</u>')\n    return kept(*a, **k)\n"
        "train._result = told\n"
        f"sys.argv = ['xpmlp', 'train', '--out', 'run', *{QUICK!r}]\n"
        "from xpmlp.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "xpmlp: <u>beware</u>" in done.stderr
    assert "<li>&lt;u&gt;beware&lt;/u&gt;</li>" in Path("run/report.html").read_text("utf-8")
    assert json.loads(Path("run/result.json").read_text())["warnings"] == ["<u>beware</u>"]


def test_a_page_that_cannot_be_written_costs_no_network(command, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no page today")

    monkeypatch.setattr("xpmlp.cli.report.report_page", broken)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        status, out, _ = command("train", *QUICK, "--out", "run")
    assert status == 0 and "test accuracy" in out
    assert any("the report is not saved: no page today" in str(w.message) for w in heard)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_report_again_and_over_several(command, tmp_path):
    write_table(tmp_path / "t.csv")
    command("train", *QUICK, "--out", "a")
    command("train", "t.csv", *SMALL, "--out", "b")
    assert command("report", "a", "--out", "page.html") == (0, "written: page.html\n", "")
    assert "Calibration" in Path("page.html").read_text("utf-8")
    status, out, _ = command("report", "a", "b", "--json")
    assert status == 0 and json.loads(out) == {"file": "comparison.html"}
    text = Path("comparison.html").read_text("utf-8")
    assert "Settings that differ" in text and text.count("<svg") > 2
    status, _, err = command("report", "a", "nowhere")
    assert status == 1 and "nowhere" in err


def test_plot_draws_one_run_and_several(command, tmp_path):
    pytest.importorskip("matplotlib")
    command("train", *QUICK, "--out", "a")
    command("train", *QUICK, "--seed", "1", "--out", "b")
    assert command("plot", "a")[0] == 0 and (tmp_path / "a" / "history.png").is_file()
    assert command("plot", "a", "b", "--out", "both.svg")[0] == 0
    assert Path("both.svg").read_text("utf-8").count("<svg") == 1
    status, _, err = command("plot", "absent")
    assert status == 1 and "history.csv" in err


IMAGES = {
    "digits": (),
    "convolutions": ("--model", "conv", "--hidden", "4,4"),
    "ensemble": ("--members", "2"),
}


@pytest.mark.parametrize("kind", [*IMAGES, "classes", "numbers", "plain numbers"])
def test_exported_networks_answer_alike(kind, command, tmp_path):
    onnx = pytest.importorskip("onnx")
    if kind in IMAGES:
        command("train", *QUICK, *IMAGES[kind], "--out", "run")
        assert "First layer" in Path("run/report.html").read_text("utf-8")
    else:
        write_table(tmp_path / "t.csv", regression="numbers" in kind)
        options = ("--members", "1", "--bins", "0") if kind.startswith("plain") else SMALL[5:]
        command("train", "t.csv", *QUICK, *options, "--out", "run")
    status, out, err = command("export", "run", "net.onnx", "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["bytes"] == Path("net.onnx").stat().st_size and told["largest_difference"] < 1e-5
    inputs = [value.name for value in onnx.load("net.onnx").graph.input]
    assert inputs == told["inputs"]
    if kind == "convolutions":
        sizes = onnx.load("net.onnx").graph.input[0].type.tensor_type.shape.dim
        assert [size.dim_value for size in sizes[1:]] == [1, 8, 8]
    if kind in ("classes", "numbers"):
        assert inputs == ["<b>size</b>", "kind", "when"]


def test_a_graph_that_answers_otherwise_is_not_written(command, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    command("train", *QUICK, "--out", "run")
    kept = exporting._run
    monkeypatch.setattr(exporting, "_run", lambda *a: (kept(*a)[0] + 0.01, "a runtime"))
    status, _, err = command("export", "run", "net.onnx")
    assert status == 1 and "nothing is written" in err and not Path("net.onnx").exists()
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, _, err = command("export", "run", "net.onnx")
    assert status == 1 and 'pip install "xpmlp[onnx]"' in err and not Path("net.onnx").exists()
    assert not list(tmp_path.glob(".*.tmp"))
