"""For pytest, as ``-p benchmarks.gpu_pytest``: every result is a line in a file, at once.

The file is named by ``XPMLP_GPU_REPORT``. Tests that are in it are left out, so that a run that was
ended goes on where it was. After an error that a CUDA context does not survive it ends by itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

# What every call returns once a kernel has gone wrong, in this process and in no other.
_FATAL = ("cudaErrorIllegal", "cudaErrorLaunch", "cudaErrorMisaligned", "cudaErrorECC")
_FATAL += ("CUDA_ERROR_ILLEGAL", "CUDA_ERROR_LAUNCH")


def _report() -> Path:
    return Path(os.environ["XPMLP_GPU_REPORT"])


def read(file: Path) -> list[dict[str, Any]]:
    """The lines so far; one that is half written does not count."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def add(file: Path, test: str, outcome: str, note: str = "") -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"test": test, "outcome": outcome, "note": note[:300]}) + "\n")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    done = {line["test"] for line in read(_report())}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]
    add(_report(), "", "collected", str(len(items)))


def pytest_runtest_logstart(nodeid: str) -> None:
    add(_report(), nodeid, "started")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        add(_report(), report.nodeid, "failed", getattr(crash, "message", str(report.longrepr)))
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        add(_report(), report.nodeid, "skipped", reason)
    elif report.when == "call":
        add(_report(), report.nodeid, "passed")


@pytest.hookimpl(trylast=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> None:
    if call.excinfo is not None and any(name in str(call.excinfo.value) for name in _FATAL):
        item.session.shouldstop = "the CUDA context is lost"
