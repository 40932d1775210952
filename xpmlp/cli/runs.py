"""The folder that a training leaves behind.

==========================  =========================================================
``config.json``             what was asked for: data, recipe, model, backend, seed
``history.csv``             a row an epoch, written as training goes
``checkpoint.safetensors``  all that an unfinished training needs to go on
``model.safetensors``       the network, with normalization and class names inside
``result.json``             the figures at the end
``history.png``             the same history as a picture, where matplotlib is there
``report.html``             all of it as a page to look at
==========================  =========================================================
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import owned, remove_strays, write_atomically
from ..models import FullyConnectedNet
from ..training import load_model
from ..training.state_file import CHECKPOINT

MODEL = "model.safetensors"
CONFIG = "config.json"
RESULT = "result.json"
STATES = "checkpoints"
"""What a sweep's folder has in place of one checkpoint: a folder of them."""


@contextlib.contextmanager
def new_run(out: Path | None, name: str) -> Iterator[Path]:
    """A new run's folder, for one process alone.

    It is made before training, so that an impossible one fails at once, and removed after an error
    if nothing came of the run. Else the error says how to go on.

    Parameters
    ----------
    out : path, optional
        Where; must not exist yet, or be empty. Default: ``runs/<name>-<number>``, the first free.
    name : str
        Of the data set.

    Raises
    ------
    CheckpointError
        If it holds something already, another process writes to it, or it cannot be made.
    """
    try:
        folder = _numbered(name) if out is None else out
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"expected to make the folder {out or 'runs'}, got {error.strerror or error}; "
            "choose another --out"
        ) from error
    with owned(folder):
        remove_strays(folder)
        if any(folder.iterdir()):
            raise CheckpointError(
                f"expected a new or empty folder for the run, but {folder} exists and is not "
                "empty; choose another --out, or remove it"
            )
        with _kept_or_discarded(folder):
            yield folder


@contextlib.contextmanager
def old_run(folder: Path) -> Iterator[Path]:
    """The folder of a run that goes on, for one process alone.

    Raises
    ------
    CheckpointError
        If another process writes to it, or the run has come to its end.
    """
    with owned(folder):
        remove_strays(folder)
        if (folder / RESULT).is_file() and not is_unfinished(folder):
            raise CheckpointError(
                f"expected a run that was stopped, but that in {folder} has come to its end; its "
                f"network is {folder / MODEL}"
            )
        with _kept_or_discarded(folder):
            yield folder


def is_unfinished(folder: Path) -> bool:
    """Whether there is something in a run's folder to go on from."""
    return (folder / CHECKPOINT).is_file() or any((folder / STATES).glob("*.safetensors"))


def finish_run(folder: Path) -> None:
    """Remove the checkpoints of a run that has come to its end."""
    with contextlib.suppress(OSError):
        (folder / CHECKPOINT).unlink(missing_ok=True)
        if (folder / STATES).is_dir():
            shutil.rmtree(folder / STATES)


def how_to_go_on(folder: Path) -> str:
    """The command that goes on with a run."""
    command = "sweep" if (folder / STATES).is_dir() else "train"
    return f"go on with: xpmlp {command} --resume {shlex.quote(str(folder))}"


def read_config(folder: Path) -> dict[str, Any]:
    """What a run was asked for.

    Raises
    ------
    CheckpointError
        If the folder is none of a run.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"expected the folder of a run, with {CONFIG} in it, got {folder}: "
            f"{error.strerror or error}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"expected JSON in {file}: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"expected what a run was asked for in {file}, got {config!r:.100}")
    return config


def attempt(what: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Do something beside the network: if it fails, that is a warning, and the network is kept."""
    try:
        function(*arguments, **options)
    except Exception as error:
        warnings.warn(f"{what} is not saved: {error}", stacklevel=2)


def _numbered(name: str) -> Path:
    """The first folder ``runs/<name>-<number>`` that is not there; nobody else gets it."""
    number = 1
    Path("runs").mkdir(exist_ok=True)
    while True:
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


@contextlib.contextmanager
def _kept_or_discarded(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            if "--resume-anyway" in str(error):
                pass  # says itself how to go on
            elif is_unfinished(folder):
                error.add_note(how_to_go_on(folder))
            elif {file.name for file in folder.iterdir()} <= {CONFIG, STATES}:
                finish_run(folder)
                (folder / CONFIG).unlink(missing_ok=True)
                folder.rmdir()
        raise


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
        if is_unfinished(path):
            raise CheckpointError(
                f"expected a finished run, got {path}, which was stopped; {how_to_go_on(path)}"
            )
        raise CheckpointError(
            f"expected the folder of a finished run (with {MODEL} in it) or a model file, got "
            f"{path}; see 'xpmlp train --help'"
        )
    model, extras = load_model(file)
    config = read_config(path) if path.is_dir() and (path / CONFIG).is_file() else {}
    return model, extras, config
