"""``xpmlp selfcheck``: whether all of it computes right on this machine, as a table."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from . import options as o
from . import tables as t
from .app import app
from .display import console, print_json

_SHOWN = 20
_NARROW = 72  # columns, that the whole table takes


@app.command()
def selfcheck(
    backends: Annotated[
        str | None, typer.Option(help="Libraries to check: numpy,torch,… (all installed).")
    ] = None,
    as_json: o.Json = False,
):
    """Check gradients, published values, and every array library and kernel here.

    Each library and kernel is compared with the reference: NumPy in float64, without kernels. It
    takes a minute or two, most of it for compiling. Exit status 1 if anything is wrong.
    """
    os.environ.setdefault("JAX_ENABLE_X64", "1")  # JAX reads it when it is first imported
    from ..backend import NAMES, backend_problems
    from ..testing.selfcheck import selfcheck as run_checks

    wanted = NAMES if backends is None else tuple(backends.replace(" ", "").split(","))
    for name in wanted:
        if name not in NAMES:
            raise ConfigError(f"`--backends`: expected some of {', '.join(NAMES)}, got {name!r}")
    problems = backend_problems(wanted)
    done: list[Any] = []
    with Console(file=sys.stderr).status("gradients of layers", spinner="line") as status:
        for check in run_checks(wanted):
            done.append(check)
            status.update(f"{len(done)} checks done, the last: {check.what} on {check.where}")
    absent = {name: why for name, why in problems.items() if why is not None}
    # What was asked for by name and is not there has not been checked.
    passed = all(check.passed for check in done) and (backends is None or not absent)
    if as_json:
        checks = [asdict(check) | {"passed": check.passed} for check in done]
        print_json({"passed": passed, "checks": checks, "not_here": absent})
    else:
        _show(done, absent)
    if not passed:
        raise typer.Exit(1)


def _show(done: list[Any], absent: dict[str, str]) -> None:
    narrow = console.width < _NARROW
    names = ("error", "") if narrow else ("cases", "error", "allowed", "")
    table = Table()
    table.add_column("checked", overflow="fold")
    table.add_column("on", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for check in done:
        word = "ok" if check.passed else "WRONG"
        error = f"{check.worst:.1e}" if check.count else "–"
        verdict = f"[{'green' if check.passed else 'bold red'}]{word}[/]"
        cells = (str(check.count), error, f"{check.allowed:.0e}", verdict)
        table.add_row(check.what, check.where, *((error, verdict) if narrow else cells))
    console.print(table)
    lines = [f"{check.what} on {check.where}: {check.note}" for check in done if check.note]
    lines += [
        f"{check.what} on {check.where}: WRONG, {failure}"
        for check in done
        for failure in check.failures[:_SHOWN]
    ]
    lines += [f"not here: {name}, {why}" for name, why in absent.items()]
    for line in lines:
        console.print(f"- {t.plain(line, 500)}", markup=False, highlight=False)
    seconds = sum(check.seconds for check in done)
    count = sum(check.count for check in done)
    wrong = sum(len(check.failures) for check in done)
    console.print(f"{count} cases, {wrong} wrong, in {seconds:.0f} s", highlight=False)
