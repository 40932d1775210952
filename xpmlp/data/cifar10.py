"""CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes.

Both of its distributions are read, as folders or as ``.tar.gz`` archives (which are not unpacked):
the binary one, records of a label byte and 3072 pixel bytes, and the Python one, pickles, through
:mod:`.safe_pickle`. Images stay as both store them: red, green and blue planes, ``(N, 3, 32, 32)``.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import DataError
from ..files import most_unpacked
from .dataset import Dataset
from .download import RemoteFile
from .fetch import fetch
from .safe_pickle import read_array_pickle

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_RECORD = 1 + 3 * 32 * 32
_MAX_FILE = 1 << 26  # a batch is 31 MB; nothing larger is read into memory
_FIX = "delete it and download it again, or put a fresh copy there"
_BINARY_ARCHIVE, _PYTHON_ARCHIVE = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
_REMOTE = RemoteFile(
    _BINARY_ARCHIVE,
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
    170052171,
    (f"https://www.cs.toronto.edu/~kriz/{_BINARY_ARCHIVE}",),
)
_SOURCE = (
    "CIFAR-10, A. Krizhevsky, V. Nair, G. Hinton (Krizhevsky: Learning Multiple Layers of "
    "Features from Tiny Images, 2009)"
)

_Pair = tuple[np.ndarray, np.ndarray]
_Parser = Callable[[bytes, str], _Pair]
_Source = tuple[Callable[[], dict[str, bytes]], _Parser, str, str]


def load_cifar10(data_dir: str | Path | None = None, *, download: bool = True) -> Dataset:
    """CIFAR-10: 50,000 images to train on, 10,000 to test on.

    Looked for in ``data_dir``, the folder in ``XPMLP_DATA`` and the user's cache; in each in
    ``cifar10/`` and directly, as ``cifar-10-batches-bin/`` (``data_batch_1.bin`` to ``…_5.bin`` and
    ``test_batch.bin``, or any one ``test_batch*.bin`` with however many records it holds),
    ``cifar-10-batches-py/``, ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz``; else the
    binary archive is downloaded.

    Parameters
    ----------
    data_dir : path, optional
        A folder to look into first; with ``download=False`` the only one.
    download : bool
        Whether to fetch the archive if the files are nowhere (170 MB).

    Returns
    -------
    Dataset
        ``x`` uint8 ``(N, 3, 32, 32)``, planes red, green, blue; ``y`` int64 ``(N,)``. For plotting:
        ``x[i].transpose(1, 2, 0)``.

    Raises
    ------
    DataError
        If files are missing, damaged or hold something else. A pickle that asks for any code to
        run is refused.
    """
    read, parse, where, ending = fetch(
        "CIFAR-10",
        "cifar10",
        (_REMOTE,),
        _find,
        data_dir=data_dir,
        allow_download=download,
    )
    files = read()
    trains = [name for name in files if name.startswith("data_batch_")]
    expected = [f"data_batch_{i}{ending}" for i in range(1, 6)]
    tests = [name for name in files if name.startswith("test_batch")]
    missing = [name for name in expected if name not in trains]
    if missing or not tests:
        lacking = missing + ([] if tests else [f"test_batch{ending}"])
        raise DataError(
            f"`{where}`: expected all five training batches and a test batch, got none of "
            f"{', '.join(lacking)}; {_FIX}"
        )
    test = f"test_batch{ending}" if f"test_batch{ending}" in tests else tests[0]
    if len(tests) > 1 and test != f"test_batch{ending}":
        raise DataError(
            f"`{where}`: expected one test batch, got {', '.join(sorted(tests))}; "
            "remove all but one"
        )
    parts = [parse(files.pop(name), f"{where}/{name}") for name in expected]
    x_test, y_test = parse(files.pop(test), f"{where}/{test}")
    return Dataset(
        name="cifar10",
        x_train=np.concatenate([x for x, _ in parts]),
        y_train=np.concatenate([y for _, y in parts]),
        x_test=x_test.copy(),  # a view of read-only bytes until here
        y_test=y_test,
        classes=CLASSES,
        features=None,
        source=_SOURCE,
    )


def _find(root: Path) -> _Source | None:
    """The first form of the data set in ``root``: how to read it, how to parse it, where it is."""
    for base in (root / "cifar10", root):
        for folder in (base / "cifar-10-batches-bin", base):
            if (folder / "data_batch_1.bin").is_file():
                return (lambda f=folder: _read_folder(f, ".bin")), parse_binary, str(folder), ".bin"
        for folder in (base / "cifar-10-batches-py", base):
            if (folder / "data_batch_1").is_file():
                return (lambda f=folder: _read_folder(f, "")), parse_pickle, str(folder), ""
        for name, parse, ending in (
            (_BINARY_ARCHIVE, parse_binary, ".bin"),
            (_PYTHON_ARCHIVE, parse_pickle, ""),
        ):
            path = base / name
            if path.is_file():
                return (lambda p=path, e=ending: _read_archive(p, e)), parse, str(path), ending
    return None


def _wanted(name: str, ending: str) -> bool:
    """Whether a file name is that of a batch in the distribution with this ending."""
    if not name.startswith(("data_batch_", "test_batch")):
        return False
    return name.endswith(".bin") if ending else "." not in name


def _read_folder(folder: Path, ending: str) -> dict[str, bytes]:
    files = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.is_file() and _wanted(path.name, ending):
                _check_size(path.stat().st_size, str(path))
                files[path.name] = path.read_bytes()
    except OSError as error:
        raise DataError(f"`{folder}`: could not be read ({error}); {_FIX}") from error
    return files


def _read_archive(path: Path, ending: str) -> dict[str, bytes]:
    """The batches in a .tar.gz, read in one pass; nothing is written to disk."""
    files = {}
    try:
        left = most_unpacked(path.stat().st_size)
        with tarfile.open(path, mode="r|gz") as archive:
            for member in archive:
                left -= member.size
                if left < 0:
                    raise DataError(
                        f"`{path}`: expected a data set of about the archive's size, got one that "
                        f"unpacks to 20 times that and more; {_FIX}"
                    )
                name = PurePosixPath(member.name).name
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and _wanted(name, ending):
                    _check_size(member.size, f"{path}/{name}")
                    files[name] = stream.read()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
        raise DataError(
            f"`{path}`: expected a whole .tar.gz archive, got a damaged one ({error}); {_FIX}"
        ) from error
    return files


def _check_size(size: int, where: str) -> None:
    if size > _MAX_FILE:
        raise DataError(f"`{where}`: expected a batch of about 31 MB, got {size} bytes; {_FIX}")


def parse_binary(data: bytes, where: str) -> _Pair:
    """Images and labels of a binary batch.

    Parameters
    ----------
    data : bytes
        Records of 3073 bytes: the label, then red, green and blue planes, each row by row.
    where : str
        The file's name, for messages.

    Returns
    -------
    x : ndarray of uint8, shape (N, 3, 32, 32)
    y : ndarray of int64, shape (N,)
    """
    count, rest = divmod(len(data), _RECORD)
    if count == 0 or rest:
        raise DataError(
            f"`{where}`: expected whole records of {_RECORD} bytes, got {len(data)} bytes "
            f"({count} records and {rest} bytes over): the file is truncated or another; {_FIX}"
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(count, _RECORD)
    return records[:, 1:].reshape(count, 3, 32, 32), _checked_labels(records[:, 0], where)


def parse_pickle(data: bytes, where: str) -> _Pair:
    """Images and labels of a batch from the Python archive; see :func:`parse_binary`."""
    batch = read_array_pickle(data, where)
    x, labels = batch.get("data"), batch.get("labels")
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != _RECORD - 1 or len(x) == 0:
        got = f"an array of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(
            f"`{where}`: expected uint8 'data' of shape (N, {_RECORD - 1}), got {got} "
            f"among the keys {', '.join(sorted(batch))}; {_FIX}"
        )
    if (
        not isinstance(labels, list)
        or len(labels) != len(x)
        or not all(isinstance(label, int) for label in labels)
    ):
        raise DataError(
            f"`{where}`: expected a list 'labels' of {len(x)} whole numbers, one for each image; "
            f"{_FIX}"
        )
    return x.reshape(len(x), 3, 32, 32), _checked_labels(np.asarray(labels), where)


def _checked_labels(labels: np.ndarray, where: str) -> np.ndarray:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if wrong.size:
        raise DataError(
            f"`{where}`: expected labels in 0…{len(CLASSES) - 1}, got {labels[wrong[0]]} in record "
            f"{wrong[0]}; this is another data set's file (CIFAR-100 has two label bytes); {_FIX}"
        )
    return labels.astype(np.int64)
