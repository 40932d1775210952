"""The state of a training as a file: a tree of plain values and arrays.

The arrays are stored as such, everything else as JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .array_file import read_arrays, write_arrays

CHECKPOINT = "checkpoint.safetensors"
"""What the file in a folder is called."""

_FORMAT = "xpmlp-training-1"


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a tree of dicts, lists, numbers, texts, None and NumPy arrays.

    Raises
    ------
    CheckpointError
        If it cannot be written, or holds something else; what was there before is still there.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _without_arrays(state, "", arrays)
    try:
        header = json.dumps({"format": _FORMAT, "state": tree})
    except TypeError as error:
        raise CheckpointError(
            f"`Checkpoint`: expected a state of numbers, texts and arrays, got {error}; check "
            "state_dict() of your callbacks"
        ) from error
    write_arrays(path, header, arrays)


def read_state(path: str | Path) -> dict[str, Any]:
    """The tree that :func:`write_state` has written; of a folder, of the checkpoint in it.

    Raises
    ------
    CheckpointError
        If it is missing, damaged or no training's.
    """
    path = Path(path)
    if path.is_dir():
        path = path / CHECKPOINT
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint to go on from, found none at {path}")
    header, arrays = read_arrays(path)
    try:
        described = json.loads(header)
        if described["format"] != _FORMAT:
            raise ValueError(f"format {described['format']!r} in place of {_FORMAT!r}")
        return _with_arrays(described["state"], arrays)
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"expected a checkpoint of a training in {path}: {error!r}; a model by itself is read "
            "by load_model"
        ) from error


def _without_arrays(node: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """The tree with None where arrays are, and those by their place in it: ``best/model/0.W``."""
    if isinstance(node, np.generic):
        return node.item()
    if isinstance(node, np.ndarray):
        arrays[place] = node
        return None
    inside = f"{place}/" if place else ""
    if isinstance(node, Mapping):
        return {k: _without_arrays(v, f"{inside}{k}", arrays) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_without_arrays(v, f"{inside}{k}", arrays) for k, v in enumerate(node)]
    return node


def _with_arrays(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    for place, array in arrays.items():
        *way, last = place.split("/")
        node = tree
        for name in way:
            node = node[_key(node, name)]
        node[_key(node, last)] = array
    return tree


def _key(node: Any, name: str) -> Any:
    return int(name) if isinstance(node, list) else name
