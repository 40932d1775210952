"""A file of Python cut into its functions and classes, and what it prints when it is run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LONGEST = 120  # seconds


def parts(source: str) -> Iterator[tuple[str, str]]:
    """The name and the lines of each function and class; "" is what stands before and between."""
    lines, begun, name = source.splitlines(), 0, ""
    for node in ast.parse(source).body:
        defines = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if not defines and not name:
            continue
        decorators = getattr(node, "decorator_list", ())
        first = min([node.lineno, *(one.lineno for one in decorators)]) - 1
        while lines[first - 1].startswith("#") or not lines[first - 1]:
            first -= 1  # comments that stand before it are its own
        if text := "\n".join(lines[begun:first]).strip("\n"):
            yield name, text
        begun, name = first, node.name if defines else ""
    yield name, "\n".join(lines[begun:]).strip("\n")


def printed_by(path: Path) -> str:
    """What a file prints when it is run by itself."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ran = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=_LONGEST,
        env=os.environ | {"PYTHONPATH": paths, "PYTHONUTF8": "1"},
        check=True,
    )
    return ran.stdout.strip("\n")
