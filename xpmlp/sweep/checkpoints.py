"""What a sweep that is stopped goes on from: a folder with its plan and a file a population."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import remove_strays, write_atomically
from ..training import Checkpoint

_PLAN = "plan.json"


class SweepCheckpoints:
    """The folder of a sweep's checkpoints.

    A population that has been trained to its end is in its file too: it is read, not trained again.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    every : float
        Seconds between two saves, at least; see :class:`~xpmlp.training.Checkpoint`.
    resume : bool
        Whether to go on with the sweep that is there. If none is, one begins.
    strict : bool
        Whether to refuse other data, settings or another version.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: float = 30.0,
        resume: bool = False,
        strict: bool = True,
    ):
        self.folder = Path(folder)
        self.every, self.resume, self.strict = every, resume, strict

    def plan(self, planned: Sequence[Sequence[int]]) -> list[list[int]]:
        """The settings of each population as the sweep was begun with, or the given ones.

        How many fit together depends on the memory that is free at the time.

        Raises
        ------
        CheckpointError
            If another sweep is there, or its plan is of other settings.
        """
        file = self.folder / _PLAN
        if not file.is_file():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CheckpointError(
                    f"expected to make the folder {self.folder}, got {error.strerror or error}"
                ) from error
            write_atomically(file, json.dumps({"populations": planned}).encode())
            return [list(group) for group in planned]
        if not self.resume:
            raise CheckpointError(
                f"expected a new folder for a sweep's checkpoints, but one is in {self.folder}; go "
                "on with it by resume=True, or remove it"
            )
        remove_strays(self.folder)
        try:
            groups = json.loads(file.read_text(encoding="utf-8"))["populations"]
            numbers = sorted(number for group in groups for number in group)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"expected a sweep's plan in {file}, got {error!r}") from error
        if numbers != sorted(number for group in planned for number in group):
            raise CheckpointError(
                f"expected the {len(numbers)} settings of the sweep in {self.folder}, got "
                f"{sum(map(len, planned))}"
            )
        return groups

    def of(self, population: int) -> tuple[Checkpoint, dict[str, Any]]:
        """A population's callback, and what its ``fit`` takes to go on."""
        file = self.folder / f"population-{population + 1}.safetensors"
        there = self.resume and file.is_file()
        return Checkpoint(file, every=self.every), (
            {"resume": file, "strict": self.strict} if there else {}
        )
