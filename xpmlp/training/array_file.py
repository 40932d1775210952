"""Arrays by name and a text, in one file: safetensors or NPZ, whole or not at all, never pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, MissingDependencyError
from ..files import write_atomically
from ..npz import read_npz

_HEADER = "xpmlp"


def write_arrays(path: Path, header: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a text and arrays to ``.safetensors`` or ``.npz``.

    Raises
    ------
    CheckpointError
        If the file cannot be written, or has another ending; nothing is left behind then.
    """
    if path.suffix == ".safetensors":
        content = _safetensors().save(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            metadata={_HEADER: header},
        )
    elif path.suffix == ".npz":
        buffer = io.BytesIO()
        named: dict[str, Any] = {_HEADER: np.array(header), **arrays}
        np.savez(buffer, **named)
        content = buffer.getvalue()
    else:
        raise unknown_ending(path)
    write_atomically(path, content)


def read_arrays(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """The text and the arrays of such a file.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or has another ending.
    """
    if not path.is_file():
        raise CheckpointError(f"expected a model file, found none at {path}")
    if path.suffix not in _READERS:
        raise unknown_ending(path)
    try:
        return _READERS[path.suffix](path)
    except MissingDependencyError:
        raise
    except Exception as error:  # each library has errors of its own for damaged files
        what = f"{error} is missing in it" if isinstance(error, KeyError) else f"{error}"
        raise CheckpointError(f"expected a file written by xpmlp in {path}: {what}") from error


def unknown_ending(path: Path) -> CheckpointError:
    """The error for a file of neither kind."""
    return CheckpointError(
        f"expected a file name ending in .safetensors or .npz, got {path.name!r}"
    )


def _read_safetensors(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    library = _safetensors()
    content = path.read_bytes()
    arrays = library.load(content)
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return metadata[_HEADER], arrays


def _read_npz(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    arrays = read_npz(path.read_bytes())
    return str(arrays.pop(_HEADER)), arrays


_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingDependencyError(
            "a .safetensors file needs the safetensors library: "
            'pip install "xpmlp[cli]", or use a name ending in .npz'
        ) from error
    return safetensors.numpy
