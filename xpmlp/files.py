"""Write a file whole or not at all; read one that may be anything."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import CheckpointError, DataError, XpmlpError

_TEMPORARY = ".tmp"


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path, with ``~`` as the home, or as it stands where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def most_unpacked(size: int, *, text: bool = False) -> int:
    """How many bytes a file of this size may unpack to: 64 MiB and 20 times the file.

    Of text, which takes ten times its size while it is read, 16 MiB and 10 times the file.

    Data packs to a third or so, what was made to fill a machine to a thousandth and less.
    """
    return (16 << 20) + 10 * size if text else (64 << 20) + 20 * size


def too_much(where: object, size: int, fix: str, *, text: bool = False) -> DataError:
    """The error for a file of this size that unpacks to more."""
    rule = "10 times the file and 16 MiB" if text else "20 times the file and 64 MiB"
    return DataError(
        f"`{where}`: expected at most {most_unpacked(size, text=text) >> 20} MiB when unpacked "
        f"({rule}), got more; {fix}"
    )


@contextlib.contextmanager
def reading(where: object, expected: str, fix: str, error: type[XpmlpError]) -> Iterator[None]:
    """Whatever goes wrong inside is the file's fault: its content can be wrong in any way.

    Parameters
    ----------
    where : object
        The file.
    expected, fix : str
        What it should be, and what to do about it.
    error : type of XpmlpError
        What to raise; errors of this library pass as they are.
    """
    try:
        yield
    except XpmlpError:
        raise
    except MemoryError as caught:
        raise error(f"`{where}`: expected {expected} that fits into memory; {fix}") from caught
    except Exception as caught:
        words = (str(caught).splitlines() or [""])[0][:300]
        raise error(
            f"`{where}`: expected {expected}, got one that cannot be read "
            f"({type(caught).__name__}: {words}); {fix}"
        ) from caught


def write_atomically(path: str | os.PathLike[str], content: bytes, *, on_disk: bool = True) -> None:
    """Write ``content`` to ``path``, so that nobody ever sees half of it.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the
    final name. A file that was there before stays untouched until that moment.

    Parameters
    ----------
    path : path-like
        In a folder that exists.
    content : bytes
    on_disk : bool
        False: nobody waits for the disk, which takes milliseconds. Other processes see the file
        whole all the same; only after a loss of power it may be what it was, or empty.

    Raises
    ------
    CheckpointError
        If the folder is missing or may not be written to, or the disk is full. Then nothing is
        left behind.
    """
    target = Path(path)
    try:
        _replace(target, content, on_disk)
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


def _replace(target: Path, content: bytes, on_disk: bool) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=_TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if on_disk:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp makes files private; a new file should get what the user's umask allows.
        os.chmod(name, _usual_mode(target))
        os.replace(name, target)
        if on_disk:
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
