"""Saving and loading models: safetensors or NPZ, never pickle.

The file holds every parameter and every running statistic, and as text what is needed to build the
network again and to use it: its configuration, which dropout masks come next, the inputs'
normalization, the class names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, XpmlpError
from ..models import FullyConnectedNet
from .array_file import read_arrays, write_arrays

_FORMAT = "xpmlp-1"


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
            {
                "format": _FORMAT,
                "model": model.config,
                "counters": model.counters(),
                "extras": dict(extras or {}),
            }
        )
    except TypeError as error:
        raise CheckpointError(
            f"`save_model`: expected extras that JSON can hold, got {error}; arrays become lists "
            "with .tolist()"
        ) from error
    write_arrays(path, header, arrays)


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
    header, arrays = read_arrays(path)
    try:
        described = json.loads(header)
        if described["format"] != _FORMAT:
            raise CheckpointError(f"unknown format {described['format']!r}")
        model = FullyConnectedNet(**described["model"])
        model.load_state_dict(arrays)
        model.set_counters(described.get("counters", {}))
        return model, described["extras"]
    except KeyError as error:
        raise CheckpointError(
            f"expected a model written by xpmlp in {path}, but {error} is missing in it"
        ) from error
    except (XpmlpError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"expected a model written by xpmlp in {path}: {error}") from error
