"""What a sweep that is stopped goes on from: a folder with its plan and files a population."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import remove_strays, write_atomically
from ..training import Checkpoint
from ..training.identity import check_identity, differences
from .records import read_record, write_record
from .result import SweepResult
from .settings import Settings

PLAN = "plan.json"


class SweepCheckpoints:
    """The folder of a sweep's checkpoints.

    What came of a population that has been trained to its end is there too: it is read, not trained
    again.

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
        self._same = False

    def plan(
        self, planned: Sequence[Sequence[int]], identity: Mapping[str, Any]
    ) -> list[list[int]]:
        """The settings of each population as the sweep was begun with, or the given ones.

        How many fit together depends on the memory that is free at the time, and on the workers.

        Parameters
        ----------
        planned : sequence of sequences of int
        identity : mapping
            Which sweep it is, as ``training/identity.py`` describes it.

        Raises
        ------
        CheckpointError
            If another sweep is there.
        """
        file = self.folder / PLAN
        if not file.is_file():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CheckpointError(
                    f"expected to make the folder {self.folder}, got {error.strerror or error}"
                ) from error
            own = {"populations": planned, "identity": identity}
            write_atomically(file, json.dumps(own).encode())
            return [list(group) for group in planned]
        if not self.resume:
            raise CheckpointError(
                f"expected a new folder for a sweep's checkpoints, but one is in {self.folder}; go "
                "on with it by resume=True, or remove it"
            )
        remove_strays(self.folder)
        try:
            own = json.loads(file.read_text(encoding="utf-8"))
            groups, saved = own["populations"], dict(own["identity"])
            numbers = sorted(number for group in groups for number in group)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"expected a sweep's plan in {file}, got {error!r}") from error
        if numbers != sorted(number for group in planned for number in group):
            raise CheckpointError(
                f"expected the {len(numbers)} settings of the sweep in {self.folder}, got "
                f"{sum(map(len, planned))}"
            )
        if self.strict:
            check_identity(self.folder, saved, identity)
        # What another sweep has finished may not be finished in this one.
        self._same = not any(differences(saved, json.loads(json.dumps(identity))))
        return groups

    def finished(
        self, population: int, settings: Sequence[Settings], monitor: str
    ) -> SweepResult | None:
        """What came of a population that was trained to its end before, if it was."""
        return read_record(self.folder, population, settings, monitor) if self._same else None

    def finish(self, population: int, part: SweepResult) -> None:
        """Keep what came of a population; if it cannot be written that is a warning."""
        try:
            write_record(self.folder, population, part)
        except CheckpointError as error:
            warnings.warn(f"what came of a population is not saved: {error}", stacklevel=2)

    def of(self, population: int) -> tuple[Checkpoint, dict[str, Any]]:
        """A population's callback, and what its ``fit`` takes to go on."""
        file = self.folder / f"population-{population + 1}.safetensors"
        there = self.resume and file.is_file()
        return Checkpoint(file, every=self.every), (
            {"resume": file, "strict": self.strict} if there else {}
        )
