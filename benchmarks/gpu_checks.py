"""Parts of ``benchmarks.gpu`` that check results: the tests marked gpu, and compute-sanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from .gpu import FAILED, ROOT, Row

_SANITIZED = "tests/gpu/test_kernels.py"
_REPORTED = 20  # failures that are listed one by one


def tests(deadline: float) -> Iterator[Row]:
    """``pytest -m gpu``; a row a file, and one for each test that failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
        command += [f"--junitxml={report}", "-p", "no:cacheprovider", "--maxfail=40"]
        command += ["-W", "default"]  # what libraries warn of is not for these tests to fail on
        try:
            ended = _run(command, deadline)
        except subprocess.TimeoutExpired:
            yield Row(f"{FAILED}pytest -m gpu", note="not done in time")
            return
        if not report.exists():
            yield Row(f"{FAILED}pytest -m gpu", note=ended.stdout[-400:])
            return
        yield from read_report(report)


def read_report(report: Path) -> Iterator[Row]:
    """Counts by file, then failures by name."""
    files: dict[str, list[int]] = {}
    failures = []
    for case in ElementTree.parse(report).iter("testcase"):
        counts = files.setdefault(case.get("classname", "?"), [0, 0, 0])
        problem = next((c for c in case if c.tag in ("failure", "error")), None)
        skipped = case.find("skipped") is not None
        counts[1 if problem is not None else 2 if skipped else 0] += 1
        if problem is not None:
            name = f"{case.get('classname')}::{case.get('name')}"
            failures.append(Row(f"{FAILED}{name}", note=(problem.get("message") or "")[:300]))
    for name, (passed, failed, skipped) in files.items():
        note = f"{failed} failed, {skipped} skipped"
        yield Row(name, passed, "passed", bar="all", met=failed == 0 and skipped == 0, note=note)
    if not files:
        yield Row(f"{FAILED}pytest -m gpu", note="no test was found")
    yield from failures[:_REPORTED]


def sanitizer(deadline: float) -> Iterator[Row]:
    """The kernels' tests once more under compute-sanitizer, those that are small."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if tool is None:
        yield Row("memcheck", note="left out: compute-sanitizer is not installed")
        return
    for check in ("memcheck", "racecheck"):
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-m", "pytest"]
        command += ["-q", "-x", "-m", "gpu", _SANITIZED, "-k", "smallest", "-p", "no:cacheprovider"]
        command += ["-W", "default"]
        try:
            ended = _run(command, deadline)
        except subprocess.TimeoutExpired:
            yield Row(check, note="not done in time")
            return
        failed = "" if ended.returncode == 0 else FAILED
        found = [line for line in ended.stdout.splitlines() if line.startswith("=====")]
        yield Row(f"{failed}{check}", note=" ".join(found[-2:])[:300])


def _run(command: list[str], deadline: float) -> subprocess.CompletedProcess[str]:
    left = max(1.0, deadline - time.perf_counter())
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left)
