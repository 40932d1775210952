"""Options that several commands have, and what becomes of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .display import console


def _beside_json(as_json: bool) -> bool:
    """All that people read goes to standard error then."""
    console.stderr = as_json
    return as_json


Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the result as a line of JSON, and nothing else on standard output.",
        callback=_beside_json,
        is_eager=True,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Each epoch, where there is no terminal (else ten)."),
]
Report = Annotated[bool, typer.Option(help="Whether to leave a page, report.html, in the folder.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder to look for data sets in (else XPMLP_DATA, cache).")
]
Download = Annotated[bool, typer.Option(help="Whether data that is nowhere may be fetched.")]
Backend = Annotated[
    str | None,
    typer.Option(help="numpy, cupy, torch, jax, array_api_strict or auto (else XPMLP_BACKEND)."),
]
Device = Annotated[str | None, typer.Option(help="Such as cuda:0 (else XPMLP_DEVICE).")]
SaveEvery = Annotated[
    float, typer.Option(help="Seconds between two checkpoints; saving takes 2 % at most.", min=0.0)
]
Resume = Annotated[
    Path | None, typer.Option(help="Go on with the run in this folder, which was stopped.")
]
ResumeAnyway = Annotated[
    bool,
    typer.Option("--resume-anyway", help="Even with other data, settings or another version."),
]


def choose_backend(name: str | None, device: str | None, stopped: Any = None) -> None:
    """The backend that was asked for, or that of a run that goes on."""
    from .. import set_backend
    from ..backend import NAMES

    if stopped is not None and name is None and device is None:
        name, device = stopped.backend
    if name is not None and name not in (*NAMES, "auto"):
        raise ConfigError(
            f"`--backend`: expected a backend among {', '.join(NAMES)} or auto, got {name!r}"
        )
    if name is not None or device is not None:
        set_backend(name or os.environ.get("XPMLP_BACKEND") or "numpy", device)


def widths_of(text: str) -> tuple[int, ...]:
    """``256,128`` as hidden widths."""
    try:
        widths = tuple(int(part) for part in text.replace(" ", "").split(",") if part)
        if any(width < 1 for width in widths):
            raise ValueError
        return widths
    except ValueError:
        raise ConfigError(
            f"`--hidden`: expected widths such as 256,128 (or an empty text for none), got {text!r}"
        ) from None


def ranks_of_launcher() -> Any:
    """The processes that mpiexec has started with this one, or None; only the first one prints."""
    from ..communication import MPI, communicator, ranks_started

    if ranks_started() == 1:
        return None
    ranks = communicator(MPI())
    if ranks is not None and ranks.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    return ranks
