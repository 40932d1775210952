"""Small files made to hang a loader, to fill the memory, or to run something: ``python bombs.py``.

Each goes through the loader in a process of its own, by the rules of files.py.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from seeds import Seed, model, safetensors_changed, table_text, zipped  # noqa: F401

MEGA = 1 << 20
Bomb = tuple[str, str, Callable[[], bytes]]  # the file's name, its loader, what is in it


def npy(shape: str, descr: str = "<f8", data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def described(**changed: object) -> bytes:
    """A model's file of 2 KB that says it is another one."""
    with tempfile.TemporaryDirectory() as folder:
        content = model(".safetensors", Path(folder))
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["xpmlp"])
    inner["model"].update(changed)
    header["__metadata__"]["xpmlp"] = json.dumps(inner)
    return safetensors(header, content[8 + length :])


def nested_pickle(depth: int) -> bytes:
    """Lists that hold the list before twice: 2 to the power of ``depth`` when followed."""
    lists: list = []
    for _ in range(depth):
        lists = [lists, lists]
    return pickle.dumps({"data": lists}, 2)


def parquet(columns: dict, **options: object) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, **options)
    return buffer.getvalue()


def feather(columns: dict) -> bytes:
    import pyarrow
    import pyarrow.feather

    buffer = io.BytesIO()
    pyarrow.feather.write_feather(pyarrow.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def workbook(sheet: str) -> bytes:
    import openpyxl

    buffer = io.BytesIO()
    openpyxl.Workbook().save(buffer)
    with zipfile.ZipFile(buffer) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["xl/worksheets/sheet1.xml"] = sheet.encode()
    return zipped(files)


_SHEET = (
    '<?xml version="1.0"?>{}<worksheet '
    'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{}</sheetData>'
    "</worksheet>"
)


def cell(place: str, row: int, value: str = "1") -> str:
    return f'<row r="{row}"><c r="{place}{row}"><v>{value}</v></c></row>'


def archive(names: list[str], size: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=9) as packed:
        for name in names:
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = size
            packed.addfile(entry, io.BytesIO(bytes(size)))
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("echo ran",)


def rows(count: int, row: str, header: str = "a,b,c,y") -> bytes:
    return (header + "\n" + row * count).encode()


BOMBS: dict[str, Bomb] = {
    "gz of zeros": ("t.csv.gz", "table", lambda: gzip.compress(b"0,0\n" * (256 * MEGA // 4))),
    "gz of a blank line": ("t.csv.gz", "table", lambda: gzip.compress(b"\n" * (256 * MEGA))),
    "gz of one long cell": ("t.csv.gz", "table", lambda: gzip.compress(b"x" * (256 * MEGA))),
    "gz of zeros, just allowed": (
        *("t.csv.gz", "table"),
        lambda: gzip.compress(b"0,0\n" * (15 * MEGA // 4)),
    ),
    "gz of texts, just allowed": (
        *("t.csv.gz", "table"),
        lambda: gzip.compress(b"abc,d\n" * (15 * MEGA // 6)),
    ),
    "gz of one cell, just allowed": ("t.csv.gz", "table", lambda: gzip.compress(b"x" * 15 * MEGA)),
    "gz of words, just allowed": (
        *("t.csv.gz", "table"),
        lambda: gzip.compress(b"".join(b"%x,k\n" % n for n in range(MEGA)), 9),
    ),
    "gz of blank cells, just allowed": (
        *("t.csv.gz", "table"),
        lambda: gzip.compress((b"," * 1000 + b"\n") * (15 * MEGA // 1001)),
    ),
    "npz of zeros, just allowed": (
        *("t.npz", "table"),
        lambda: zipped(
            {
                "x.npy": npy(f"({30 * MEGA}, 1)", "|u1", bytes(30 * MEGA)),
                "y.npy": npy(f"({30 * MEGA},)", "|u1", bytes(30 * MEGA)),
            }
        ),
    ),
    "parquet of one number, just allowed": (
        *("t.parquet", "table"),
        lambda: parquet({"a": np.zeros(4 * MEGA, np.int32), "y": np.zeros(4 * MEGA, np.int8)}),
    ),
    "gz in gz": ("t.gz", "table", lambda: gzip.compress(gzip.compress(bytes(512 * MEGA)))),
    "gz in gz in gz in gz in gz": (
        *("t.gz", "table"),
        lambda: gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"a"))))),
    ),
    "bz2 of zeros": ("t.csv.bz2", "table", lambda: bz2.compress(b"0,0\n" * (256 * MEGA // 4))),
    "xz of zeros": ("t.csv.xz", "table", lambda: lzma.compress(b"0,0\n" * (128 * MEGA // 4))),
    "zip of zeros": ("t.zip", "table", lambda: zipped({"t.csv": b"0,0\n" * (256 * MEGA // 4)})),
    "zip of many names": ("t.zip", "table", lambda: zipped({f"{n}": b"" for n in range(60_000)})),
    "npz of zeros": (
        *("t.npz", "table"),
        lambda: zipped(
            {
                "x.npy": npy(f"({32 * MEGA}, 1)", "<f8", bytes(256 * MEGA)),
                "y.npy": npy(f"({32 * MEGA},)", "<f8", bytes(256 * MEGA)),
            }
        ),
    ),
    "npz that says it is large": (
        "t.npz",
        "table",
        lambda: zipped({"x.npy": npy(f"({2**50}, 1)")}),
    ),
    "npz of bytes 0 wide": (
        *("t.npz", "table"),
        lambda: zipped({"x.npy": npy(f"({2**40}, 0)"), "y.npy": npy(f"({2**40},)", "|V0")}),
    ),
    "npz of texts 0 wide": (
        *("t.npz", "table"),
        lambda: zipped(
            {"x.npy": npy("(4, 1)", "|u1", bytes(4)), "y.npy": npy(f"({2**33},)", "<U0")}
        ),
    ),
    "npz of an object": (
        *("t.npz", "table"),
        lambda: zipped({"x.npy": npy("(1, 1)", "|O", pickle.dumps([Evil()]))}),
    ),
    "npy that says it is large": ("t.npy", "table", lambda: npy(f"({2**50}, 2)")),
    "npy with a long header": ("t.npy", "table", lambda: npy("(" * 60_000)),
    "npy of an object": ("t.npy", "table", lambda: npy("(1,)", "|O", pickle.dumps([Evil()]))),
    "idx that says it is large": ("i", "idx", lambda: struct.pack(">I3I", 0x803, 2**31, 2**31, 9)),
    "idx of zeros": (
        *("i.gz", "idx"),
        lambda: gzip.compress(struct.pack(">I3I", 0x803, MEGA, 32, 32) + bytes(1024 * MEGA), 1),
    ),
    "pickle that runs": ("b", "cifar pickle", lambda: pickle.dumps(Evil())),
    "pickle in a table": ("t.csv", "table", lambda: pickle.dumps(Evil())),
    "pickle, nested twice over": ("b", "cifar pickle", lambda: nested_pickle(60)),
    "pickle, deep": (
        *("b", "cifar pickle"),
        lambda: b"\x80\x02}U\x04data" + b"]" * 300_000 + b"a" * 299_999 + b"s.",
    ),
    "pickle with a long number": (
        *("b", "cifar pickle"),
        lambda: b"\x80\x02}U\x04dataI" + b"9" * 3_000_000 + b"\ns.",
    ),
    "pickle with a large memo": ("b", "cifar pickle", lambda: b"\x80\x02}r\xff\xff\xff\x7f."),
    "tar of many batches": (
        *("cifar-10-binary.tar.gz", "cifar archive"),
        lambda: archive([f"data_batch_{n}.bin" for n in range(40)], 48 * MEGA),
    ),
    "model of wide layers": ("m.safetensors", "model", lambda: described(sizes=[6, 8000, 8000, 3])),
    "model of many layers": ("m.safetensors", "model", lambda: described(sizes=[3] * 300_000)),
    "model of a large population": ("m.safetensors", "model", lambda: described(population=10**8)),
    "model of a huge layer": ("m.safetensors", "model", lambda: described(sizes=[10**9, 10**9])),
    "model with a deep header": (
        *("m.safetensors", "model"),
        lambda: struct.pack("<Q", 200_000) + b'{"a":' * 40_000,
    ),
    "model with a deep description": (
        *("m.safetensors", "model"),
        lambda: safetensors({"__metadata__": {"xpmlp": "[" * 100_000}}),
    ),
    "model with a long header": (
        "m.safetensors",
        "model",
        lambda: struct.pack("<Q", 2**62) + b"{}",
    ),
    "model of zeros": (
        *("m.npz", "model"),
        lambda: zipped({"xpmlp.npy": npy(f"({64 * MEGA},)", "<f8", bytes(512 * MEGA))}),
    ),
    "parquet of one number": (
        *("t.parquet", "table"),
        lambda: parquet(
            {"a": np.zeros(100_000_000, np.int32), "y": np.zeros(100_000_000, np.int8)}
        ),
    ),
    "parquet of one long text": (
        *("t.parquet", "table"),
        lambda: parquet({"a": ["x" * MEGA] * 2000, "y": list(range(2000))}),
    ),
    "parquet of many columns": (
        *("t.parquet", "table"),
        lambda: parquet({f"c{n}": [1, 2] for n in range(20_000)}),
    ),
    "feather of zeros": (
        *("t.feather", "table"),
        lambda: feather({"a": np.zeros(100_000_000), "y": np.zeros(100_000_000, np.int8)}),
    ),
    "json, deep": ("t.json", "table", lambda: b'{"a":' * 100_000),
    "json of other names in each": (
        *("t.jsonl", "table"),
        lambda: b"".join(b'{"%d": 1}\n' % n for n in range(60_000)),
    ),
    "csv of many columns": (
        *("t.csv", "table"),
        lambda: "\n".join(
            [",".join(f"c{n}" for n in range(60_000)), *[",".join("1" * 60_000)] * 3]
        ).encode(),
    ),
    "csv of many classes": (
        *("t.csv", "table"),
        lambda: b"a,y\n" + b"".join(b"%d,k%d\n" % (n, n // 2) for n in range(300_000)),
    ),
    "csv with one long class": (
        *("t.csv", "table"),
        lambda: (
            rows(30_000, "1,2,3,k\n") + rows(30_000, "4,5,6,m\n", "") + b"1,2,3," + b"x" * 20_000
        ),
    ),
    "csv of one long line": ("t.csv", "table", lambda: b"1," * (8 * MEGA)),
    "csv with an open quote": ("t.csv", "table", lambda: b'a,b\n"' + b"x,y\n" * (2 * MEGA)),
    "csv of many widths": (
        *("t.csv", "table"),
        lambda: b"\n".join(b"1," * (n % 2000) for n in range(6000)),
    ),
    "csv of quotes": ("t.csv", "table", lambda: b'"""""","' * MEGA),
    "svmlight with a far place": ("t.svm", "table", lambda: b"1 1:1 2000000000:1\n0 1:1 2:1\n" * 9),
    "svmlight, long and wide": (
        *("t.svm", "table"),
        lambda: b"".join(b"%d 1:1 %d:1\n" % (n % 2, 1 + n % 9000) for n in range(9000)),
    ),
    "arff of many attributes": (
        *("t.arff", "table"),
        lambda: (
            b"@relation r\n"
            + b"".join(b"@attribute a%d numeric\n" % n for n in range(60_000))
            + b"@data\n"
            + b",".join([b"1"] * 60_000)
        ),
    ),
    "xlsx with a far cell": (
        *("t.xlsx", "table"),
        lambda: workbook(_SHEET.format("", cell("A", 1) + cell("XFD", 1_048_576))),
    ),
    "xlsx of entities": (
        *("t.xlsx", "table"),
        lambda: workbook(
            _SHEET.format(
                '<!DOCTYPE w [<!ENTITY a "aaaaaaaaaa">'
                + "".join(
                    f'<!ENTITY {b} "{f"&{a};" * 10}">'
                    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
                )
                + "]>",
                cell("A", 1, "&i;"),
            )
        ),
    ),
    "xlsx of blanks": (
        *("t.xlsx", "table"),
        lambda: workbook(_SHEET.format("", cell("A", 1) + " " * (300 * MEGA))),
    ),
}


def main() -> None:
    """One, if it is named; else all, each in a process of its own."""
    if len(sys.argv) > 1:
        import files

        files.prepare()
        name, loader, make = BOMBS[sys.argv[1]]
        with tempfile.TemporaryDirectory() as folder:
            content = make()
            print(f"{len(content)} bytes", file=sys.stderr)
            outcome, details = files.one(Path(folder), Seed(name, loader, b""), content)
        print(outcome)
        print(details[:3000], file=sys.stderr)
        return
    for name in BOMBS:
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True)
        words = done.stdout.strip() or "died"
        last = (done.stderr.strip().splitlines() or [""])[-1]
        print(f"{words:9} {name}: {last[:160]}", flush=True)


if __name__ == "__main__":
    main()
