"""One function for names and files, and the package's public names."""

import subprocess
import sys

import numpy as np
import pytest

import xpmlp.data
from xpmlp.data import DATASET_NAMES, load_dataset
from xpmlp.errors import ConfigError, DataError


def test_names_and_their_spellings(tmp_path, mnist_files):
    assert load_dataset("digits").name == "digits"
    mnist_files(tmp_path / "mnist", seed=1)
    arrays = mnist_files(tmp_path / "fashion-mnist", seed=2)
    assert load_dataset("mnist", data_dir=tmp_path, download=False).name == "mnist"
    for name in ("fashion-mnist", "fashion_mnist", "Fashion-MNIST"):
        data = load_dataset(name, data_dir=tmp_path, download=False)
        assert data.name == "fashion-mnist"
        np.testing.assert_array_equal(data.x_test, arrays["t10k-images-idx3"])
    with pytest.raises(DataError, match="CIFAR-10"):
        load_dataset("cifar10", data_dir=tmp_path, download=False)


@pytest.mark.parametrize("name", ["minst", "imagenet", "some/folder/x"])
def test_unknown_names_list_the_valid_ones(name):
    with pytest.raises(DataError) as caught:
        load_dataset(name)
    assert all(valid in str(caught.value) for valid in (*DATASET_NAMES, ".csv", ".npz", name))


def test_files_with_their_options(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, x=np.ones((10, 2)), y=np.arange(10) % 2)
    assert load_dataset(str(path), task="regression", test_fraction=0.5).task == "regression"
    assert len(load_dataset(path, test_fraction=0.5).x_test) == 5
    with pytest.raises(DataError, match="none of that name"):
        load_dataset("nowhere.csv")


def test_table_options_are_refused_for_names():
    with pytest.raises(ConfigError, match="target"):
        load_dataset("digits", target="kind")
    assert load_dataset("digits", target=None).name == "digits"


def test_public_names():
    assert set(xpmlp.data.__all__) == {
        "DATASET_NAMES",
        "Batches",
        "Dataset",
        "Normalization",
        "load_cifar10",
        "load_dataset",
        "load_digits",
        "load_fashion_mnist",
        "load_features",
        "load_mnist",
        "load_table",
    }
    assert all(hasattr(xpmlp.data, name) for name in xpmlp.data.__all__)


def test_importing_and_loading_digits_needs_no_optional_library():
    code = (
        "import sys, xpmlp.data; xpmlp.data.load_digits();"
        "heavy = {'pandas', 'pooch', 'requests', 'torch', 'jax', 'cupy', 'numba', 'pyarrow'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
