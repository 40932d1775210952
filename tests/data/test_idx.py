"""The idx reader gives back what was written and refuses everything else, naming the file."""

import gzip
import struct

import numpy as np
import pytest

from xpmlp.data.idx import read_idx
from xpmlp.errors import DataError


@pytest.mark.parametrize("code", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("compress", [False, True])
def test_values_shape_and_type_come_back(tmp_path, idx_bytes, code, compress):
    array = (np.arange(24).reshape(2, 3, 4) * 5 - 7).astype(code)
    data = idx_bytes(array)
    path = tmp_path / "file"  # the name says nothing about compression
    path.write_bytes(gzip.compress(data) if compress else data)
    read = read_idx(path)
    assert read.dtype == array.dtype and read.dtype.isnative and read.flags.writeable
    np.testing.assert_array_equal(read, array)


def spoiled(good: bytes) -> dict[str, bytes]:
    zipped = gzip.compress(good)
    middle = len(zipped) // 2
    return {
        "empty": b"",
        "web page": b"<!DOCTYPE html><html>not found</html>",
        "bad magic": b"\x01" + good[1:],
        "bad type": good[:2] + b"\x07" + good[3:],
        "no dimensions": good[:3] + b"\x00" + good[4:],
        "many dimensions": good[:3] + b"\xff" + good[4:],
        "ends in header": good[:7],
        "one byte short": good[:-1],
        "one byte more": good + b"\0",
        "gzip cut": zipped[:-20],
        "gzip header only": zipped[:5],
        "gzip flipped bit": zipped[:middle] + bytes([zipped[middle] ^ 16]) + zipped[middle + 1 :],
        "gzip bad sum": zipped[:-8] + bytes(4) + zipped[-4:],
        "gzip one byte short": gzip.compress(good[:-1]),
        "gzip one byte more": gzip.compress(good + b"\0"),
    }


CASES = tuple(spoiled(bytes(100)))


@pytest.mark.parametrize("case", CASES)
def test_damaged_file_is_refused_by_name(tmp_path, idx_bytes, case):
    rng = np.random.default_rng(0)
    good = idx_bytes(rng.integers(0, 256, (9, 28, 28), dtype=np.uint8))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(spoiled(good)[case])
    with pytest.raises(DataError, match="train-images-idx3-ubyte") as caught:
        read_idx(path, ndim=3)
    assert "fresh copy" in str(caught.value)


def test_web_page_saved_under_the_name_is_recognized(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(b"<html>403 Forbidden</html>")
    with pytest.raises(DataError, match="web page"):
        read_idx(path)


def test_labels_where_images_are_expected(tmp_path, idx_bytes):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match=r"images \(3 dimensions\), got labels \(1 dimension\)"):
        read_idx(path, ndim=3)


@pytest.mark.parametrize("compress", [False, True])
def test_absurd_sizes_are_refused_without_reading(tmp_path, compress):
    header = b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
    data = header + bytes(1000)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(data) if compress else data)
    with pytest.raises(DataError, match="cannot hold"):
        read_idx(path)


def test_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        read_idx(tmp_path / "nowhere")
