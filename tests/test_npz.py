"""NPY and NPZ files: what NumPy writes is read, and no header is believed."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from xpmlp.npz import npz_names, read_npy, read_npz

ARRAYS = [
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype=">i2").reshape(3, 4)),
    np.array(3.5),
    np.zeros((0, 3), np.float32),
    np.array(["a", "é"]),
    np.array([True]),
    np.array(["2024-01-01"], "M8[s]"),
    np.array([(1, 2.0)], [("a", "i4"), ("ü", "f8")]),
]


def written(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_header(text, data=b""):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_what_numpy_writes(array):
    found = read_npy(written(array))
    np.testing.assert_array_equal(found, array, strict=True)
    assert found.flags.writeable
    assert found.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 0)}",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (9,)}",
        "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1.0,)}",
        "{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}",
        "{'descr': '<f8', 'shape': (1,)}",
        "{'descr': 'nothing', 'fortran_order': False, 'shape': (1,)}",
        "(" * 5000,
        "__import__('os').system('true')",
        " " * 20_000,
        "",
    ],
)
def test_headers_that_lie(header):
    with pytest.raises(ValueError):
        read_npy(with_header(header, bytes(8)))


def test_texts_of_signs_that_there_are_not():
    header = "{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}"
    with pytest.raises(ValueError, match="signs"):
        read_npy(with_header(header, b"\xff\xff\xff\xff"))


def test_npz():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.ones(3), y=np.array([{}], dtype=object))
    assert npz_names(buffer.getvalue()) == ["x", "y"]
    assert (read_npz(buffer.getvalue(), ["x"])["x"] == 1).all()
    with pytest.raises(ValueError, match=r"never unpickled.*'y'"):
        read_npz(buffer.getvalue())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(10_000_000))
    with pytest.raises(ValueError, match="more than 6"):
        read_npz(buffer.getvalue())
