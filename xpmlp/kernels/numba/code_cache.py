"""Machine code on disk: numba's cache, which here can only help.

Numba's own ends the program where one of its files is damaged or the disk is full, passes over a
folder that it may not write to, and trusts what it reads. Here a file says whose code it holds and
carries a checksum; whatever is wrong with it, the code is compiled anew, and one warning says so.
The folders are numba's: ``NUMBA_CACHE_DIR``, else ``__pycache__`` beside the package, read even
where it is read-only, then the user's cache.
"""

from __future__ import annotations

import os
import pickle
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numba
from numba.core import caching, config

_FORMAT = pickle.dumps(f"{numba.__version__}, xpmlp 1", protocol=-1)  # what an index begins with


class CodeCache(caching.NullCache):
    """Compiled code of one function, in the first of the folders that has it or can take it."""

    def __init__(self, function: Callable):
        self._shelves = list(_shelves(function))
        self._name = function.__name__

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for these types and this processor, or None."""
        for shelf in self._shelves:
            try:
                found = shelf.load_overload(sig, target_context)
            except Exception as error:  # a file can be wrong in any way
                _warn_once(
                    "unusable",
                    f"compiled code in {shelf.cache_path} cannot be used, so it is compiled again "
                    f"({self._name}: {_in_words(error)})",
                )
                continue
            if found is not None:
                return found
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code, if there is a place for it."""
        reason = "the package has no source files"
        for shelf in self._shelves:
            try:
                return shelf.save_overload(sig, data)
            except Exception as error:
                reason = f"{shelf.cache_path}: {_in_words(error)}"
        _warn_once(
            "homeless",
            f"compiled code cannot be kept ({reason}), so each start compiles again, which takes "
            "seconds to minutes; set NUMBA_CACHE_DIR to a folder that has room and may be written "
            "to",
        )


def _shelves(function: Callable) -> Iterator[_Shelf]:
    for place in _places():
        try:
            yield _Shelf(function, place)
        except Exception:  # no sources, no user
            continue


def _places() -> list[type]:
    if config.CACHE_DIR:
        try:
            os.makedirs(config.CACHE_DIR, exist_ok=True)
            return [_Given]
        except OSError:
            pass
    return [_Beside, _OfUser, caching.ZipCacheLocator]


class _Lenient:
    """Numba takes a folder only if it may be written to; reading is half of the use."""

    @classmethod
    def from_function(cls, function: Callable, file: str) -> Any:
        return cls(function, file) if os.path.exists(file) else None


class _Given(_Lenient, caching.UserProvidedCacheLocator): ...


class _Beside(_Lenient, caching.InTreeCacheLocator): ...


class _OfUser(_Lenient, caching.UserWideCacheLocator):
    @classmethod
    def from_function(cls, function: Callable, file: str) -> Any:
        found = super().from_function(function, file)  # without a home: "~", in the current folder
        return found if found and os.path.isabs(found.get_cache_path()) else None


class _Shelf(caching.FunctionCache):
    """Numba's cache of one function in one folder, with files that are looked at."""

    def __init__(self, function: Callable, place: type):
        implementation = caching.CompileResultCacheImpl
        self._impl_class = type(place.__name__, (implementation,), {"_locator_classes": [place]})
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, stamp)


class _Files(caching.IndexDataCacheFile):
    """An index, and a file for each types and processor; checksums in front."""

    def save(self, key: Any, data: Any) -> None:
        try:
            self._load_index()
        except Exception:
            self.flush()
        # Processes that write at the same time may give one name to the code of two, and a full
        # disk may leave an index that names an old file.
        super().save(key, (self._source_stamp, key, data))

    def load(self, key: Any) -> Any:
        found = super().load(key)
        return found[2] if found and found[:2] == (self._source_stamp, key) else None

    def _load_index(self) -> dict:
        try:
            with open(self._index_path, "rb") as file:
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        if not content.startswith(_FORMAT):
            if content.startswith(_FORMAT[:2]):  # another version's
                return {}
            raise ValueError("damaged index")
        stamp, names = _looked_at(content[len(_FORMAT) :])
        return names if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict) -> None:
        with self._open_for_write(self._index_path) as file:
            file.write(_FORMAT + self._dump((self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        with open(self._data_path(name), "rb") as file:
            return _looked_at(file.read())

    def _dump(self, obj: Any) -> bytes:
        content = super()._dump(obj)
        return zlib.crc32(content).to_bytes(4, "little") + content


def _looked_at(content: bytes) -> Any:
    if zlib.crc32(content[4:]) != int.from_bytes(content[:4], "little"):
        raise ValueError("damaged file")
    return pickle.loads(content[4:])


def _in_words(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {words}"[:200]


_warned: set[str] = set()


def _warn_once(kind: str, text: str) -> None:
    """One line for all functions: what ails one file mostly ails the others too."""
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(text, stacklevel=3)
