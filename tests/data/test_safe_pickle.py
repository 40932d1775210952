"""The pickle reader: plain dictionaries and uint8 arrays come back, nothing else ever runs."""

import builtins
import io
import os
import pickle
import struct

import numpy as np
import pytest

from xpmlp.data import safe_pickle
from xpmlp.data.safe_pickle import read_array_pickle
from xpmlp.errors import DataError

CONTENT = {
    "data": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "labels": [3, 1, 2],
    "batch_label": "training batch 1 of 5",
    "filenames": ["a.png", "b.png", "c.png"],
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_content_comes_back(protocol):
    got = read_array_pickle(pickle.dumps(CONTENT, protocol=protocol), "file")
    np.testing.assert_array_equal(got.pop("data"), CONTENT["data"])
    assert got == {k: v for k, v in CONTENT.items() if k != "data"}


def test_fortran_order_comes_back():
    array = np.asfortranarray(CONTENT["data"])
    got = read_array_pickle(pickle.dumps({"data": array}, protocol=2), "file")
    np.testing.assert_array_equal(got["data"], array)


def test_what_python_2_wrote_comes_back():
    # Byte strings as keys and as array bytes: the opcodes of the original archive.
    def short(b):
        return b"U" + bytes([len(b)]) + b

    raw = bytes(range(250, 256))
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + short(b"b")
        + b"\x87R(K\x01K\x02K\x03\x86cnumpy\ndtype\n"
        + short(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + short(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb"
    )
    data = b"\x80\x02}(" + short(b"data") + array + short(b"labels") + b"](K\x01K\x02eu."
    got = read_array_pickle(data, "file")
    np.testing.assert_array_equal(got["data"], [[250, 251, 252], [253, 254, 255]])
    assert got["labels"] == [1, 2]


class Calls:
    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


HOSTILE = {
    "system": Calls(os.system, "echo hacked"),
    "eval": Calls(eval, "1+1"),
    "import": Calls(builtins.__import__, "antigravity"),
    "getattr": Calls(getattr, "x", "upper"),
    "numpy load": Calls(np.load, "file"),
    "numpy frombuffer": Calls(np.frombuffer, b"1234"),
    "bytearray": bytearray(b"x"),
    "float array": np.zeros(3),
    "signed array": np.zeros(3, np.int8),
    "object array": np.array([None, {}], dtype=object),
    "set": {1, 2},
    "function": os.path.join,
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", HOSTILE)
def test_other_objects_are_refused(name, protocol, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("the pickle ran something")

    pickled = pickle.dumps({"data": HOSTILE[name]}, protocol=protocol)
    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(np, "load", never)
    with pytest.raises(DataError, match="batch-file"):
        read_array_pickle(pickled, "batch-file")


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'echo hacked'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
        b"(S'echo hacked'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        b"Psomething\n.",  # persistent id
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo index that would make a table of 16 GB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BINBYTES8 of 2**63 bytes
        b"\x80\x02]K\x01a.",  # a list
        b"\x80\x02}U\x04dataK\x01\x85s.",  # a tuple
        b"",
        b".",
        b"\x80\x02}(U\x04data",
        b"not a pickle",
    ],
)
def test_hostile_and_damaged_bytes_are_refused(data):
    with pytest.raises(DataError, match="batch-file"):
        read_array_pickle(data, "batch-file")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"(S'echo hacked'\nios\nsystem\n.", "opcode INST"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"Psomething\n.", "opcode PERSID"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "memo index 2147483647"),
        (b"p99999999\n.", "memo index 99999999"),
    ],
)
def test_first_wall_refuses_before_the_unpickler_starts(data, reason, monkeypatch):
    monkeypatch.setattr(safe_pickle, "_InertUnpickler", None)
    with pytest.raises(DataError, match=reason):
        read_array_pickle(data, "batch-file")


def test_every_truncation_is_a_data_error():
    whole = pickle.dumps(CONTENT, protocol=2)
    for length in range(len(whole)):
        with pytest.raises(DataError):
            read_array_pickle(whole[:length], "file")


def test_any_changed_byte_gives_plain_values_or_a_data_error():
    whole = bytearray(pickle.dumps(CONTENT, protocol=2))
    for position in range(len(whole)):
        for value in (0, ord("c"), ord("R"), 255):
            changed = bytes(whole[:position]) + bytes([value]) + bytes(whole[position + 1 :])
            try:
                got = read_array_pickle(changed, "file")
            except DataError:
                continue
            assert all(
                isinstance(v, str | int | list | np.ndarray) or v is None for v in got.values()
            )


def test_stand_ins_cannot_be_poisoned_for_the_next_file():
    # BUILD with a slot state sets an attribute on the stand-in for numpy.ndarray, a class.
    poison = b"\x80\x02}U\x01acnumpy\nndarray\nN}U\x04evilU\x01xs\x86bs."
    loader = safe_pickle._InertUnpickler(io.BytesIO(poison), encoding="latin1")
    assert loader.load()["a"].evil == "x"  # so far the poison works
    with pytest.raises(DataError):
        read_array_pickle(poison, "poison")
    fresh = safe_pickle._InertUnpickler(io.BytesIO(b""), encoding="latin1")
    assert not hasattr(fresh.find_class("numpy", "ndarray"), "evil")


def test_absurd_length_is_refused_before_anything_else(monkeypatch):
    monkeypatch.setattr(safe_pickle, "_MAX_BYTES", 10)
    with pytest.raises(DataError, match="about 31 MB"):
        read_array_pickle(pickle.dumps(CONTENT), "file")
