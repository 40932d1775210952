"""``python -m benchmarks.report`` and the suite under pytest-benchmark."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xpmlp.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report(monkeypatch, tmp_path):
    """The module, writing into a temporary folder."""
    path = ROOT / "benchmarks" / "report.py"
    spec = importlib.util.spec_from_file_location("benchmarks_report", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(f"before\n{module.BEGIN}\nold\n{module.END}\nafter\n")
    return module


@pytest.fixture
def saved(tmp_path):
    """A record with one case, as xpmlp bench saves it."""
    timed = {"median": 2e-6, "p20": 2e-6, "p80": 2e-6, "samples": 5, "calls": 1}
    record = {
        "format": "xpmlp-bench-1",
        "date": "2026-01-02T03:04:05+00:00",
        "quick": False,
        "machine": {
            **{"cpu": "A CPU", "processors": 2, "memory_gb": 4.0},
            **{"system": "Linux x86_64", "python": "3.12.0"},
        },
        "versions": {"xpmlp": "0.1.0"},
        "backends": ["numpy"],
        "threads": {"xpmlp": "2 (processors)"},
        "missing": {},
        "floors": {"copy_gb_per_second": {}, "product_gflop_per_second": None},
        "cases": [
            {
                **{"kind": "matmul", "name": "a", "group": "ops", "floor_seconds": 1e-6},
                **{"kernels": {}, "not_run": {}, "wrong": {}},
                "results": {"xpmlp": timed, "torch": timed | {"median": 4e-6}},
            }
        ],
    }
    path = tmp_path / "run.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


ROW = "| matmul a | 2.00 µs | 2.00× | 2.00× | · |"


def test_a_record_becomes_a_page_of_results(report, saved, tmp_path):
    assert report.main([str(saved), "--name", "a-machine"]) == 0
    text = (tmp_path / "results" / "a-machine.md").read_text(encoding="utf-8")
    assert text.startswith("# a-machine\n") and ROW in text


def test_the_tables_go_between_the_marks_of_the_page(report, saved, tmp_path):
    for _ in range(2):
        assert report.main([str(saved), "--docs"]) == 0
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.startswith("before\n") and page.endswith("\nafter\n")
    assert page.count(ROW) == 1 and "old" not in page


def test_the_marks_are_on_the_real_page(report):
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "NEW TABLES" in report.put_between(page, "NEW TABLES")
    with pytest.raises(DataError, match="expected the marks"):
        report.put_between("a page without them", "")


def test_what_is_no_record_is_said(report, tmp_path, capsys):
    path = tmp_path / "other.json"
    for content in ("{", "[]", '{"format": "other"}'):
        path.write_text(content)
        assert report.main([str(path)]) == 1
        assert "expected JSON" in capsys.readouterr().err


@pytest.mark.slow
def test_the_suite_runs_under_pytest_benchmark(report, tmp_path):
    pytest.importorskip("pytest_benchmark", reason='pip install "xpmlp[bench]"')
    file = tmp_path / "pytest-benchmark.json"
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "-q", "--quick"]
    command += ["--only", "softmax_cross_entropy 128", "--contestants", "xpmlp,NumPy alone"]
    command += ["--benchmark-json", str(file), "-p", "no:cacheprovider"]
    # Without what says that this process is one of several: it would switch the timing off.
    alone = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stdout + done.stderr
    (case,) = report.read_record(file)["cases"]
    assert (case["kind"], case["name"]) == ("softmax_cross_entropy", "128×10")
    assert set(case["results"]) == {"xpmlp", "NumPy alone"}
    assert case["floor_seconds"] > 0 and case["kernels"]["xpmlp"]
