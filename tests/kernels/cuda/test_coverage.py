"""Every line of every kernel was executed by the other tests of this folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from kernels.cuda.driver import KERNELS

from xpmlp.kernels.cuda import source

WITHOUT_SHIM = {"test_compile.py", "test_geometry.py", "test_instructions.py", "test_source.py"}


def executed_lines(folder: Path) -> dict[tuple[str, int], int]:
    """How often each line of the sources and headers ran, over all builds."""
    counts: dict[tuple[str, int], int] = defaultdict(int)
    for data in sorted(folder.glob("*.gcda")):
        command = ["gcov", "--json-format", "--stdout", data.name]
        result = subprocess.run(command, cwd=folder, capture_output=True, check=True)
        for file in json.loads(result.stdout)["files"]:
            path = Path(file["file"])
            if path.suffix in (".cu", ".cuh"):
                for line in file["lines"]:
                    counts[path.name, line["line_number"]] += line["count"]
    return counts


def test_every_line_of_every_kernel_ran(request, shim):
    tests = {path.name for path in Path(__file__).parent.glob("test_*.py")} - WITHOUT_SHIM
    missing = tests - {item.path.name for item in request.session.items}
    chosen = request.config.option.keyword or any("::" in a for a in request.config.args)
    shared = hasattr(request.config, "workerinput")  # with other processes, by pytest-xdist
    if missing or chosen or shared or shutil.which("gcov") is None:
        pytest.skip("needs gcov, and all other tests of this folder before it in one process")
    shim.close()
    counts = executed_lines(shim.counts)
    seen = {name for name, _ in counts}
    assert {f"{op}.cu" for op in source.OPS} <= seen
    silent = [
        f"{name}:{line}: {(KERNELS / name).read_text().splitlines()[line - 1].strip()}"
        for (name, line), count in sorted(counts.items())
        if count == 0
    ]
    assert not silent, "\n".join(silent)
    macros = re.compile(r"^KERNEL\(|^UPDATE\(|^GATHER\(|^LAYOUT|^LANES|^BLOCKS_OF|^PRODUCT\(")
    for op in source.OPS:
        for number, line in enumerate((KERNELS / f"{op}.cu").read_text().splitlines(), 1):
            if macros.match(line):
                assert counts[f"{op}.cu", number] > 0, f"{op}.cu:{number} was never launched"
