"""Where data sets are looked for, in which order, and what is said when they are nowhere.

1. the ``data_dir`` argument, 2. the folder in ``XPMLP_DATA``, 3. the user's cache, 4. download into
that cache. In each folder a data set may lie in a sub-folder of its name or directly.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import DataError
from ..files import expanded
from .download import RemoteFile, download, unreachable_message

Found = TypeVar("Found")


def user_cache() -> Path:
    """The folder for downloaded data: ``pooch.os_cache("xpmlp")``, worked out without pooch.

    Linux: ``$XDG_CACHE_HOME/xpmlp`` or ``~/.cache/xpmlp``. macOS: ``~/Library/Caches/xpmlp``
    (or under ``$XDG_CACHE_HOME``). Windows: ``%LOCALAPPDATA%\\xpmlp\\xpmlp\\Cache``.
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or str(_home() / "AppData" / "Local")
        return Path(local) / "xpmlp" / "xpmlp" / "Cache"
    xdg = os.environ.get("XDG_CACHE_HOME", "").strip()
    if xdg and Path(xdg).is_absolute():
        return Path(xdg) / "xpmlp"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "xpmlp"
    return _home() / ".cache" / "xpmlp"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # none that the system knows: a folder that is nowhere, as errors will say
        return Path("/nonexistent")


def fetch(
    title: str,
    folder_name: str,
    remotes: Sequence[RemoteFile],
    find: Callable[[Path], Found | None],
    *,
    data_dir: str | Path | None,
    allow_download: bool,
) -> Found:
    """Find a data set's files, downloading them if they are nowhere and that is allowed.

    Parameters
    ----------
    title : str
        The data set's name, for messages.
    folder_name : str
        Its sub-folder in the cache.
    remotes : sequence of RemoteFile
        What a download brings, and what a message asks for.
    find : callable
        Looks into one root folder; returns what it found there, or None.
    data_dir : path or None
        A folder named explicitly. Without ``allow_download`` it is the only one looked into.
    allow_download : bool
        Whether other places, and the network, may serve instead.

    Raises
    ------
    DataError
        If the files are nowhere; the message lists the folders, the files to put there and the
        addresses.
    """
    roots: list[Path] = []
    if data_dir is not None:
        roots.append(expanded(data_dir))
    if data_dir is None or allow_download:
        if environment := os.environ.get("XPMLP_DATA", "").strip():
            roots.append(expanded(environment))
        roots.append(user_cache())
    roots = list(dict.fromkeys(roots))

    for number, root in enumerate(roots):
        found = _look_into(root, find)
        if found is not None:
            if data_dir is not None and number > 0:
                _warn_elsewhere(title, roots[0], root)
            return found

    home = (roots[0] if data_dir is not None else user_cache()) / folder_name
    looked = ", ".join(f"{root}{'' if root.is_dir() else ' (no such folder)'}" for root in roots)
    missing = (
        f"`{title}`: expected its files in a data folder, found them in none of: {looked}\n"
        + unreachable_message(remotes, home)
    )
    if not allow_download:
        raise DataError(f"{missing}\nor let them be downloaded: download=True (no --no-download)")
    if data_dir is not None:
        _warn_elsewhere(title, roots[0], user_cache())
    cache = user_cache() / folder_name
    try:
        for remote in remotes:
            download(remote, cache)
    except DataError as error:
        raise DataError(f"{missing}\nDownloading them failed: {error}") from error
    found = find(user_cache())
    if found is None:  # nothing but a change behind our back can lead here
        raise DataError(missing)
    return found


def _look_into(root: Path, find: Callable[[Path], Found | None]) -> Found | None:
    try:
        return find(root) if root.is_dir() else None
    except OSError as error:
        raise DataError(
            f"`{root}`: expected a folder that can be read, got {error}; name another one"
        ) from error


def _warn_elsewhere(title: str, asked: Path, used: Path) -> None:
    state = "no such folder" if not asked.is_dir() else "its files are not in it"
    warnings.warn(
        f"{title} was looked for in {asked} ({state}); using {used} instead",
        UserWarning,
        stacklevel=5,
    )
