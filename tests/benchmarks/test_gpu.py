"""``python -m benchmarks.gpu``: what it does where there is no device, and when a part fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_checks
from xpmlp.backend import backend_problems

ROOT = Path(__file__).parents[2]
HAS_DEVICE = backend_problems()["cupy"] is None


@pytest.mark.skipif(HAS_DEVICE, reason="a CUDA device answers")
def test_without_a_device_it_says_so_and_fails(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--results", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "there is nothing to measure on" in ended.stderr and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_part_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--only", "nonsense"])
    assert "tests, sanitizer, floors" in capsys.readouterr().err


def test_the_parts_fit_into_eight_minutes_and_exist():
    import ast

    assert sum(part.seconds for part in gpu.PARTS) <= gpu.TOTAL_SECONDS < 480
    for part in gpu.PARTS:
        module, _, function = part.target.partition(":")
        tree = ast.parse((ROOT / "benchmarks" / f"{module}.py").read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def part(name, seconds=30.0):
    return gpu.Part(name, name.capitalize(), f"gpu_checks:{name}", seconds)


@pytest.fixture
def fake_run(monkeypatch):
    """Parts that write what they are told, in place of processes."""

    def install(behaviours):
        def run(command, timeout, **options):
            name = command[command.index("--part") + 1]
            rows, returncode, late = behaviours[name]
            if rows is not None:
                outcome = gpu.Outcome([gpu.Row(row, 1.0, "s") for row in rows])
                file = Path(command[command.index("--to") + 1])
                file.write_text(json.dumps(gpu.asdict(outcome)))
            if late:
                raise subprocess.TimeoutExpired(command, timeout)
            return subprocess.CompletedProcess(command, returncode, "", "one\ntwo\nthree\n")

        monkeypatch.setattr(gpu.subprocess, "run", run)

    return install


def test_a_part_that_fails_or_hangs_leaves_the_others_and_what_it_had(fake_run):
    ends = {"good": (["a", "b"], 0, False), "killed": (["c"], -6, False)}
    fake_run(ends | {"slow": (["d"], 0, True), "silent": (None, 1, False)})
    names = ("killed", "slow", "silent", "good")
    outcomes = gpu.run_parts([part(name) for name in names], 400)
    assert [row.what for row in outcomes["good"].rows] == ["a", "b"] and outcomes["good"].passed
    assert [row.what for row in outcomes["killed"].rows] == ["c"]
    assert outcomes["killed"].problem == "Killed: two / three" and not outcomes["killed"].passed
    assert "not done after" in outcomes["slow"].problem and len(outcomes["slow"].rows) == 1
    assert not outcomes["silent"].passed


def test_time_that_is_left_over_goes_to_later_parts(fake_run, monkeypatch):
    limits = {}
    fake_run({name: ([], 0, False) for name in "abc"})
    run = gpu.subprocess.run

    def noted(command, timeout, **options):
        limits[command[command.index("--part") + 1]] = round(timeout)
        return run(command, timeout=timeout, **options)

    monkeypatch.setattr(gpu.subprocess, "run", noted)
    gpu.run_parts([part("a", 50), part("b", 30), part("c", 20)], 150)
    assert limits == {"a": 100, "b": 130, "c": 150}
    assert gpu.run_apart(part("a"), 2).problem == "A: no time was left"


def test_a_part_in_its_own_process_keeps_rows_and_says_what_went_wrong(tmp_path, monkeypatch):
    from contextlib import nullcontext

    def some(deadline):
        yield gpu.Row("first", 1.0)
        yield gpu.Row(f"{gpu.FAILED}second")
        raise ValueError("no more")

    monkeypatch.setattr(gpu_checks, "tests", some)
    monkeypatch.setattr(gpu, "use_backend", lambda name: nullcontext())
    gpu.run_here("tests", 10, tmp_path / "o.json")
    outcome = gpu.read_outcome(tmp_path / "o.json")
    assert [row.what for row in outcome.rows] == ["first", "FAILED second"]
    assert not outcome.passed and outcome.problem == "Tests marked gpu: ValueError: no more"


def test_rows_are_kept_before_a_part_is_killed(tmp_path, monkeypatch):
    from contextlib import nullcontext

    def some(deadline):
        yield gpu.Row("first", 1.0)
        raise SystemExit  # nothing after it gets to run

    monkeypatch.setattr(gpu_checks, "tests", some)
    monkeypatch.setattr(gpu, "use_backend", lambda name: nullcontext())
    with pytest.raises(SystemExit):
        gpu.run_here("tests", 10, tmp_path / "o.json")
    assert [row.what for row in gpu.read_outcome(tmp_path / "o.json").rows] == ["first"]


def test_reports_of_pytest_are_read(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="gpu.test_a" name="x"/>'
        '<testcase classname="gpu.test_a" name="y"><failure message="off by 3"/></testcase>'
        '<testcase classname="gpu.test_b" name="z"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    a, b, failed = gpu_checks.read_report(report)
    assert (a.value, a.met, a.note) == (1, False, "1 failed, 0 skipped")
    assert (b.value, b.met) == (0, False)
    assert failed.what == "FAILED gpu.test_a::y" and failed.note == "off by 3"
    report.write_text("<testsuites/>")
    assert [row.what for row in gpu_checks.read_report(report)] == ["FAILED pytest -m gpu"]


def test_the_page_shows_every_figure_beside_its_bar():
    rows = [gpu.Row("step", 71.3, "µs", "≤ 80 µs", True), gpu.Row("b|c", bar="≥ 4×", note="gone")]
    record = {
        "date": "2026-11-21",
        "machine": {"gpu": "NVIDIA H100", "driver": "580.1"},
        "versions": {"cupy-cuda12x": "14.2"},
        "parts": {"step": gpu.asdict(gpu.Outcome(rows, False, "Step: broke", 3.0))},
    }
    text = gpu.markdown(record)
    assert "| step | 71.3 µs | ≤ 80 µs | yes | · |" in text
    assert "| b/c | · | ≥ 4× | · | gone |" in text
    assert "**Step: broke**" in text and "- driver: 580.1" in text and "# NVIDIA H100" in text


def test_pytest_finds_the_gpu_tests_by_their_mark():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "--collect-only"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert found.returncode == 0 and "deselected" not in found.stdout
    assert "smallest" in found.stdout
