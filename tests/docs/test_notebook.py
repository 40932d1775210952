"""The notebook runs from its first cell to its last, in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
NOTEBOOK = Path(__file__).parents[2] / "docs" / "lab.ipynb"


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def run(path):
    """All code in one namespace, as a kernel would; the number of cells."""
    codes = ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]
    namespace: dict = {"__name__": "notebook"}
    for number, code in enumerate(codes):
        exec(compile(code, f"{path.name}, cell {number}", "exec"), namespace)
    return len(codes)


def test_the_lab_runs_and_checks_its_own_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(NOTEBOOK) > 8
    assert "test accuracy 9" in capsys.readouterr().out


def test_no_outputs_are_stored():
    """The build of the pages makes them, so that they are never old."""
    assert not any(cell.get("outputs") for cell in cells(NOTEBOOK))


def test_a_wrong_gradient_in_the_lab_is_found(tmp_path):
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "(p - t) / len(x)" in text
    wrong = tmp_path / "wrong.ipynb"
    wrong.write_text(text.replace("(p - t) / len(x)", "(p - t)"), encoding="utf-8")
    with pytest.raises(AssertionError):
        run(wrong)
