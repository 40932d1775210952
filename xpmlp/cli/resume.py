"""Going on with a run: what it was asked for, and what may be asked of it now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

from ..errors import CheckpointError, ConfigError
from ..sweep.settings import AXES
from ..training.progress import tell
from ..training.stopping import signal_of
from .recipes import Recipe
from .runs import CONFIG, how_to_go_on, is_unfinished, read_config

# About how it runs, not about what is trained.
_ALWAYS = {"backend", "device", "data_dir", "download", "plots", "report", "quiet", "verbose"}
_ALWAYS |= {"as_json", "resume", "resume_anyway", "save_every", "processes", "dask", "mpi"}
TRAINING = {field.name for field in fields(Recipe)} | {"seed"}
"""Options of ``xpmlp train`` that make another training; ``--resume-anyway`` takes them."""


class Stopped:
    """A run that was stopped.

    Parameters
    ----------
    folder : path
    context : typer.Context or None
        Of the command, with the options that were given; None if it takes none.
    allowed : collection of str
        Which of them may be.

    Raises
    ------
    CheckpointError
        If the folder is none of a run.
    ConfigError
        If options are given that the run has already decided.
    """

    def __init__(self, folder: Path, context: typer.Context | None, allowed: Collection[str] = ()):
        self.folder, self.config = folder, read_config(folder)
        self.given = {
            name
            for name in (context.params if context else ())
            if context and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        }
        wrong = sorted(self.given - _ALWAYS - set(allowed))
        if wrong:
            names = ", ".join(name if name == "data" else f"--{name}" for name in wrong)
            raise ConfigError(
                f"`--resume`: expected no options that {folder / CONFIG} already holds, got "
                f"{names.replace('_', '-')}; leave them out, or begin another run"
            )

    @contextmanager
    def reading(self) -> Iterator[dict[str, Any]]:
        """The run's config; what it lacks, or has wrong, is named."""
        try:
            yield self.config
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"expected what a run was asked for in {self.folder / CONFIG}, got {error!r} in "
                "reading it"
            ) from error

    @property
    def backend(self) -> tuple[str | None, str | None]:
        """The backend and device that it ran on."""
        name, device = self.config.get("backend"), self.config.get("device")
        return name, None if device == "cpu" else device

    @property
    def data(self) -> dict[str, Any]:
        """How its data are loaded again: the same file, wherever one is now."""
        with self.reading() as config:
            path = (config.get("identity") or {}).get("path")
            again = {"name_or_path": path} if path and Path(path).is_file() else {}
            return config["data"] | again

    @property
    def recipe(self) -> Recipe:
        """What it is trained by."""
        with self.reading() as config:
            options: dict[str, Any] = config["recipe"] | {}
            options["hidden"] = tuple(options["hidden"])
            return Recipe(**options)

    @property
    def axes(self) -> dict[str, list[Any]]:
        """A sweep's grid."""
        with self.reading() as config:
            grid = {name: list(config["axes"][name]) for name in config["axes"] if name in AXES}
            if "hidden" in grid:
                grid["hidden"] = [tuple(widths) for widths in grid["hidden"]]
            return grid


def exit_as(ending: str, folder: Path) -> None:
    """After a training that a signal has ended, say how to go on, and exit as a shell expects."""
    number = signal_of(ending)
    if number is not None:
        way = f"; {how_to_go_on(folder)}" if is_unfinished(folder) else ""
        tell(f"xpmlp: {ending}{way}")
        raise typer.Exit(128 + number)
