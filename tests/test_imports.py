"""Imports point one way, libraries are named where they may be, and ``import xpmlp`` is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xpmlp

ROOT = Path(xpmlp.__file__).parent

# Low to high; a unit may import what stands on a lower line, and itself.
LEVELS = (
    ("choices", "errors"),
    ("array_libraries",),
    ("backend", "files", "kernels", "memory_budget"),
    ("capacity", "communication", "named_arrays", "npz", "options", "random"),
    ("initializers", "network_options", "schedules"),
    ("ops",),
    ("data", "layers", "losses", "optim", "penalties"),
    ("metrics", "network_members"),
    ("step",),
    ("models",),
    ("calibration", "population", "training"),
    ("units",),
    ("sweep",),
    ("ensemble",),
    ("cross_validation", "onnx", "plots", "testing", "torch_modules"),
    ("bench", "report", "sklearn"),
    ("cli",),
    ("__main__",),
)
LEVEL = {unit: height for height, units in enumerate(LEVELS) for unit in units}
ARRAY_LIBRARIES = {"numba", "cupy", "torch", "jax"}
# Peers are measured beside xpmlp, never computed with; each is named in its own file there.
PEERS = ROOT / "bench" / "peers"
HARD_DEPENDENCIES = {"numpy", "array_api_compat", "xpmlp"}
HEAVY = (
    "numba",
    "cupy",
    "torch",
    "jax",
    "matplotlib",
    "pandas",
    "rich",
    "typer",
    "sklearn",
    "pooch",
)


def modules() -> list[Path]:
    return sorted(p for p in ROOT.rglob("*.py"))


def unit_of(path: Path) -> str:
    """``layers`` for xpmlp/layers/linear.py, ``backend`` for xpmlp/backend.py, "" for the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Absolute names imported, and whether when the module is loaded (not inside a function)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("xpmlp", *path.relative_to(ROOT).parts[:-1])
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(node)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        at_load = id(node) not in inside
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from ((f"{module}.{alias.name}", at_load) for alias in node.names)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imported_units(path: Path) -> set[str]:
    found = set()
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] == "xpmlp" and len(parts) > 1:
            # A name of the root package itself, such as get_backend, comes from backend.
            found.add(parts[1] if parts[1] in LEVEL else "backend")
    return found


def test_every_unit_has_its_level():
    units = {unit_of(p) for p in modules()} - {""}
    assert units <= set(LEVEL), f"give {units - set(LEVEL)} a place in LEVELS"


def test_imports_point_one_way():
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in modules()
        if (unit := unit_of(path))
        for other in imported_units(path) - {unit}
        if LEVEL[other] >= LEVEL[unit]
    ]
    assert not wrong


def test_kernels_import_errors_only_and_are_reached_by_name():
    for path in modules():
        units = imported_units(path)
        if unit_of(path) == "kernels":
            assert units <= {"errors", "kernels"}, path
        else:
            assert "kernels" not in units, path


def test_root_imports_backend_only():
    assert imported_units(ROOT / "__init__.py") == {"backend"}


def test_nothing_but_the_command_imports_the_test_helpers():
    wrong = [p for p in modules() if unit_of(p) != "testing" and "testing" in imported_units(p)]
    assert [str(p.relative_to(ROOT)) for p in wrong] == [str(Path("cli") / "selfcheck.py")]


def test_array_libraries_are_named_in_backend_kernels_and_peers_only():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules()
        if unit_of(path) not in ("array_libraries", "backend", "kernels", "torch_modules")
        and PEERS not in path.parents
        for name, _ in imports(path)
        if name.split(".")[0] in ARRAY_LIBRARIES
    ]
    assert not wrong


def test_optional_libraries_are_imported_inside_functions():
    """The command and sklearn's estimators alone may need theirs on loading, and say so."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name} when it is loaded"
        for path in modules()
        if unit_of(path) not in ("cli", "kernels", "sklearn")
        for name, at_load in imports(path)
        if at_load and is_foreign(name)
    ]
    assert not wrong


def test_nothing_but_the_bench_command_reaches_the_peers():
    """What the library computes must not depend on libraries that it is compared with."""
    wrong = [p for p in modules() if "bench" in imported_units(p) and unit_of(p) != "bench"]
    assert [str(p.relative_to(ROOT)) for p in wrong] == [str(Path("cli") / "bench.py")]


def is_foreign(name: str) -> bool:
    top = name.split(".")[0]
    return top not in HARD_DEPENDENCIES and top not in sys.stdlib_module_names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ..models import FullyConnectedNet", {("xpmlp.models.FullyConnectedNet", True)}),
        ("from .. import ops", {("xpmlp.ops", True)}),
        ("from .base import Layer", {("xpmlp.layers.base.Layer", True)}),
        ("def f():\n    import torch.nn", {("torch.nn", False)}),
    ],
    ids=["parent", "package", "sibling", "late"],
)
def test_the_reader_of_imports_sees_them(tmp_path, monkeypatch, source, expected):
    """The tests above would pass by seeing nothing."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "layers").mkdir()
    path = tmp_path / "layers" / "linear.py"
    path.write_text(source, encoding="utf-8")
    assert set(imports(path)) == expected


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_importing_loads_nothing_heavy():
    code = f"import sys, xpmlp; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert run(code).stdout.strip() == "[]"


def test_importing_layers_and_models_loads_nothing_heavy_either():
    code = (
        "import os; os.environ['XPMLP_KERNELS'] = 'off'\n"  # numba may come with the first kernel
        "import sys, numpy as np, xpmlp.models, xpmlp.losses, xpmlp.optim, xpmlp.data\n"
        "model = xpmlp.models.FullyConnectedNet([2, 3, 2], dropout=0.5)\n"
        "model.forward(np.ones((1, 2), np.float32), training=True)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run(code).stdout.strip() == "[]"


def test_importing_takes_little_longer_than_numpy():
    """50 ms is the promise; the best of several runs keeps a busy machine from failing it."""
    times = [import_milliseconds() for _ in range(5)]
    assert min(times) < 50, times


def import_milliseconds() -> float:
    """What ``import xpmlp`` takes once NumPy is there."""
    report = run("import numpy; import xpmlp", "-X", "importtime").stderr
    found = re.search(r"\|\s*(\d+) \|\s*xpmlp$", report, re.MULTILINE)
    assert found, report[-500:]
    return int(found[1]) / 1000
