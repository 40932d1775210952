"""The quickstart's commands run as they are written, one after another, from an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"
# Those that download, install, need another library, or have tests of their own.
LEFT_OUT = re.compile(r"mnist|cifar10|^pip |^XPMLP_BACKEND|selfcheck")


def commands() -> list[list[str]]:
    """Each as its words, comments left out."""
    lines = re.findall(r"^\$ (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines if not LEFT_OUT.search(line)]


@pytest.mark.slow
def test_commands_of_the_quickstart_run(tmp_path):
    for library in ("sklearn", "pandas", "matplotlib", "onnx"):
        pytest.importorskip(library)
    environment = os.environ | {"PYTHONPATH": str(PAGE.parents[1])}
    environment.pop("XPMLP_BACKEND", None)
    ran = 0
    for first, *rest in commands():
        program = {"xpmlp": ["-m", "xpmlp"], "python": []}[first]
        done = subprocess.run(
            [sys.executable, *program, *rest],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (first, rest, done.stderr)
        ran += 1
    assert ran > 8 and (tmp_path / "network.onnx").stat().st_size > 0
