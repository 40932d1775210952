"""Data that units share: sent once a worker, large arrays as mapped files where those are seen."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import pickle
import shutil
import tempfile
import threading
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_LARGE = 1 << 16  # bytes of an array from which on it is a file of its own
_MOST = 2  # data of so many runs stay in a worker
_CONTENT, _STOP = "data", "stop"

_held: OrderedDict[str, Any] = OrderedDict()
_lock = threading.Lock()


class DataMissing(Exception):
    """A worker has not got the data and does not see the sender's files: send them."""


class Ticket(NamedTuple):
    """What travels with a unit in place of the data.

    Attributes
    ----------
    key : str
        Of this run, by which a worker knows the data again.
    folder : str
        Where they lie, for workers that see it.
    """

    key: str
    folder: str

    def claim(self, sent: Any = None) -> Any:
        """The data: those in this process, else those sent, else from the files.

        Raises
        ------
        DataMissing
            If they are nowhere.
        """
        with _lock:
            if self.key not in _held:
                if sent is None:
                    sent = self._read()
                _held[self.key] = sent[0]
                while len(_held) > _MOST:
                    _held.popitem(last=False)
            return _held[self.key]

    def _read(self) -> tuple[Any]:
        try:
            return (_Reader(io.BytesIO((Path(self.folder) / _CONTENT).read_bytes())).load(),)
        except OSError as error:  # another machine, or a mapped file that only the sender has
            raise DataMissing(self.folder) from error

    def stop_asked(self) -> bool:
        """Whether the sender has said that units should end; only where its files are seen."""
        return (Path(self.folder) / _STOP).exists()


class SharedData:
    """The sender's side: writes the files, and removes them in the end.

    Arrays that are mapped from files already are opened by their paths, not copied.
    """

    def __init__(self, data: Any):
        self.data = data
        self.ticket = Ticket(uuid.uuid4().hex, tempfile.mkdtemp(prefix="xpmlp-units-"))
        with _lock:
            _held[self.ticket.key] = data  # threads of this process, and what it forks

    def write(self) -> None:
        """Have the files there. Without room for them workers are sent the data."""
        folder = Path(self.ticket.folder)
        content = io.BytesIO()
        with contextlib.suppress(OSError):
            _Writer(content, folder).dump(self.data)
            (folder / _CONTENT).write_bytes(content.getvalue())

    def ask_to_stop(self) -> None:
        """Tell the units that run, as far as they see the folder."""
        with contextlib.suppress(OSError):
            (Path(self.ticket.folder) / _STOP).touch()

    def close(self) -> None:
        """Remove the files; workers forget the data when those of other runs come."""
        with _lock:
            _held.pop(self.ticket.key, None)
        shutil.rmtree(self.ticket.folder, ignore_errors=True)


class _Mapped(NamedTuple):
    """An array in a file; size and time are those of the file, to know it again."""

    path: str
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    order: str
    size: int
    time: int

    def open(self) -> np.ndarray:
        found = os.stat(self.path)
        if (found.st_size, found.st_mtime_ns) != (self.size, self.time):
            raise FileNotFoundError(self.path)
        # Copy on write: whoever writes to it has his own.
        mapped = np.memmap(self.path, self.dtype, "c", self.offset, self.shape, self.order)  # type: ignore[call-overload]
        return mapped.view(np.ndarray)


class _Writer(pickle.Pickler):
    def __init__(self, file: Any, folder: Path):
        super().__init__(file, protocol=5)
        self._folder, self._known = folder, {}

    def persistent_id(self, obj: Any) -> Any:
        """What takes the place of a large array."""
        if type(obj) not in (np.ndarray, np.memmap) or obj.dtype.hasobject or obj.nbytes < _LARGE:
            return None
        if id(obj) not in self._known:  # all of them live as long as this
            self._known[id(obj)] = _in_its_file(obj) or self._in_a_new_file(obj)
        return self._known[id(obj)]

    def _in_a_new_file(self, array: np.ndarray) -> _Mapped:
        file = self._folder / f"array-{len(self._known)}"
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        (array.T if order == "F" else np.ascontiguousarray(array)).tofile(file)
        return _described(str(file), 0, array, order)


class _Reader(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return pid.open()


def _in_its_file(array: np.ndarray) -> _Mapped | None:
    """Where an array, or a part of one, is in the file that it is mapped from."""
    root: Any = array
    while not hasattr(root, "_mmap") and isinstance(root.base, np.ndarray):
        root = root.base
    own = getattr(root, "_mmap", None)
    path = getattr(root, "filename", None)
    if own is None or path is None or root.mode == "c" or not array.flags.c_contiguous:
        return None
    begin = root.offset - root.offset % mmap.ALLOCATIONGRANULARITY  # where its mapping begins
    begin += array.ctypes.data - np.frombuffer(own, np.uint8).ctypes.data
    with contextlib.suppress(OSError):
        return _described(str(path), begin, array, "C")
    return None


def _described(path: str, offset: int, array: np.ndarray, order: str) -> _Mapped:
    found = os.stat(path)
    return _Mapped(path, offset, array.dtype, array.shape, order, found.st_size, found.st_mtime_ns)
