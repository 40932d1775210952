"""Where data is looked for, and what is said when it cannot be had."""

import sys
from pathlib import Path

import numpy as np
import pytest

from xpmlp.data import fetch as fetch_module
from xpmlp.data import load_cifar10, load_fashion_mnist, load_mnist, mnist
from xpmlp.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "xpmlp"
    monkeypatch.setattr(fetch_module, "user_cache", lambda: folder)
    return folder


def test_user_cache_is_the_one_pooch_uses(monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.undo()
    assert fetch_module.user_cache() == Path(pooch.os_cache("xpmlp"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not use XDG_CACHE_HOME")
def test_user_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch_module.user_cache() == tmp_path / "xpmlp"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has LOCALAPPDATA")
def test_without_a_home_the_error_says_where_data_may_lie(monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.undo()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XPMLP_DATA", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(DataError, match="/nonexistent"):
        load_mnist(download=False)


@pytest.fixture
def mirrored(server, tmp_path, monkeypatch, mnist_files):
    """MNIST's registry pointed at the local server, which serves a small data set."""
    arrays = mnist_files(tmp_path / "upstream")
    remotes = tuple(
        server.remote(r.name, (tmp_path / "upstream" / r.name).read_bytes(), ("a", "b"))
        for r in mnist._MNIST.remotes
    )
    small = type(mnist._MNIST)(**{**vars(mnist._MNIST), "remotes": remotes})
    monkeypatch.setattr(mnist, "_MNIST", small)
    return arrays


def test_nothing_local_downloads_into_the_cache_once(mirrored, server, cache):
    data = load_mnist()
    np.testing.assert_array_equal(data.x_train, mirrored["train-images-idx3"])
    assert len(list((cache / "mnist").iterdir())) == 4
    count = len(server.requests)
    load_mnist()
    assert len(server.requests) == count == 4


def test_only_missing_files_are_downloaded(mirrored, server, cache):
    load_mnist()
    (cache / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    server.requests.clear()
    load_mnist()
    assert [path for path, _ in server.requests] == ["/a/t10k-labels-idx1-ubyte.gz"]


def test_an_interrupted_set_is_never_half_loaded(mirrored, server, cache):
    server.behaviour.update(a="short", b="short")
    with pytest.raises(DataError):
        load_mnist()
    assert [p.name for p in (cache / "mnist").iterdir()] == ["train-images-idx3-ubyte.gz.part"]
    server.behaviour.clear()
    np.testing.assert_array_equal(load_mnist().y_test, mirrored["t10k-labels-idx1"])


def test_damaged_file_in_the_cache_is_named(mirrored, cache):
    load_mnist()
    path = cache / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-images.*damaged") as caught:
        load_mnist()
    assert str(path) in str(caught.value)


def test_download_false_does_not_touch_the_network(mirrored, server):
    with pytest.raises(DataError, match="download=True"):
        load_mnist(download=False)
    assert server.requests == []


def test_named_folder_without_files_warns_before_downloading(mirrored, tmp_path):
    with pytest.warns(UserWarning, match="no such folder"):
        load_mnist(tmp_path / "typo")


@pytest.mark.parametrize(
    ("load", "folder", "files", "hosts"),
    [
        (load_mnist, "mnist", 4, ("ossci-datasets", "cvdf-datasets")),
        (load_fashion_mnist, "fashion-mnist", 4, ("eu-central-1.amazonaws", "zalandoresearch")),
        (load_cifar10, "cifar10", 1, ("cs.toronto.edu",)),
    ],
)
def test_no_network_says_what_to_put_where(cache, load, folder, files, hosts):
    # The suite's guard refuses every host but this one: what a machine without a network does.
    with pytest.raises(DataError) as caught:
        load()
    message = str(caught.value)
    assert message.count(str(cache / folder)) >= files
    assert all(host in message for host in hosts)
    assert "Downloading them failed" in message
    assert not any(p.is_file() for p in cache.rglob("*"))
