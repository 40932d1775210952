"""What came of one population, as files: so that it is not trained again, and may be merged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..errors import CheckpointError
from ..files import write_atomically
from ..training import load_model, save_model
from .result import SweepResult, Trial
from .settings import Settings


def write_record(folder: Path, number: int, part: SweepResult) -> None:
    """Write a population's figures and networks; it counts when the last file is there.

    Raises
    ------
    CheckpointError
        If they cannot be written.
    """
    for setting, net in part.models.items():
        save_model(_model(folder, number, setting), net)
    trials = [asdict(trial) for trial in part.trials]
    for trial in trials:
        del trial["settings"]
    own = {"seconds": part.seconds, "models": list(part.models), "trials": trials}
    write_atomically(_figures(folder, number), json.dumps(own).encode())


def read_record(
    folder: Path, number: int, settings: Sequence[Settings], monitor: str
) -> SweepResult | None:
    """A population's figures and networks, or None if it has not come to its end.

    Raises
    ------
    CheckpointError
        If the files are damaged.
    """
    file = _figures(folder, number)
    try:
        own = json.loads(file.read_bytes())
        found = SweepResult(monitor=monitor, seconds=float(own["seconds"]))
        found.trials = [
            Trial(settings=settings[trial["setting"]], **trial) for trial in own["trials"]
        ]
        for setting in own["models"]:
            found.models[setting] = load_model(_model(folder, number, setting))[0]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise CheckpointError(
            f"expected what came of a population in {file}, got {error!r}; remove it, and it is "
            "trained again"
        ) from error
    found.populations = [len(found.trials)]
    return found


def _figures(folder: Path, number: int) -> Path:
    return folder / f"finished-{number + 1}.json"


def _model(folder: Path, number: int, setting: int) -> Path:
    return folder / f"finished-{number + 1}-{setting}.safetensors"
