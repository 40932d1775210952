"""The shards of a sweep, trained apart, become one run that goes on from what they finished."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..sweep.checkpoints import PLAN
from ..training.identity import differences
from ..training.progress import tell
from .runs import CONFIG, STATES, new_run, read_config, write_json


def merge_shards(shards: Sequence[Path], out: Path | None) -> Path:
    """Put together what shards have finished, for ``xpmlp sweep --resume`` to read.

    Parameters
    ----------
    shards : sequence of paths
        Folders of runs.
    out : path, optional
        A new folder. Default: ``runs/merged-<number>``.

    Returns
    -------
    path
        The folder, of a sweep that was stopped.

    Raises
    ------
    CheckpointError
        If they are no shards, or not of the same sweep.
    """
    first = _asked_for(shards[0])
    plan = _plan(shards[0])
    for other in shards[1:]:
        found = [
            f"{what} is {a} in {shards[0]}, {b} in {other}"
            for what, a, b in differences(first, _asked_for(other))
        ]
        if found:
            raise CheckpointError(
                f"`merge`: expected shards of one sweep, got others: {'; '.join(found[:3])}"
            )
        if _plan(other) != plan:
            raise CheckpointError(
                f"`merge`: expected the same populations in all shards, got others in {shards[0]} "
                f"than in {other}; start all of them with the same --memory and number of workers"
            )
    with new_run(out, "merged") as folder:
        states = folder / STATES
        states.mkdir()
        for shard in shards:
            # The figures of a population last: then it counts.
            files = [*(shard / STATES).glob("finished-*")]
            for file in sorted(files, key=lambda file: file.suffix == ".json"):
                if not (states / file.name).exists():
                    shutil.copy(file, states / file.name)
        count, done = len(plan["populations"]), len([*states.glob("finished-*.json")])
        if not done:
            raise CheckpointError("`merge`: expected shards with something finished, got none")
        shutil.copy(shards[0] / STATES / PLAN, states / PLAN)
        write_json(folder / CONFIG, first)
        if done < count:
            tell(f"{count - done} of {count} populations were not finished; they are trained now")
    return folder


def _asked_for(shard: Path) -> dict[str, Any]:
    return read_config(shard) | {"shard": None}


def _plan(shard: Path) -> Any:
    file = shard / STATES / PLAN
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_bytes())
    raise CheckpointError(
        f"`merge`: expected the folder of a shard, with {STATES}/{PLAN} in it, got {shard}"
    )
