"""Downloads from a local server: whole and checked, or not there at all."""

import builtins
import errno
import gzip
import os
import threading

import pytest

import xpmlp.data.download as module
from xpmlp.data.download import RemoteFile, download
from xpmlp.errors import DataError, MissingDependencyError

DATA = bytes(range(256)) * 4000  # about 1 MB: several chunks
FAST = (2.0, 0.2)


def names(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_file_arrives_whole(tmp_path, server, capsys):
    path = download(server.remote("f.gz", DATA), tmp_path / "new" / "folder")
    assert path.read_bytes() == DATA
    assert names(path.parent) == ["f.gz"]
    assert "f.gz: 100 %" in capsys.readouterr().err


def test_present_file_is_not_asked_for(tmp_path, server):
    remote = server.remote("f", DATA)
    (tmp_path / "f").write_bytes(b"here already")
    assert download(remote, tmp_path).read_bytes() == b"here already"
    assert server.requests == []


@pytest.mark.parametrize("kind", ["missing", "wrong", "long"])
def test_next_mirror_is_tried(tmp_path, server, kind):
    server.behaviour["a"] = kind
    path = download(server.remote("f", DATA, mirrors=("a", "b")), tmp_path)
    assert path.read_bytes() == DATA and names(tmp_path) == ["f"]
    assert [p for p, _ in server.requests] == ["/a/f", "/b/f"]


def test_a_host_that_does_not_answer_is_passed_over(tmp_path, server):
    good = server.remote("f", DATA)
    dead = "http://127.0.0.1:9/f"  # the discard port: nobody listens
    remote = RemoteFile("f", good.digest, good.size, (dead, *good.urls))
    assert download(remote, tmp_path, timeout=FAST).read_bytes() == DATA


@pytest.mark.parametrize("kind", ["missing", "wrong", "long"])
def test_useless_mirrors_leave_nothing_and_are_all_named(tmp_path, server, kind):
    reason = {"missing": "HTTP 404", "wrong": "another hash", "long": "more than the file's"}[kind]
    server.behaviour.update(a=kind, b=kind)
    with pytest.raises(DataError) as caught:
        download(server.remote("f", DATA, mirrors=("a", "b")), tmp_path)
    assert f"{server.url}/a/f: " in str(caught.value) and f"{server.url}/b/f: " in str(caught.value)
    assert str(caught.value).count(reason) == 2
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["short", "no-length"])
def test_truncated_answers_are_continued(tmp_path, server, kind):
    # Each answer breaks off half-way: three tries of one mirror reach 7/8, the next goes on there.
    server.behaviour["a"] = kind
    path = download(server.remote("f", DATA, mirrors=("a", "b")), tmp_path)
    assert path.read_bytes() == DATA and names(tmp_path) == ["f"]
    n = len(DATA)
    asked = [r for _, r in server.requests]
    assert asked == [None, f"bytes={n // 2}-", f"bytes={n * 3 // 4}-", f"bytes={n * 7 // 8}-"]


@pytest.mark.parametrize("kind", ["short", "slow"])
def test_interrupted_download_leaves_only_the_part_and_is_resumed(tmp_path, server, kind):
    remote = server.remote("f", DATA)
    server.behaviour["a"] = kind
    with pytest.raises(DataError, match="mirrors to serve it"):
        download(remote, tmp_path, timeout=FAST)
    assert names(tmp_path) == ["f.part"]
    have = (tmp_path / "f.part").stat().st_size
    assert 0 < have < len(DATA)
    server.behaviour["a"] = "ok"
    assert download(remote, tmp_path).read_bytes() == DATA
    assert server.requests[-1][1] == f"bytes={have}-"
    assert names(tmp_path) == ["f"]


def test_keyboard_interrupt_leaves_only_the_part(tmp_path, server, monkeypatch):
    def interrupt(self, total):
        if total > len(DATA) // 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module._Progress, "show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(server.remote("f", DATA), tmp_path)
    assert names(tmp_path) == ["f.part"]
    assert DATA.startswith((tmp_path / "f.part").read_bytes())


def test_server_without_ranges_starts_over(tmp_path, server):
    remote = server.remote("f", DATA)
    (tmp_path / "f.part").write_bytes(DATA[:1000])
    server.behaviour["a"] = "no-range"
    assert download(remote, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("stale", [b"\xff" * 1000, b"\xff" * len(DATA), b"\xff" * (len(DATA) + 9)])
def test_stale_part_is_thrown_away_and_the_mirror_asked_again(tmp_path, server, stale):
    (tmp_path / "f.part").write_bytes(stale)
    assert download(server.remote("f", DATA), tmp_path).read_bytes() == DATA
    assert names(tmp_path) == ["f"]


def test_complete_part_needs_no_network(tmp_path, server):
    remote = server.remote("f", DATA)
    (tmp_path / "f.part").write_bytes(DATA)
    assert download(remote, tmp_path).read_bytes() == DATA
    assert server.requests == []


def test_stored_bytes_are_those_on_the_server_whatever_it_calls_them(tmp_path, server):
    packed = gzip.compress(DATA)
    server.behaviour["a"] = "encoded"
    assert download(server.remote("f.gz", packed), tmp_path).read_bytes() == packed


@pytest.mark.parametrize("code", sorted({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}))
def test_full_disk_is_named_and_leaves_nothing_under_the_final_name(
    tmp_path, server, monkeypatch, code
):
    real = module._open_part

    class Full:
        def __init__(self, file):
            self.file, self.room = file, len(DATA) // 2

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def write(self, chunk):
            self.room -= len(chunk)
            if self.room < 0:
                raise OSError(code, os.strerror(code))
            return self.file.write(chunk)

    with monkeypatch.context() as patch, pytest.raises(DataError, match="disk is full") as caught:
        patch.setattr(module, "_open_part", lambda part, start: Full(real(part, start)))
        download(server.remote("f", DATA, mirrors=("a", "b")), tmp_path)
    assert "f.part" in str(caught.value)
    assert names(tmp_path) == ["f.part"]
    assert len(server.requests) == 1  # another mirror would not help
    assert download(server.remote("f", DATA), tmp_path).read_bytes() == DATA


def test_folder_that_cannot_be_made_is_a_data_error(tmp_path, server):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="folder that can be written"):
        download(server.remote("f", DATA), tmp_path / "file" / "folder")


def test_two_downloads_at_once_both_end_with_the_whole_file(tmp_path, server):
    remote = server.remote("f", DATA)
    results = []

    def work():
        results.append(download(remote, tmp_path).read_bytes() == DATA)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True, True] and names(tmp_path) == ["f"]


def test_without_pooch_the_message_names_extra_place_and_address(tmp_path, server, monkeypatch):
    real = builtins.__import__

    def no_pooch(name, *args, **kwargs):
        if name == "pooch":
            raise ImportError("No module named 'pooch'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pooch)
    with pytest.raises(MissingDependencyError) as caught:
        download(server.remote("f", DATA), tmp_path)
    for text in ('pip install "xpmlp[cli]"', str(tmp_path / "f"), f"{server.url}/a/f"):
        assert text in str(caught.value)
    assert names(tmp_path) == []
