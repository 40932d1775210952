"""Programs run in a process of their own whose compiler is told to use narrower vectors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpmlp

# Name of a CPU, its features that matter here, the width to expect, dtypes to compile.
NARROWER = {
    "avx2": ("haswell", "avx,avx2,fma,sse4.2,bmi,bmi2", "256", ["float32", "float64"]),
    "128-bit": ("sandybridge", "avx,fma,sse4.2", "128", ["float32"]),
    "generic": ("generic", "", "128", ["float32"]),  # x86-64 as it was at first: no multiply-adds
}


def run_narrower(case: str, program: str) -> None:
    """Run ``program WIDTH DTYPE…``, which says "done" at the end; skip what this CPU cannot run."""
    import llvmlite.binding

    name, features, bits, dtypes = NARROWER[case]
    host = llvmlite.binding.get_host_cpu_features()
    wanted = features.split(",") if features else []
    if not all(host.get(feature) for feature in wanted):
        pytest.skip(f"this CPU cannot run code for {name}")
    asked = ",".join(f"+{feature}" for feature in wanted)
    told = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": asked}
    folders = Path(xpmlp.__file__).parents[1], Path(program).parent
    done = subprocess.run(
        [sys.executable, program, bits, *dtypes],
        env={**os.environ, **told, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "done"
