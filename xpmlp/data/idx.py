"""Reader of idx files, the format of MNIST: a typed array after a header of big-endian numbers.

Layout: two zero bytes, one byte for the type, one for the number of dimensions, the dimensions as
32-bit integers, then the values in C order. Files may be gzip-compressed, whatever their name says.
Nothing in the header is believed before the file's own size has been set against it.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from ..files import most_unpacked

_TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MAX_DIMENSIONS = 8
_FIX = "delete it and download it again, or put a fresh copy there"
_KINDS = {1: "labels (1 dimension)", 3: "images (3 dimensions)"}


def read_idx(path: str | Path, ndim: int | None = None) -> np.ndarray:
    """Read an idx or idx.gz file.

    Parameters
    ----------
    path : path
        The file.
    ndim : int, optional
        How many dimensions it has to have: 1 for labels, 3 for images. Any by default.

    Returns
    -------
    ndarray, of the shape and type in the header, in native byte order
        A fresh, writable array.

    Raises
    ------
    DataError
        If the file is no idx file, is truncated or corrupt, holds more than its header says, or
        has another number of dimensions (labels where images are expected).
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not compressed:
                return _read(raw, path, ndim, size)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _read(stream, path, ndim, most_unpacked(size))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"`{path}`: expected a whole gzip file, got a damaged one ({error}); {_FIX}"
        ) from error
    except OSError as error:
        raise DataError(f"`{path}`: could not be read ({error}); {_FIX}") from error


def _read(stream: BinaryIO | gzip.GzipFile, path: Path, ndim: int | None, most: int) -> np.ndarray:
    """Read header and values from ``stream``, which cannot hold more than ``most`` bytes."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        hint = " (it looks like a web page)" if magic.lstrip()[:1] == b"<" else ""
        raise DataError(
            f"`{path}`: expected an idx file, which begins with two zero bytes and a type, got "
            f"the bytes {magic.hex(' ') or '(none)'}{hint}; {_FIX}"
        )
    dtype, dimensions = _TYPES[magic[2]], magic[3]
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise DataError(
            f"`{path}`: expected 1 to {_MAX_DIMENSIONS} dimensions in the idx header, got "
            f"{dimensions}; {_FIX}"
        )
    if ndim is not None and dimensions != ndim:
        raise DataError(
            f"`{path}`: expected {_KINDS.get(ndim, f'{ndim} dimensions')}, got "
            f"{_KINDS.get(dimensions, f'{dimensions} dimensions')}; "
            "were image and label files renamed or swapped?"
        )
    header = stream.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError(f"`{path}`: expected an idx header, got a file that ends in it; {_FIX}")
    shape = struct.unpack(f">{dimensions}I", header)
    expected = math.prod(shape) * dtype.itemsize
    if expected > most:
        raise DataError(
            f"`{path}`: expected {expected} bytes of values for shape {shape}, but a file of this "
            f"size cannot hold them; {_FIX}"
        )
    # One byte more than needed: it shows a file that is too long, and makes gzip check its sum.
    data = stream.read(expected + 1)
    if len(data) != expected:
        found = f"only {len(data)}" if len(data) < expected else "more"
        raise DataError(
            f"`{path}`: expected {expected} bytes of values for shape {shape}, got {found}; {_FIX}"
        )
    values = np.frombuffer(data, dtype=dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="))
