"""Saving and loading models: safetensors or NPZ, never pickle.

The file holds every parameter and every running statistic, and as text what is needed to build the
network again and to use it: its configuration, which dropout masks come next, the inputs'
normalization, the class names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, XpmlpError
from ..files import reading
from ..models import ConvNet, FullyConnectedNet
from ..models.convolutional import weights_of
from ..models.network import Network
from .array_file import read_arrays, write_arrays

_FORMAT = "xpmlp-1"
_NETWORKS: dict[str, Any] = {kind.__name__: kind for kind in (FullyConnectedNet, ConvNet)}


def save_model(path: str | Path, model: Network, extras: Mapping[str, Any] | None = None) -> None:
    """Write a model to ``.safetensors`` or ``.npz``.

    Parameters
    ----------
    path : path
        The suffix chooses the format; ``.safetensors`` needs the library of that name.
    model : FullyConnectedNet or ConvNet
    extras : mapping, optional
        Anything JSON can hold, given back by :func:`load_model`.

    Raises
    ------
    CheckpointError
        If it cannot be written, extras hold what JSON cannot, or it is another model, which no file
        could build again; nothing is left behind then.
    """
    path = Path(path)
    if type(model).__name__ not in _NETWORKS:
        raise CheckpointError(
            f"`save_model`: expected a {' or a '.join(_NETWORKS)}, got a {type(model).__name__}; "
            "keep its arrays with np.savez(path, **model.state_dict()), make it again by the same "
            "code and give them to load_state_dict"
        )
    arrays = model.state_dict()
    try:
        header = json.dumps(
            {
                "format": _FORMAT,
                "network": type(model).__name__,
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


def load_model(path: str | Path, *, allow_nan: bool = False) -> tuple[Any, dict[str, Any]]:
    """Read a model back, onto the current backend.

    Parameters
    ----------
    path : path
    allow_nan : bool
        Take NaN and infinity among the numbers too, as a training leaves them that diverged.

    Returns
    -------
    model : FullyConnectedNet or ConvNet
    extras : dict
        As given to :func:`save_model`.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or not one of these, or holds NaN or infinity.
    """
    path = Path(path)
    header, arrays = read_arrays(path)
    kind, fix = "a model written by xpmlp", "write it again with save_model"
    with reading(path, kind, fix, CheckpointError):
        try:
            model, extras = _built(json.loads(header), arrays)
        except (XpmlpError, KeyError) as error:
            missing = " is missing" if isinstance(error, KeyError) else ""
            raise CheckpointError(
                f"`{path}`: expected {kind}, but {error}{missing}; {fix}"
            ) from error
    if not allow_nan:
        _check_finite(arrays, path)
    return model, extras


def _built(described: Any, arrays: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
    """The network that a file describes, with its arrays in it, and the extras."""
    if not isinstance(described, dict) or described["format"] != _FORMAT:
        raise CheckpointError(f"its format is not {_FORMAT!r}")
    options, extras = described["model"], described["extras"]
    if not isinstance(options, dict) or not isinstance(extras, dict):
        raise CheckpointError("it does not describe a network")
    network = _NETWORKS[described.get("network", "FullyConnectedNet")]
    _check_numbers(network, options, arrays)
    model = network(**options)
    model.load_state_dict(arrays)
    model.set_counters(described.get("counters", {}))
    return model, extras


def _check_numbers(network: type, options: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Whether the file can hold the network's weights: a lie of a few bytes may ask for gigabytes
    when it is built."""
    weights = weights_of(options) if network is ConvNet else _weights_of(options)
    held = sum(array.size for array in arrays.values())
    if not weights <= held:
        raise CheckpointError(f"it holds {held} numbers, and its network has {weights} weights")


def _weights_of(options: dict[str, Any]) -> int:
    widths = [max(size) if isinstance(size, list) else size for size in options["sizes"]]
    members, products = options["population"] or 1, [a * b for a, b in pairwise(widths)]
    weights = members * sum(products)
    if options.get("shared"):  # the last matrix is each one's own, and vectors are
        weights = sum(products[:-1]) + members * (products[-1] + sum(widths[:-1]))
    return weights


def _check_finite(arrays: dict[str, np.ndarray], path: Path) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(
                f"`{path}`: expected finite numbers, got NaN or infinity in {name!r:.80}: the "
                "training diverged, or the file is damaged; allow_nan=True takes it as it is"
            )
