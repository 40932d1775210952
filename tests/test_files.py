"""A file is written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from xpmlp.errors import CheckpointError
from xpmlp.files import expanded, write_atomically


def test_a_home_that_nobody_knows(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expanded("~/x.csv") == Path("/home/somebody/x.csv")
    assert expanded("~no such user/x.csv") == Path("~no such user/x.csv")
    assert expanded("a~b") == Path("a~b")


def test_new_and_existing_files_get_the_content(tmp_path):
    path = tmp_path / "model.bin"
    for content in (b"first", b"", b"a longer second one"):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failure_leaves_the_old_file_and_nothing_else(function, tmp_path, monkeypatch):
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(CheckpointError, match=r"model\.bin: No space left on device; choose"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "model.bin", b"new")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_are_those_of_the_old_file_or_of_any_new_one(tmp_path):
    path, usual = tmp_path / "model.bin", tmp_path / "usual"
    usual.touch()
    write_atomically(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    path.chmod(0o640)
    write_atomically(path, b"newer")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
