"""Parts of ``benchmarks.gpu`` that check results: the tests marked gpu, and compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from .gpu import FAILED, ROOT, Row

PLAIN_ALLOCATOR = "XPMLP_TEST_PLAIN_ALLOCATOR"
"""Tells tests/gpu to allocate each array on its own, so that a write beside one is seen."""

_SANITIZED = "tests/gpu/test_kernels.py"
_GENEROUS = 1.6  # times its equal share of what is left a file may take: most take less
_REPORTED = 20  # failures that are listed one by one


def tests(deadline: float) -> Iterator[Row]:
    """``pytest -m gpu``, file by file, so that one that hangs leaves the others' results.

    A row a file, and one for each test that failed.
    """
    files = sorted((ROOT / "tests" / "gpu").glob("test_*.py"))
    for number, file in enumerate(files):
        left = deadline - time.perf_counter()
        share = left / (len(files) - number) * _GENEROUS
        yield from _tests_of(file, time.perf_counter() + min(left, share))


def _tests_of(file: Path, deadline: float) -> Iterator[Row]:
    name = f"{FAILED}pytest {file.name}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(file)]
        command += [f"--junitxml={report}", "-p", "no:cacheprovider", "--maxfail=20"]
        command += ["-W", "default"]  # what libraries warn of is not for these tests to fail on
        try:
            ended = _run(command, deadline)
        except subprocess.TimeoutExpired:
            yield Row(name, note="not done in time")
            return
        if not report.exists():  # the interpreter itself has ended, as after a fault in a library
            yield Row(name, note=f"{ended.stderr.strip()[:200]} … {ended.stdout[-100:]}")
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
            ended = _run(command, deadline, {PLAIN_ALLOCATOR: "1"})
        except subprocess.TimeoutExpired:
            yield Row(check, note="not done in time")
            continue
        failed = "" if ended.returncode == 0 else FAILED
        found = [line for line in ended.stdout.splitlines() if line.startswith("=====")]
        yield Row(f"{failed}{check}", note=" ".join(found[-2:])[:300])


def _run(
    command: list[str], deadline: float, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    # In the part's own process group, which is ended with the part.
    left = max(1.0, deadline - time.perf_counter())
    # Else JAX, where it is installed for CUDA, takes most of the device as the tests look at it.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | (variables or {})
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=left
    )
