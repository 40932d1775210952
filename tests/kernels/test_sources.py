"""Numba's cache heeds every source, and kernels work where nothing can be cached."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xpmlp

pytest.importorskip("numba")

PACKAGE = Path(xpmlp.__file__).parent
PRODUCT = """
import numpy as np
from xpmlp import ops
from xpmlp.kernels.numba import launching, products, tape
x, chosen = np.arange(24, dtype=np.uint8).reshape(6, 4), np.array([5, 0])
assert (ops.gather_rows(x, chosen, dtype="float32") == x[chosen]).all()
a = np.ones((64, 16, 16), np.float32)
assert (products.matmul(a, a) == 16).all()
print(launching._code.cache_hits + sum(function.cache_hits for function in tape._alive))
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package with no compiled code in it."""
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "site" / "xpmlp", ignore=without)
    return tmp_path / "site"


def run(site, code=PRODUCT, **environment):
    clean = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment = clean | {"PYTHONPATH": str(site)} | environment
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=site)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_compiled_code_is_found_again_until_a_source_below_it_changes(copy):
    assert run(copy) == "0"
    assert run(copy) == "3"
    folder = copy / "xpmlp" / "kernels" / "numba"
    for name, expected in (("elementary", "3"), ("tiles", "2"), ("simd", "0")):
        with (folder / f"{name}.py").open("a", encoding="utf-8") as file:
            file.write("\n# changed\n")
        assert run(copy) == expected, name
        assert run(copy) == "3", name


def test_whoever_waits_hears_of_what_was_not_in_the_cache(copy):
    """Here a gather, a product, and what runs them."""
    code = "from xpmlp import kernels\ntold = []\nkernels.on_compile = lambda: told.append(0)\n"
    for expected in ("3", "0"):
        assert run(copy, code + PRODUCT + "print(len(told))") == expected


def test_kernels_work_where_nothing_can_be_cached(copy):
    code = "from xpmlp.kernels.numba import code_cache; code_cache._places = list\n" + PRODUCT
    assert run(copy, code) == "0"
    assert not list(copy.rglob("*.nbi"))


def test_every_import_of_a_kernel_counts():
    """The reader of imports must not miss a way to write them."""
    from xpmlp.kernels.numba import sources

    for path in sources._FOLDER.glob("*.py"):
        nodes = [n for n in ast.walk(ast.parse(path.read_bytes())) if isinstance(n, ast.ImportFrom)]
        own = [n for n in nodes if n.level == 1 or (n.module or "").startswith("xpmlp")]
        names = {name for n in own for name in ([n.module] if n.module else _names(n))}
        assert set(sources._imported(path)) == names, path


def _names(node):
    return [alias.name for alias in node.names]
