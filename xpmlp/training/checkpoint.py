"""Saving and loading models: safetensors or NPZ, never pickle.

The file holds every parameter and every running statistic, and as text what is needed to build the
network again and to use it: its configuration, the inputs' normalization, the class names.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, MissingDependencyError, XpmlpError
from ..files import write_atomically
from ..models import FullyConnectedNet

_FORMAT = "xpmlp-1"
_HEADER = "xpmlp"


def save_model(
    path: str | Path, model: FullyConnectedNet, extras: Mapping[str, Any] | None = None
) -> None:
    """Write a model to ``.safetensors`` or ``.npz``.

    Parameters
    ----------
    path : path
        The suffix chooses the format; ``.safetensors`` needs the library of that name.
    model : FullyConnectedNet
    extras : mapping, optional
        Anything JSON can hold, given back by :func:`load_model`.

    Raises
    ------
    CheckpointError
        If it cannot be written, or extras hold what JSON cannot; nothing is left behind then.
    """
    path = Path(path)
    arrays = model.state_dict()
    try:
        header = json.dumps(
            {"format": _FORMAT, "model": model.config, "extras": dict(extras or {})}
        )
    except TypeError as error:
        raise CheckpointError(
            f"`save_model`: expected extras that JSON can hold, got {error}; arrays become lists "
            "with .tolist()"
        ) from error
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
        raise _unknown_ending(path)
    write_atomically(path, content)


def load_model(path: str | Path) -> tuple[FullyConnectedNet, dict[str, Any]]:
    """Read a model back, onto the current backend.

    Parameters
    ----------
    path : path

    Returns
    -------
    model : FullyConnectedNet
    extras : dict
        As given to :func:`save_model`.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or not one of these.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a model file, found none at {path}")
    if path.suffix not in _READERS:
        raise _unknown_ending(path)
    try:
        header, arrays = _READERS[path.suffix](path)
        described = json.loads(header)
        if described["format"] != _FORMAT:
            raise CheckpointError(f"unknown format {described['format']!r}")
        model = FullyConnectedNet(**described["model"])
        model.load_state_dict(arrays)
        return model, described["extras"]
    except MissingDependencyError:
        raise
    except KeyError as error:
        raise CheckpointError(
            f"expected a model written by xpmlp in {path}, but {error} is missing in it"
        ) from error
    except (XpmlpError, ValueError, TypeError, OSError, EOFError) as error:
        raise CheckpointError(f"expected a model written by xpmlp in {path}: {error}") from error


def _read_safetensors(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    library = _safetensors()
    content = path.read_bytes()
    try:
        arrays = library.load(content)
    except Exception as error:  # the library's error class is its own
        raise CheckpointError(f"damaged safetensors file ({error})") from error
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return metadata[_HEADER], arrays


def _read_npz(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    try:
        # From memory: np.load leaves a file open that it cannot read.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"damaged NPZ file ({error})") from error
    return str(arrays.pop(_HEADER)), arrays


_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}


def _unknown_ending(path: Path) -> CheckpointError:
    return CheckpointError(
        f"expected a file name ending in .safetensors or .npz, got {path.name!r}"
    )


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingDependencyError(
            "a .safetensors file needs the safetensors library: "
            'pip install "xpmlp[cli]", or use a name ending in .npz'
        ) from error
    return safetensors.numpy
