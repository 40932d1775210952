"""Arrays from NPY and NPZ files, whose headers are believed only as far as the file goes.

``numpy.load`` asks for the memory that a header names before it looks whether the values are there:
a file of 200 bytes can ask for petabytes. Nothing is unpickled.
"""

from __future__ import annotations

import ast
import io
import math
import sys
import zipfile
from collections.abc import Collection
from typing import Literal

import numpy as np

from .files import most_unpacked

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # NumPy's own limit
_MOST_OF_NOTHING = 1 << 16


def read_npy(content: bytes) -> np.ndarray:
    """The array in the content of an NPY file, a copy.

    Raises
    ------
    ValueError
        If it is none, its header and its values do not fit, or it holds Python objects.
    """
    if not content.startswith(_MAGIC) or len(content) < 12 or content[6] not in (1, 2, 3):
        raise ValueError("no NPY file")
    size = 2 if content[6] == 1 else 4
    begin = 8 + size
    length = int.from_bytes(content[8:begin], "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    encoding = "utf-8" if content[6] == 3 else "latin-1"
    dtype, shape, order = _described(content[begin : begin + length].decode(encoding))
    count = math.prod(shape)
    if dtype.hasobject:
        raise ValueError("Python objects, which are never unpickled")
    held = len(content) - begin - length
    endless = max(shape, default=0) > max(held, _MOST_OF_NOTHING)  # rows that take no room
    if dtype.itemsize == 0 or endless or count * dtype.itemsize > held:
        raise ValueError(f"{held} bytes of values for {dtype} of shape {shape}")
    values = np.frombuffer(content, dtype, count, begin + length)
    _check_texts(values)
    return values.reshape(shape, order=order).copy(order=order)


def _check_texts(values: np.ndarray) -> None:
    """Raise ValueError for signs that there are not, which Python cannot make texts of."""
    for name in values.dtype.names or ():
        _check_texts(values[name])
    if values.dtype.kind == "U" and values.size:
        number = np.dtype("u4").newbyteorder(values.dtype.byteorder)
        if np.ascontiguousarray(values).view(number).max() > sys.maxunicode:
            raise ValueError("text of signs that there are not")


def _described(header: str) -> tuple[np.dtype, tuple[int, ...], Literal["C", "F"]]:
    try:
        found = ast.literal_eval(header.strip())
        shape, fortran = found["shape"], found["fortran_order"]
        dtype = np.lib.format.descr_to_dtype(found["descr"])
        whole = all(type(size) is int and size >= 0 for size in shape)
        if type(shape) is not tuple or not whole or type(fortran) is not bool or len(shape) > 32:
            raise ValueError("no shape")
    except Exception as error:  # a literal can be wrong in any way, nested too deep among them
        raise ValueError(f"a header that says {header[:80]!r}") from error
    return dtype, shape, "F" if fortran else "C"


def read_npz(content: bytes, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays in the content of an NPZ file, or those of these names.

    Raises
    ------
    ValueError, zipfile.BadZipFile, and what the unpackers raise
        If it is none, is damaged, or unpacks to far more than its size.
    """
    most = most_unpacked(len(content))
    found: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if wanted is not None and name not in wanted:
                continue
            with archive.open(entry) as file:
                part = file.read(most + 1)  # an entry's own word on its size is not enough
            most -= len(part)
            if most < 0:
                raise ValueError(f"arrays of more than {most_unpacked(len(content)) >> 20} MiB")
            try:
                found[name] = read_npy(part)
            except ValueError as error:
                raise ValueError(f"{error} in {name!r:.80}") from error
    return found


def npz_names(content: bytes) -> list[str]:
    """Names of the arrays in an NPZ file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]
