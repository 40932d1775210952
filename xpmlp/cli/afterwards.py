"""Commands on runs that are there: ``report``, ``plot`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .app import app
from .display import as_table, console, print_json

Runs = Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN")]


@app.command()
def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(help="The page (RUN/report.html; of several runs comparison.html)."),
    ] = None,
    data_dir: o.DataDir = None,
    download: o.Download = True,
    backend: o.Backend = None,
    device: o.Device = None,
    as_json: o.Json = False,
):
    """Make a run's page anew, or one page that compares several runs."""
    o.choose_backend(backend, device)
    from .report import COMPARISON, compare, report_of_run

    if len(runs) == 1:
        path = report_of_run(runs[0], out, data_dir, download)
    else:
        path = compare(runs, Path(COMPARISON) if out is None else out)
    _tell_file(path, as_json)


@app.command()
def plot(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(help="The picture: .png, .svg, .pdf (RUN/history.png; of several runs.png)."),
    ] = None,
    as_json: o.Json = False,
):
    """Draw the curves of a run, or of several over each other."""
    from ..plots import plot_history, plot_runs
    from .report import histories_of

    histories = histories_of(runs)
    if len(runs) == 1:
        path = runs[0] / "history.png" if out is None else out
        plot_history(histories[str(runs[0])], path, title=str(runs[0]))
    else:
        path = Path("runs.png") if out is None else out
        plot_runs(histories, path)
    _tell_file(path, as_json)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a model file.")],
    file: Annotated[str, typer.Argument(help="Where to write: a name ending in .onnx.")],
    as_json: o.Json = False,
):
    """Write a run's network as ONNX, after its answers have been compared with the network's."""
    from .export import export as run_export

    result = run_export(run, file)
    if as_json:
        print_json(result)
        return
    shown = {name: ", ".join(v) if isinstance(v, list) else v for name, v in result.items()}
    console.print(as_table(shown))


def _tell_file(path: Path, as_json: bool) -> None:
    if as_json:
        print_json({"file": str(path)})
    else:
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
