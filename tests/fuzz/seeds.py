"""Valid files of every kind that is read, small ones, and how each is changed from the inside."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutations import bytes_changed, json_changed, text_changed

Change = Callable[[bytes, random.Random], bytes]


@dataclass
class Seed:
    """A valid file.

    Attributes
    ----------
    name : str
        Of the file, its ending among it.
    loader : str
        Which of the loaders of files.py takes it.
    content : bytes
    changes : tuple of callables
        Each makes another file of it.
    """

    name: str
    loader: str
    content: bytes
    changes: tuple[Change, ...] = (bytes_changed,)


def table_text(rows: int = 40) -> bytes:
    rng = np.random.default_rng(1)
    lines = ["size,colour,when,note,target"]
    for row in range(rows):
        colour = ["red", "green", '"blue, dark"'][row % 3]
        when = np.datetime64("2024-01-01") + 3 * row
        lines.append(f"{rng.normal():.3f},{colour},{when},n{row % 4},{['a', 'b'][row % 2]}")
    return ("\n".join(lines) + "\n").encode()


def frame():
    import pandas

    return pandas.read_csv(io.BytesIO(table_text()))


def packed(name: str, content: bytes) -> bytes:
    if name == "zip":
        return zipped({"table.csv": content})
    return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[name](content)


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def inside(change: Change, pack: Callable[[bytes], bytes], content: bytes) -> Change:
    """A change of what is packed, packed again without a fault."""
    return lambda _, rng: pack(change(content, rng))


def inside_zip(content: bytes, rng: random.Random) -> bytes:
    """One member changed, dropped, renamed or doubled, in an archive without a fault."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return content
    name = rng.choice(list(files))
    which = rng.randrange(6)
    if which == 0:
        del files[name]
    elif which == 1:
        files[rng.choice(["../x.npy", "x\x1b[2J.npy", "y.npy", "-"])] = files.pop(name)
    elif which == 2 and b"{" in files[name][:128]:  # a header of NumPy's
        files[name] = npy_changed(files[name], rng)
    else:
        files[name] = bytes_changed(files[name], rng)
    return zipped(files)


def npy_changed(content: bytes, rng: random.Random) -> bytes:
    """Another shape, type or order in the header of an .npy file."""
    descr = rng.choice(["<f4", "<f8", ">f8", "<i8", "|u1", "|b1", "<c16", "|O", "<M8[s]", "<U9"])
    shape = rng.choice(["()", "(0,)", "(1,)", "(-1,)", "(9, 0)", "(3, 4)", f"({2**40},)", "(2.5,)"])
    fortran = rng.choice(["True", "False", "None"])
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    size = struct.unpack("<H", content[8:10])[0]
    return content[:8] + struct.pack("<H", len(header)) + header + content[10 + size :]


def safetensors_changed(content: bytes, rng: random.Random) -> bytes:
    """The header changed as JSON, or the network's description in it; its length is right."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    if rng.random() < 0.7:
        described = json.loads(header["__metadata__"]["xpmlp"])
        header["__metadata__"]["xpmlp"] = json.dumps(json_changed(described, rng))
    else:
        header = json_changed(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def weights_changed(content: bytes, rng: random.Random) -> bytes:
    """NaN, infinity or huge numbers among the weights."""
    (length,) = struct.unpack("<Q", content[:8])
    values = bytearray(content[8 + length :])
    number = rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45])
    begin = 4 * rng.randrange(len(values) // 4)
    values[begin : begin + 4] = np.float32(number).tobytes()
    return content[: 8 + length] + bytes(values)


def json_text_changed(content: bytes, rng: random.Random) -> bytes:
    """JSON, or a line of JSON lines, changed as a tree."""
    lines = content.decode().splitlines()
    if content.lstrip().startswith(b"[") or (len(lines) > 1 and lines[0] == "{"):
        return json.dumps(json_changed(json.loads(content), rng)).encode()
    place = rng.randrange(len(lines))
    lines[place] = json.dumps(json_changed(json.loads(lines[place]), rng))
    return "\n".join(lines).encode()


def pickle_changed(content: bytes, rng: random.Random) -> bytes:
    """Opcodes put in: calls, names, memos, nesting."""
    import pickletools

    places = [place for _, _, place in pickletools.genops(content)]
    begin = rng.choice(places)
    new = rng.choice(
        [
            *(b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR", b"]" * 9, b"}" * 9),
            *(b"(" * 2000, b"]" * 3000 + b"a" * 2990, b"q\xff", b"r\xff\xff\xff\x7f", b"h\x00"),
            *(b"0", b"2", b".", b"N", b"K\x00", b"\x8c\x02os\x8c\x06system\x93", b"\x85R", b"b"),
            *(b"I" + b"9" * 5000 + b"\n", b"\x8a\xff" + b"\x7f" * 255, b"T\xff\xff\xff\x7f"),
        ]
    )
    return content[:begin] + new + content[begin:]


def model(suffix: str, folder: Path, classes: int = 2) -> bytes:
    """A trained network's file."""
    from xpmlp.models import FullyConnectedNet
    from xpmlp.training import save_model

    net = FullyConnectedNet([3, 4, classes], normalization="batchnorm", dropout=0.1)
    path = folder / f"model{suffix}"
    save_model(path, net, {"classes": ["a", "b"], "normalization": {"mean": [0.0] * 3}})
    return path.read_bytes()


