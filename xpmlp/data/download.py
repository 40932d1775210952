"""Download one file: several mirrors, resumable, checked, and never visible before it is whole.

Bytes go to ``<name>.part`` beside the file. An interrupted download leaves that and nothing else,
and the next one continues it with an HTTP range request, from any mirror. When all bytes are there
their hash is taken with pooch: the right one gives the file its name, a wrong one removes it. The
partial file is never cut short, so that two processes downloading the same file at once write the
same bytes to the same places, and neither spoils the other's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from ..errors import DataError, MissingDependencyError

TIMEOUT = (10.0, 30.0)  # seconds to connect, and to wait for the next bytes
_TRIES = 3  # of one mirror, as long as it keeps breaking off
_CHUNK = 1 << 18
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network, and how to know that it is the right one.

    Parameters
    ----------
    name : str
        File name, without folders.
    digest : str
        ``"sha256:…"`` or ``"md5:…"``.
    size : int
        Its length in bytes; no mirror is listened to beyond it.
    urls : tuple of str
        Addresses, tried in this order.
    """

    name: str
    digest: str
    size: int
    urls: tuple[str, ...]


class _BrokenMirror(Exception):
    """One mirror could not serve the file; the next one may."""


def download(
    remote: RemoteFile, folder: Path, *, timeout: tuple[float, float] | None = None
) -> Path:
    """Fetch a file into a folder, unless it is there already.

    Parameters
    ----------
    remote : RemoteFile
        What to fetch.
    folder : Path
        Where to; made if missing.
    timeout : (float, float), optional
        Seconds to connect and to wait for data.

    Returns
    -------
    Path
        ``folder / remote.name``, whole and with the right hash.

    Raises
    ------
    DataError
        If no mirror could serve it (each one's reason is listed) or it cannot be stored.
    MissingDependencyError
        If pooch is not installed.
    """
    target = folder / remote.name
    if target.is_file():
        return target
    pooch = _import_pooch(remote, folder)
    part = target.with_name(target.name + ".part")
    problems = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for url in remote.urls:
            for _ in range(_TRIES):
                before = _length(part)
                try:
                    _fill(part, url, remote, timeout or TIMEOUT)
                    _finish(pooch, part, target, remote)
                    return target
                except FileNotFoundError:
                    problems.append(f"{url}: the partial file vanished")
                except _BrokenMirror as problem:
                    problems.append(f"{url}: {problem}")
                if target.is_file():  # another process was faster
                    return target
                if _length(part) == before:  # asking again from the same place would not help
                    break
    except OSError as error:
        raise _storage_error(error, target, part) from error
    listed = "\n  ".join(dict.fromkeys(problems))
    raise DataError(
        f"`{remote.name}`: expected one of {len(remote.urls)} mirrors to serve it, got\n  {listed}"
    )


def _length(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _fill(part: Path, url: str, remote: RemoteFile, timeout: tuple[float, float]) -> None:
    """Bring ``part`` to its full length from one mirror, continuing where it stands."""
    import requests
    import urllib3

    have = _length(part)
    if have > remote.size:
        part.unlink(missing_ok=True)
        have = 0
    if have == remote.size:
        return
    # Without "identity" a server may send .gz files unpacked, and their length would not fit.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if response.status_code not in (200, 206):
                raise _BrokenMirror(f"HTTP {response.status_code} {response.reason}")
            start = _start_of(response) if response.status_code == 206 else 0
            if start not in (0, have):
                raise _BrokenMirror("it answered with another range than was asked for")
            with _open_part(part, start) as file, _Progress(remote, start) as progress:
                total = start
                while chunk := response.raw.read(_CHUNK, decode_content=False):
                    total += len(chunk)
                    if total > remote.size:
                        part.unlink(missing_ok=True)
                        raise _BrokenMirror(f"it sent more than the file's {remote.size} bytes")
                    file.write(chunk)
                    progress.show(total)
                file.flush()
                os.fsync(file.fileno())
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _BrokenMirror(_in_words(error)) from error
    if total < remote.size:
        raise _BrokenMirror(f"it broke off after {total} of {remote.size} bytes")


def _start_of(response: Any) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _open_part(part: Path, start: int) -> BinaryIO:
    """Open the partial file for writing at ``start``; what lies beyond it stays until overwritten.

    Cutting it short could ruin a file that another process has finished and renamed just now.
    """
    if start == 0:
        with contextlib.suppress(FileExistsError):
            return part.open("xb")
    file = part.open("r+b")
    file.seek(start)
    return file


def _finish(pooch: ModuleType, part: Path, target: Path, remote: RemoteFile) -> None:
    """Give the file its final name if its hash is right; else remove it."""
    algorithm, _, digest = remote.digest.partition(":")
    if pooch.file_hash(str(part), alg=algorithm) != digest:
        part.unlink(missing_ok=True)
        raise _BrokenMirror(
            f"all {remote.size} bytes came, but with another hash than {remote.digest}"
        )
    os.replace(part, target)


def _import_pooch(remote: RemoteFile, folder: Path) -> ModuleType:
    try:
        import pooch
    except ImportError as error:
        raise MissingDependencyError(
            f"`{remote.name}`: expected pooch to download it with, got none installed; "
            f'pip install "xpmlp[cli]", or put the file at {folder / remote.name} yourself '
            f"(it is at {' or '.join(remote.urls)})"
        ) from error
    return pooch


def _storage_error(error: OSError, target: Path, part: Path) -> DataError:
    if error.errno in _FULL:
        return DataError(
            f"`{target}`: expected room for the file, but the disk is full; free some space and "
            f"run again (it continues {part.name}; delete that to give its space back)"
        )
    return DataError(
        f"`{target}`: expected a folder that can be written to, got {error}; "
        "name another data folder, or set XDG_CACHE_HOME to a place that is yours"
    )


def _in_words(error: Exception) -> str:
    """A network error in one line, without object addresses."""
    text = re.sub(r"<[^>]*>:? ?", "", str(error)).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text[:160]}"


def unreachable_message(files: Sequence[RemoteFile], folder: Path) -> str:
    """Which files to put where by hand, and where they can be had."""
    lines = [f"  {folder / remote.name}" for remote in files]
    sources = list(dict.fromkeys(url.rpartition("/")[0] for f in files for url in f.urls))
    return "\n".join(["Put these files there:", *lines, "They can be had from:"]) + "".join(
        f"\n  {source}/" for source in sources
    )


class _Progress:
    """One line on standard error: redrawn on a terminal, only its end elsewhere."""

    def __init__(self, remote: RemoteFile, start: int):
        self._remote = remote
        self._start = self._last = start
        self._began = time.monotonic()
        self._drawn = 0.0
        self._live = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def show(self, total: int) -> None:
        self._last = total
        now = time.monotonic()
        if self._live and now - self._drawn > 0.1:
            self._drawn = now
            print("\r" + self._line(now), end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if sys.stderr is not None:
            begin = "\r" if self._live else ""
            print(begin + self._line(time.monotonic()), file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        speed = (self._last - self._start) / max(now - self._began, 1e-3) / 1e6
        share = 100 * self._last // max(1, self._remote.size)
        return (
            f"{self._remote.name}: {share:3d} % of {self._remote.size / 1e6:.1f} MB, "
            f"{speed:.1f} MB/s"
        )
