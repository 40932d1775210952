"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import CheckpointError

_TEMPORARY = ".tmp"


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path, with ``~`` as the home, or as it stands where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path``, so that nobody ever sees half of it.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the
    final name. A file that was there before stays untouched until that moment.

    Parameters
    ----------
    path : path-like
        In a folder that exists.
    content : bytes

    Raises
    ------
    CheckpointError
        If the folder is missing or may not be written to, or the disk is full. Then nothing is
        left behind.
    """
    target = Path(path)
    try:
        _replace(target, content)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {target}: {error.strerror or error}; "
            "choose a folder that exists, has room and may be written to"
        ) from error


def remove_strays(path: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed while they wrote have left behind.

    For whoever is alone to write there; what cannot be removed stays.

    Parameters
    ----------
    path : path-like
        A file that they wrote, or a folder in which they wrote files.
    """
    target = Path(path)
    folder, name = (target, "*") if target.is_dir() else (target.parent, glob.escape(target.name))
    for stray in folder.glob(f".{name}.*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            stray.unlink()


@contextlib.contextmanager
def owned(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only process that writes to a folder, among those that ask; let go when it ends.

    Raises
    ------
    CheckpointError
        If another one is.
    """
    handle = None
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if handle is not None:
            os.close(handle)
        raise CheckpointError(
            f"expected a folder that no other process writes to, but one does in {folder}; choose "
            "another, or wait for it"
        ) from error
    except (ImportError, OSError):
        pass  # Windows, and file systems that cannot
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _replace(target: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=_TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a new file should get what the user's umask allows.
        os.chmod(name, _usual_mode(target))
        os.replace(name, target)
        _sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk too, where folders can be synchronized."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # on Windows
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _usual_mode(target: Path) -> int:
    """The permissions of the file that is replaced, or those of any new file."""
    try:
        return target.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
