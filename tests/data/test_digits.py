"""The embedded digits."""

from importlib import resources

import numpy as np
import pytest

from xpmlp.data import digits, load_digits
from xpmlp.errors import DataError


def test_shapes_and_ranges():
    data = load_digits()
    assert data.x_train.shape == (1437, 8, 8) and data.x_test.shape == (360, 8, 8)
    assert data.x_train.dtype == np.uint8 and data.y_train.dtype == np.int64
    assert data.x_train.min() == 0 and data.x_train.max() == 16
    assert data.task == "classification" and data.classes == tuple("0123456789")
    assert "10.24432/C50P49" in data.source and "CC BY 4.0" in data.source


def test_split_is_stratified():
    data = load_digits()
    test, train = np.bincount(data.y_test), np.bincount(data.y_train)
    assert test.min() >= 35 and test.max() <= 37
    assert (train + test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_images_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    ours = load_digits()

    def rows(x, y):
        return sorted(
            (int(label), image.astype(np.uint8).tobytes())
            for image, label in zip(x, y, strict=True)
        )

    x = np.concatenate([ours.x_train, ours.x_test])
    y = np.concatenate([ours.y_train, ours.y_test])
    assert rows(x, y) == rows(theirs.images, theirs.target)


def test_file_is_small_and_attributed():
    folder = resources.files("xpmlp.data")
    assert len((folder / "digits.npz").read_bytes()) < 100_000
    note = (folder / "DIGITS.md").read_text(encoding="utf-8")
    for text in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert text in note


@pytest.mark.parametrize("content", [None, b"", b"damaged", "cut"])
def test_damaged_package_is_a_data_error(tmp_path, monkeypatch, content):
    whole = (resources.files("xpmlp.data") / "digits.npz").read_bytes()
    if content is not None:
        (tmp_path / "digits.npz").write_bytes(whole[:20000] if content == "cut" else content)
    monkeypatch.setattr(digits.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match="reinstall"):
        load_digits()
