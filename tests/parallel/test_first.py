"""What one rank does before the others: downloads, for example."""

from __future__ import annotations

import time

import pytest
from parallel.ranks import run_ranks

from xpmlp.data.download import RemoteFile
from xpmlp.data.fetch import fetch
from xpmlp.errors import DataError

REMOTE = RemoteFile("rows.bin", "sha256:0", 4, ("https://example.org/rows.bin",))


def rows_in(root):
    path = root / "rows" / "rows.bin"
    return path.read_bytes() if path.is_file() else None


def load():
    return fetch("Rows", "rows", [REMOTE], rows_in, data_dir=None, allow_download=True)


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """How often the network was asked."""
    asked = []

    def download(remote, folder):
        asked.append(remote.name)
        time.sleep(0.1)  # so that others would come meanwhile
        folder.mkdir(parents=True)
        (folder / remote.name).write_bytes(b"rows")

    monkeypatch.delenv("XPMLP_DATA", raising=False)
    monkeypatch.setattr("xpmlp.data.fetch.user_cache", lambda: tmp_path)
    monkeypatch.setattr("xpmlp.data.fetch.download", download)
    return asked


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_first_rank_alone_downloads(downloads, size):
    assert run_ranks(size, lambda comm: comm.after_first(load)) == [b"rows"] * size
    assert downloads == ["rows.bin"]


def test_a_download_that_fails_is_an_error_on_all(downloads, monkeypatch):
    def fails(remote, folder):
        downloads.append(remote.name)
        raise DataError("no mirror")

    monkeypatch.setattr("xpmlp.data.fetch.download", fails)
    errors = []

    def work(comm):
        try:
            comm.after_first(load)
        except DataError as error:
            errors.append(str(error))

    run_ranks(3, work)
    assert len(errors) == 3 and len(set(errors)) == 1 and "no mirror" in errors[0]
    assert len(downloads) == 1
