"""The folder that a training leaves behind.

======================  =========================================================
``config.json``         what was asked for: data, recipe, model, backend, seed
``history.csv``         a row an epoch, written as training goes
``model.safetensors``   the network, with normalization and class names inside
``result.json``         the figures at the end
``history.png``         the same history as a picture, where matplotlib is there
======================  =========================================================
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import write_atomically
from ..models import FullyConnectedNet
from ..training import load_model

MODEL = "model.safetensors"


def create_run_folder(out: Path | None, name: str) -> Path:
    """Make the folder before training, so that an impossible one fails at once.

    Parameters
    ----------
    out : path, optional
        Where; must not exist yet, or be empty. Default: ``runs/<name>-<number>``, the first free.

    Raises
    ------
    CheckpointError
        If it holds something already or cannot be made.
    """
    try:
        if out is None:
            number = 1
            while (folder := Path("runs") / f"{name}-{number}").exists():
                number += 1
        else:
            folder = out
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise CheckpointError(
                    f"expected a new or empty folder for the run, but {folder} exists and is not "
                    "empty; choose another --out, or remove it"
                )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"expected to make the folder {out or 'runs'}, got {error.strerror or error}; "
            "choose another --out"
        ) from error
    return folder


def discard_run_folder(folder: Path) -> None:
    """Remove a run's folder after a failure before its first epoch, if nothing else is in it."""
    (folder / "config.json").unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(without_nan(values), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def without_nan(values: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have."""
    if isinstance(values, dict):
        return {name: without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def open_run(path: Path) -> tuple[FullyConnectedNet, dict[str, Any], dict[str, Any]]:
    """The model of a run, what the model file says of itself, and the run's config.

    Parameters
    ----------
    path : path
        A run's folder, or a model file by itself (then the config is empty).

    Raises
    ------
    CheckpointError
        If there is no finished run.
    """
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"expected the folder of a finished run (with {MODEL} in it) or a model file, got "
            f"{path}; see 'xpmlp train --help'"
        )
    model, extras = load_model(file)
    config_file = file.parent / "config.json"
    config: dict[str, Any] = {}
    if path.is_dir() and config_file.is_file():
        try:
            config = json.loads(config_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(
                f"expected JSON in {config_file}: {error}; give {file} in place of the folder"
            ) from error
    return model, extras, config
