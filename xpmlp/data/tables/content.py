"""What a file holds, told by its first bytes rather than by its name, and unpacked.

Nothing is taken to be larger than memory allows: what unpacks to far more than such data usually
does is refused, since it was made to fill a machine.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from ...errors import DataError
from ...files import expanded, most_unpacked, too_much
from .columns import listed

_STARTS = {
    b"PAR1": "parquet",
    b"ARROW1": "feather",
    b"FEA1": "feather",
    b"\x93NUMPY": "npy",
    b"\xd0\xcf\x11\xe0": "xls",
    b"\x89HDF": "hdf5",
    b"SQLite format 3": "sqlite",
    b"%PDF": "pdf",
}
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_FIX = "unpack it yourself if that is right"


def read_content(path: str | Path) -> bytes:
    """The bytes of a file (``-``: of standard input), unpacked where they are packed.

    Raises
    ------
    DataError
        If there is no such file, it cannot be read, or it unpacks to far too much.
    """
    if str(path) == "-":
        content = sys.stdin.buffer.read()
    else:
        path = expanded(path)
        if path.is_dir():
            raise DataError(
                f"`{path}`: expected a file, got a folder; name a file in it (a known data set in "
                "a folder: mnist with data_dir, --data-dir)"
            )
        if not path.exists():
            raise DataError(f"`{path}`: expected a file, got none of that name; check the path")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"`{path}`: could not be read ({error}); check the file") from error
    return unpack(content, str(path))


def unpack(content: bytes, where: str, depth: int = 0) -> bytes:
    """gzip, bz2, xz, and zip archives of one file, taken apart; anything else as it is."""
    if depth > 3:
        raise DataError(f"`{where}`: expected a table, got packed files within packed files")
    size = len(content)
    try:
        for start, name in PACKED.items():
            if content.startswith(start):
                opener: Any = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[name]
                with opener(io.BytesIO(content)) as file:
                    return unpack(_limited(file, size, where), where, depth + 1)
        if content.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if is_workbook(archive) or is_npz(archive):
                    total = sum(entry.file_size for entry in archive.infolist())
                    if total > most_unpacked(size, text=is_workbook(archive)):
                        raise too_much(where, size, _FIX, text=is_workbook(archive))
                    return content
                names = [
                    name
                    for name in archive.namelist()
                    if not name.endswith("/") and not name.startswith(("__MACOSX", "."))
                ]
                if len(names) != 1:
                    raise DataError(
                        f"`{where}`: expected an archive of one table, got {len(names)} files "
                        f"({listed(names, 5) or 'none'}); unpack it and name one of them"
                    )
                with archive.open(names[0]) as file:
                    return unpack(_limited(file, size, where), where, depth + 1)
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(
            f"`{where}`: expected a whole packed file, got a damaged one ({error}); pack it again"
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # zip: a password, an unknown method
        raise DataError(f"`{where}`: could not be unpacked ({error}); unpack it first") from error
    return content


def is_workbook(archive: zipfile.ZipFile) -> bool:
    """Whether a zip archive is an Excel workbook."""
    return "[Content_Types].xml" in archive.namelist()


def is_npz(archive: zipfile.ZipFile) -> bool:
    """Whether a zip archive holds NumPy arrays only."""
    names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def form_of(content: bytes) -> str:
    """``parquet``, ``feather``, ``npy``, ``npz``, ``xlsx``, ``xls``, ``pickle`` or ``text``."""
    for start, form in _STARTS.items():
        if content.startswith(start):
            return form
    if content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return "xlsx" if is_workbook(archive) else "npz"
    if content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content[-1:] == b".":
        return "pickle"
    return "text"


def _limited(file: IO[bytes], size: int, where: str) -> bytes:
    """What unpacks from a file of this size."""
    content = file.read(64)
    text = not content.startswith((b"PK\x03\x04", *_STARTS, *PACKED))
    content += file.read(most_unpacked(size, text=text) + 1)
    if len(content) > most_unpacked(size, text=text):
        raise too_much(where, size, _FIX, text=text)
    return content
