"""Parts of ``benchmarks.gpu`` that check results: tests on the device, and compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from . import gpu_pytest
from .gpu import FAILED, ROOT, Row

PLAIN_ALLOCATOR = "XPMLP_TEST_PLAIN_ALLOCATOR"
"""Tells tests/gpu to allocate each array on its own, so that a write beside one is seen."""

ONLY_LIBRARIES = "XPMLP_TEST_LIBRARIES"
"""Tells the tests which array libraries to look for: importing the others takes long."""

_FIRST = "tests/gpu/test_kernels.py"  # which the others are made of
_ORDINARY = ("tests/ops", "tests/layers", "tests/test_losses.py", "tests/test_optim.py")
_ORDINARY += ("tests/test_random.py", "tests/test_models.py", "tests/test_initializers.py")
_SANITIZED = (_FIRST, "-k", "smallest")
_LONGEST_TEST = 60.0  # seconds after which one counts as hung
_MOST_STARTS = 12
_REPORTED = 40  # failures that are listed one by one


def tests(deadline: float) -> Iterator[Row]:
    """``pytest -m gpu``: a row a file, and one for each test that failed."""
    others = sorted(f"tests/gpu/{path.name}" for path in (ROOT / "tests/gpu").glob("test_*.py"))
    files = dict.fromkeys([_FIRST, *others])
    yield from run_tests([*files, "-m", "gpu"], deadline)


def library(deadline: float) -> Iterator[Row]:
    """The tests of ops, layers and the like, with CuPy's arrays."""
    yield from run_tests([*_ORDINARY, "-k", "cupy", "-m", "not gpu"], deadline)


def sanitizer(deadline: float) -> Iterator[Row]:
    """The kernels' tests once more under compute-sanitizer, those that are small."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if tool is None:
        yield Row("memcheck", note="left out: compute-sanitizer is not installed")
        return
    checks = ("memcheck", "racecheck")
    for number, check in enumerate(checks):
        now = time.perf_counter()
        share = now + (deadline - now) / (len(checks) - number)
        # Errors that libraries provoke and handle are none.
        prefix = [tool, "--tool", check, "--error-exitcode", "9", "--report-api-errors", "no"]
        yield from run_tests(
            [*_SANITIZED, "-m", "gpu"], share, prefix=prefix, name=f"{check}: ", starts=1
        )


def run_tests(
    selection: list[str],
    deadline: float,
    *,
    prefix: list[str] | None = None,
    name: str = "",
    starts: int = _MOST_STARTS,
) -> Iterator[Row]:
    """pytest until all tests are done: in a new process after one that hangs or ends the old."""
    variables = {ONLY_LIBRARIES: "numpy,cupy", "PYTHONUNBUFFERED": "1"}
    if prefix:
        variables[PLAIN_ALLOCATOR] = "1"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report"
        variables["XPMLP_GPU_REPORT"] = str(file)
        command = [*(prefix or ()), sys.executable, "-m", "pytest", "-v", "--tb=short", *selection]
        command += ["-p", "benchmarks.gpu_pytest", "-p", "no:cacheprovider", "-o", "addopts="]
        # What libraries warn of is not for these tests to fail on.
        command += ["--import-mode=importlib", "-W", "default"]
        status = 0
        for _ in range(starts):
            status = _run(command, deadline, variables, file)
            if status in (0, 1, 5) or time.perf_counter() > deadline - 2:
                break  # all done, well or not; or no time is left
        lines = gpu_pytest.read(file)
    yield from read_report(lines, name)
    if prefix and status not in (0, 1, 5, None):
        yield Row(f"{FAILED}{name}status {status}", note="what was found is in the log")


def _run(command: list[str], deadline: float, variables: dict[str, str], file: Path) -> int | None:
    """pytest's status; None where it was ended. 2 where it ended itself before all was done."""
    print(f"===== {' '.join(command)}", flush=True)
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | variables, start_new_session=os.name == "posix"
    )
    seen, late = 0, False
    since = now = time.perf_counter()
    try:
        while process.poll() is None:
            time.sleep(0.2)
            now = time.perf_counter()
            size = file.stat().st_size if file.exists() else 0
            if size != seen:
                seen, since = size, now
            late = now > deadline - 1
            if late or now > since + _LONGEST_TEST:
                return None
        return process.returncode
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        process.wait()
        lines = gpu_pytest.read(file)
        if lines and lines[-1]["outcome"] == "started" and not late:
            why = f"did not end: status {process.returncode} after {now - since:.0f} s"
            gpu_pytest.add(file, lines[-1]["test"], "failed", why)


def read_report(lines: list[dict], name: str = "") -> Iterator[Row]:
    """Counts by file, then failures by name."""
    files: dict[str, dict[str, set[str]]] = {}
    failures = {}
    expected = next((int(line["note"]) for line in lines if line["outcome"] == "collected"), 0)
    for line in lines:
        test, outcome = line["test"], line["outcome"]
        if outcome in ("collected", "started"):
            continue
        kinds = files.setdefault(test.partition("::")[0], {})
        kinds.setdefault(outcome, set()).add(test)
        if outcome == "failed":
            failures.setdefault(test, line["note"])
    done: set[str] = set()
    for file, kinds in files.items():
        passed, failed, skipped = (kinds.get(k, set()) for k in ("passed", "failed", "skipped"))
        done |= passed | failed | skipped
        met = not failed and not skipped
        note = f"{len(failed)} failed, {len(skipped)} skipped"
        yield Row(f"{name}{file}", len(passed - failed), "passed", bar="all", met=met, note=note)
    if not expected:
        yield Row(f"{FAILED}{name}pytest", note="no test was found; see the log")
    elif len(done) < expected:
        note = f"{expected - len(done)} of {expected} tests: no time was left"
        yield Row(f"{FAILED}{name}not all tests ran", note=note)
    for test, note in list(failures.items())[:_REPORTED]:
        yield Row(f"{FAILED}{name}{test}", note=note)
    if len(failures) > _REPORTED:
        yield Row(f"{FAILED}{name}{len(failures) - _REPORTED} more", note="all are in the log")
