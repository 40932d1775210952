"""CIFAR-10 in all four forms, and what is refused."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest

from xpmlp.data import load_cifar10
from xpmlp.errors import DataError

N = 7


def batches(seed=0):
    rng = np.random.default_rng(seed)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    return {
        name: (rng.integers(0, 256, (N, 3072), dtype=np.uint8), rng.integers(0, 10, N).tolist())
        for name in names
    }


def binary(x, y):
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(x, y, strict=True))


def python(x, y):
    content = {"batch_label": "a batch", "labels": y, "data": x, "filenames": ["a.png"] * len(y)}
    return pickle.dumps(content, protocol=2)


def files_of(kind):
    """File names with folder, and their bytes."""
    if kind == "bin":
        return {
            f"cifar-10-batches-bin/{n}.bin": binary(*batch) for n, batch in batches().items()
        } | {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n"}
    return {f"cifar-10-batches-py/{n}": python(*batch) for n, batch in batches().items()} | {
        "cifar-10-batches-py/batches.meta": b"cos\nsystem\n(S'false'\ntR.",
        "cifar-10-batches-py/readme.html": b"<html>",
    }


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def archive(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def check(data):
    made = batches()
    x = np.concatenate([made[f"data_batch_{i}"][0] for i in range(1, 6)])
    y = np.concatenate([made[f"data_batch_{i}"][1] for i in range(1, 6)])
    assert data.x_train.shape == (5 * N, 3, 32, 32) and data.x_train.dtype == np.uint8
    np.testing.assert_array_equal(data.x_train.reshape(5 * N, 3072), x)
    np.testing.assert_array_equal(data.y_train, y)
    np.testing.assert_array_equal(data.x_test.reshape(N, 3072), made["test_batch"][0])
    np.testing.assert_array_equal(data.y_test, made["test_batch"][1])
    assert data.y_train.dtype == np.int64 and len(data.classes) == 10
    assert data.x_train.flags.writeable and data.x_test.flags.writeable


@pytest.mark.parametrize("kind", ["bin", "py"])
@pytest.mark.parametrize("base", ["", "cifar10"])
def test_folders(tmp_path, kind, base):
    write(tmp_path / base, files_of(kind))
    check(load_cifar10(tmp_path, download=False))


@pytest.mark.parametrize("kind", ["bin", "py"])
def test_batches_directly_in_the_folder(tmp_path, kind):
    write(tmp_path, files_of(kind))
    check(load_cifar10(tmp_path / f"cifar-10-batches-{kind}", download=False))


@pytest.mark.parametrize(("kind", "name"), [("bin", "binary"), ("py", "python")])
@pytest.mark.parametrize("base", ["", "cifar10/"])
def test_archives_are_read_without_unpacking(tmp_path, kind, name, base):
    write(tmp_path, {f"{base}cifar-10-{name}.tar.gz": archive(files_of(kind))})
    before = sorted(tmp_path.rglob("*"))
    check(load_cifar10(tmp_path, download=False))
    assert sorted(tmp_path.rglob("*")) == before


def test_any_single_test_batch_is_taken_with_the_records_it_has(tmp_path):
    files = files_of("bin")
    test = files.pop("cifar-10-batches-bin/test_batch.bin")
    files["cifar-10-batches-bin/test_batch_first3.bin"] = test[: 3 * 3073]
    write(tmp_path, files)
    data = load_cifar10(tmp_path, download=False)
    assert len(data.x_test) == 3
    np.testing.assert_array_equal(data.y_test, batches()["test_batch"][1][:3])
    files["cifar-10-batches-bin/test_batch_other.bin"] = test
    write(tmp_path, files)
    with pytest.raises(DataError, match="one test batch"):
        load_cifar10(tmp_path, download=False)
    files["cifar-10-batches-bin/test_batch.bin"] = test
    write(tmp_path, files)
    check(load_cifar10(tmp_path, download=False))


@pytest.mark.parametrize("kind", ["bin", "py"])
@pytest.mark.parametrize("missing", ["data_batch_4", "test_batch"])
def test_missing_batches_are_named(tmp_path, kind, missing):
    files = {k: v for k, v in files_of(kind).items() if missing not in k}
    write(tmp_path, files)
    with pytest.raises(DataError, match=f"none of {missing}"):
        load_cifar10(tmp_path, download=False)


def first(files, kind):
    return f"cifar-10-batches-{kind}/data_batch_3" + (".bin" if kind == "bin" else "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-1], "whole records"),
        (lambda d: d + b"\0", "whole records"),
        (lambda d: b"", "whole records"),
        (lambda d: b"\x0a" + d[1:], "labels in 0…9"),
    ],
)
def test_damaged_binary_batch_is_named(tmp_path, change, message):
    files = files_of("bin")
    name = first(files, "bin")
    files[name] = change(files[name])
    write(tmp_path, files)
    with pytest.raises(DataError, match=message) as caught:
        load_cifar10(tmp_path, download=False)
    assert "data_batch_3.bin" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((2, 3071), np.uint8), "labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, "2"]},
        {"data": [[0] * 3072] * 2, "labels": [1, 2]},
        {"labels": [1, 2]},
    ],
)
def test_pickle_with_other_content_is_named(tmp_path, content):
    files = files_of("py")
    files[first(files, "py")] = pickle.dumps(content, protocol=2)
    write(tmp_path, files)
    with pytest.raises(DataError, match="data_batch_3"):
        load_cifar10(tmp_path, download=False)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("packed", [False, True])
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, packed):
    files = files_of("py")
    proof = tmp_path / "was-run"
    files[first(files, "py")] = pickle.dumps({"data": Malicious(proof)}, protocol=2)
    if packed:
        files = {"cifar-10-python.tar.gz": archive(files)}
    write(tmp_path, files)
    with pytest.raises(DataError, match="refused before"):
        load_cifar10(tmp_path, download=False)
    assert not proof.exists()


@pytest.mark.parametrize("spoil", ["cut", "no gzip", "no tar", "flipped"])
def test_damaged_archive_is_named(tmp_path, spoil):
    good = archive(files_of("bin"))
    half = len(good) // 2
    bad = {
        "cut": good[:half],
        "no gzip": b"<html>not found</html>",
        "no tar": gzip.compress(b"hello" * 1000),
        "flipped": good[:half] + bytes([good[half] ^ 255]) + good[half + 1 :],
    }[spoil]
    write(tmp_path, {"cifar-10-binary.tar.gz": bad})
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
        load_cifar10(tmp_path, download=False)


def test_enormous_file_is_not_read(tmp_path):
    files = files_of("bin")
    write(tmp_path, files)
    with (tmp_path / first(files, "bin")).open("r+b") as file:
        file.truncate(3073 * 40000)  # sparse: takes no room
    with pytest.raises(DataError, match="about 31 MB"):
        load_cifar10(tmp_path, download=False)


def test_real_cifar10(real_data):
    data = load_cifar10(download=False)
    assert data.x_train.shape == (50000, 3, 32, 32)
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert data.y_test[:12].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9]
    # Published channel means of the training images.
    means = data.x_train.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=5e-5)
