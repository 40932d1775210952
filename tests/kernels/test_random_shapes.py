"""Random shapes for every op with a kernel, most of which fit together: kernel against reference.

In processes of their own, since a kernel that was handed shapes which do not fit may write beside
its arrays. They compile for this CPU, and for x86-64 as it was at first, without multiply-adds of
one rounding: there a sum that the compiler reorders gives other results.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import random_ops
from narrower import run_narrower

import xpmlp

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')


def test_kernels_and_references_agree_on_results_and_on_what_is_legal():
    root = Path(xpmlp.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, random_ops.__file__, "0", "float32", "float64", "--calls", "3000"],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "done"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["generic", "avx2"])
def test_the_same_compiled_for_other_cpus(case):
    run_narrower(case, random_ops.__file__)
