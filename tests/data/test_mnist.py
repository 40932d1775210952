"""MNIST and Fashion-MNIST: where they are found, what they hold, and which files are refused."""

import gzip
import hashlib

import numpy as np
import pytest

from xpmlp.data import load_fashion_mnist, load_mnist, mnist
from xpmlp.errors import DataError


@pytest.mark.parametrize("sub", ["mnist", "", "MNIST/raw"])
def test_found_in_sub_folder_or_directly(tmp_path, mnist_files, sub):
    arrays = mnist_files(tmp_path / "data" / sub)
    data = load_mnist(tmp_path / "data", download=False)
    np.testing.assert_array_equal(data.x_train, arrays["train-images-idx3"])
    np.testing.assert_array_equal(data.y_train, arrays["train-labels-idx1"])
    np.testing.assert_array_equal(data.x_test, arrays["t10k-images-idx3"])
    np.testing.assert_array_equal(data.y_test, arrays["t10k-labels-idx1"])
    assert data.x_train.dtype == np.uint8 and data.y_train.dtype == np.int64
    assert data.classes == tuple("0123456789") and data.task == "classification"


@pytest.mark.parametrize("pattern", ["{0}-{1}-ubyte", "{0}.{1}-ubyte"])
def test_unpacked_files_are_found(tmp_path, mnist_files, pattern):
    arrays = mnist_files(tmp_path)
    for path in list(tmp_path.glob("*.gz")):
        stem, _, kind = path.name.removesuffix("-ubyte.gz").rpartition("-")
        (tmp_path / pattern.format(stem, kind)).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    data = load_mnist(tmp_path, download=False)
    np.testing.assert_array_equal(data.x_test, arrays["t10k-images-idx3"])


def test_environment_then_cache(tmp_path, monkeypatch, mnist_files):
    cached = mnist_files(tmp_path / "cache" / "xpmlp" / "mnist", seed=1)
    monkeypatch.setattr("xpmlp.data.fetch.user_cache", lambda: tmp_path / "cache" / "xpmlp")
    assert (load_mnist(download=False).x_train == cached["train-images-idx3"]).all()
    named = mnist_files(tmp_path / "env", seed=2)
    monkeypatch.setenv("XPMLP_DATA", str(tmp_path / "env"))
    assert (load_mnist(download=False).x_train == named["train-images-idx3"]).all()
    given = mnist_files(tmp_path / "given", seed=3)
    assert (load_mnist(tmp_path / "given").x_train == given["train-images-idx3"]).all()


def test_named_folder_without_download_is_the_only_one(tmp_path, monkeypatch, mnist_files):
    mnist_files(tmp_path / "env")
    monkeypatch.setenv("XPMLP_DATA", str(tmp_path / "env"))
    with pytest.raises(DataError, match="typo") as caught:
        load_mnist(tmp_path / "typo", download=False)
    assert "no such folder" in str(caught.value)


def test_named_folder_without_the_files_warns_and_goes_on(tmp_path, monkeypatch, mnist_files):
    arrays = mnist_files(tmp_path / "env")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("XPMLP_DATA", str(tmp_path / "env"))
    with pytest.warns(UserWarning, match="empty.*not in it.*env") as caught:
        data = load_mnist(tmp_path / "empty")
    assert caught[0].filename == __file__
    assert (data.x_train == arrays["train-images-idx3"]).all()


def test_an_incomplete_set_counts_as_absent_and_the_message_lists_all_paths(tmp_path, mnist_files):
    mnist_files(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path, download=False)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        assert str(tmp_path / "mnist" / f"{part}-ubyte.gz") in str(caught.value)


def test_labels_and_images_swapped(tmp_path, mnist_files):
    mnist_files(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    content = images.read_bytes(), labels.read_bytes()
    images.write_bytes(content[1])
    labels.write_bytes(content[0])
    with pytest.raises(DataError, match=r"train-images.*swapped"):
        load_mnist(tmp_path, download=False)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1", np.full(30, 10, np.uint8), "labels in 0…9"),
        ("train-labels-idx1", np.zeros(29, np.uint8), "one label for each of the 30"),
        ("t10k-images-idx3", np.zeros((20, 28, 27), np.uint8), "another data set"),
        ("t10k-images-idx3", np.zeros((20, 28, 28), np.int32), "another data set"),
    ],
)
def test_contents_that_do_not_fit_are_refused(
    tmp_path, mnist_files, idx_bytes, name, array, message
):
    mnist_files(tmp_path)
    (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(DataError, match=message) as caught:
        load_mnist(tmp_path, download=False)
    assert str(tmp_path) in str(caught.value)


def test_the_other_data_set_under_the_same_names_is_recognized(tmp_path, monkeypatch, mnist_files):
    arrays = mnist_files(tmp_path)
    digest = hashlib.sha256(arrays["t10k-labels-idx1"].tobytes()).hexdigest()
    other = mnist._MNIST
    pretend = type(other)(**{**vars(other), "test_labels": digest})
    monkeypatch.setattr(mnist, "_VARIANTS", (pretend, mnist._FASHION))
    with pytest.raises(DataError, match="expected Fashion-MNIST, got MNIST"):
        load_fashion_mnist(tmp_path, download=False)


def test_registry_is_complete():
    for variant in mnist._VARIANTS:
        assert len(variant.remotes) == 4
        for remote in variant.remotes:
            assert len(remote.urls) == 2 and all(u.endswith(remote.name) for u in remote.urls)
            assert remote.digest.startswith("sha256:") and len(remote.digest) == 7 + 64


def test_real_mnist(real_data):
    data = load_mnist(download=False)
    assert data.x_train.shape == (60000, 28, 28) and data.x_test.shape == (10000, 28, 28)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.y_train).tolist() == counts
    assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    # Published mean and standard deviation of the training pixels.
    np.testing.assert_allclose(data.x_train.mean() / 255, 0.1307, atol=5e-5)
    np.testing.assert_allclose(data.x_train.std() / 255, 0.3081, atol=5e-5)


def test_real_fashion_mnist(real_data):
    data = load_fashion_mnist(download=False)
    assert data.x_train.shape == (60000, 28, 28)
    assert np.bincount(data.y_train).tolist() == [6000] * 10
    assert data.classes is not None and data.classes[data.y_train[0]] == "Ankle boot"


@pytest.mark.parametrize("variant", mnist._VARIANTS, ids=lambda v: v.folder)
def test_real_files_have_the_registered_sums(real_data, variant):
    for remote in variant.remotes:
        data = (real_data / variant.folder / remote.name).read_bytes()
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == remote.digest
        assert len(data) == remote.size


def test_real_mnist_is_not_taken_for_fashion_mnist(real_data):
    with pytest.raises(DataError, match="expected Fashion-MNIST, got MNIST"):
        load_fashion_mnist(real_data / "mnist", download=False)
