"""The structure that the pages promise: no circles, and every place of a new thing is there."""

from __future__ import annotations

import pytest
import structure

MOST_FILES = {"an activation": 8, "an optimizer": 12, "a layer with parameters": 16, "a loss": 8}


def test_no_modules_import_each_other_in_a_circle():
    assert structure.circle() == []


def test_a_circle_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(structure, "ROOT", tmp_path)
    monkeypatch.setattr(structure, "PACKAGE", tmp_path / "xpmlp")
    (tmp_path / "xpmlp").mkdir()
    for name, text in {"a": "from .b import x", "b": "from . import a", "c": "import a"}.items():
        (tmp_path / "xpmlp" / f"{name}.py").write_text(text)
    assert set(structure.circle()) == {"xpmlp.a", "xpmlp.b"}


@pytest.mark.parametrize("kind", MOST_FILES)
def test_every_place_of_a_new_thing_is_there_and_there_are_few(kind):
    files = structure.places()[kind]
    assert len(files) <= MOST_FILES[kind]
    assert [str(file) for file in files if not file.exists()] == []