def run_of_a_table(folder: Path) -> Path:
    """The folder that ``xpmlp train`` leaves behind."""
    import subprocess
    import sys

    (folder / "table.csv").write_bytes(table_text(80))
    options = ["--epochs", "1", "--quiet", "--no-plots", "--hidden", "4", "--out", "run"]
    command = [sys.executable, "-m", "xpmlp", "train", "table.csv", *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "run"


def seeds(folder: Path) -> list[Seed]:
    """All of them; what needs a folder to be made in uses this one."""
    found: list[Seed] = []
    text = table_text()
    found.append(Seed("t.csv", "table", text, (bytes_changed, text_changed)))
    found.append(
        Seed("t.tsv", "table", text.replace(b",", b"\t"), (bytes_changed, text_changed)),
    )
    for name in ("gz", "bz2", "xz", "zip"):
        pack = lambda content, name=name: packed(name, content)  # noqa: E731
        again = inside(text_changed, pack, text)
        found.append(Seed(f"t.csv.{name}", "table", pack(text), (bytes_changed, again)))
    for ending, write in (("xlsx", "to_excel"), ("parquet", "to_parquet"), ("feather", None)):
        buffer = io.BytesIO()
        frame().to_feather(buffer) if write is None else getattr(frame(), write)(
            buffer, index=False
        )
        changes = (bytes_changed, inside_zip) if ending == "xlsx" else (bytes_changed,)
        found.append(Seed(f"t.{ending}", "table", buffer.getvalue(), changes))
    records = [dict(zip("abc", row, strict=True)) for row in zip(*[range(30)] * 3, strict=True)]
    lines = "\n".join(json.dumps(record) for record in records).encode()
    found.append(Seed("t.jsonl", "table", lines, (bytes_changed, json_text_changed)))
    whole = json.dumps(records).encode()
    found.append(Seed("t.json", "table", whole, (bytes_changed, json_text_changed)))
    arff = b"@relation r\n@attribute a numeric\n@attribute c {x,y}\n@data\n"
    arff += b"".join(b"%d,%s\n" % (i, b"xy"[i % 2 : i % 2 + 1]) for i in range(30))
    found.append(Seed("t.arff", "table", arff, (bytes_changed, text_changed)))
    sparse = b"".join(b"%d 1:%d 4:0.5 9:1e2\n" % (i % 2, i) for i in range(30))
    found.append(Seed("t.svm", "table", sparse, (bytes_changed, text_changed)))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), np.arange(30) % 3
    buffer = io.BytesIO()
    np.savez(buffer, x=x, y=y)
    found.append(Seed("t.npz", "table", buffer.getvalue(), (bytes_changed, inside_zip)))
    buffer = io.BytesIO()
    np.save(buffer, x)
    found.append(Seed("t.npy", "table", buffer.getvalue(), (bytes_changed, npy_changed)))
    idx = struct.pack(">I3I", 0x0803, 20, 5, 5) + bytes(500)
    found.append(Seed("images", "idx", idx))
    packed_idx = inside(bytes_changed, gzip.compress, idx)
    found.append(Seed("images.gz", "idx", gzip.compress(idx), (bytes_changed, packed_idx)))
    found += _cifar(rng)
    for suffix in (".safetensors", ".npz"):
        content = model(suffix, folder)
        changes: tuple[Change, ...] = (bytes_changed, safetensors_changed, weights_changed)
        if suffix == ".npz":
            changes = (bytes_changed, inside_zip)
        found.append(Seed(f"model{suffix}", "model", content, changes))
    run = run_of_a_table(folder)
    for name in ("config.json", "model.safetensors"):
        change = safetensors_changed if name.startswith("model") else json_text_changed
        found.append(Seed(name, "run", (run / name).read_bytes(), (bytes_changed, change, change)))
    return found


def _cifar(rng: np.random.Generator) -> list[Seed]:
    pixels = rng.integers(0, 256, (3, 3072), dtype=np.uint8)
    values: dict[str, Any] = {"data": pixels, "labels": [0, 1, 2], "filenames": ["a", "b", "c"]}
    batch = pickle.dumps(values, protocol=2)
    binary = b"".join(bytes([n]) + pixels[n].tobytes() for n in range(3))
    files = {f"data_batch_{i}.bin": binary for i in range(1, 6)} | {"test_batch.bin": binary}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    whole = buffer.getvalue()
    again = inside(bytes_changed, gzip.compress, gzip.decompress(whole))
    return [
        Seed("batch", "cifar pickle", batch, (bytes_changed, pickle_changed)),
        Seed("batch.bin", "cifar binary", binary),
        Seed("cifar-10-binary.tar.gz", "cifar archive", whole, (bytes_changed, again)),
    ]
