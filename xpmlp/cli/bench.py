"""``xpmlp bench``: the suite run with a line of progress, and its record as a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..bench import free_choice, run_suite
from ..bench.report import EXPLANATION, conditions, main_table, notes, summary_table
from ..bench.report import Table as Cells
from ..errors import ConfigError
from ..files import write_atomically
from .display import fits, print_json

_FILE_WIDTH = 200


def bench(
    console: Console,
    *,
    backends: str | None,
    peers: str | None,
    only: str | None,
    quick: bool,
    json_file: Path | None,
    plot_file: Path | None,
    as_json: bool = False,
) -> bool:
    """Measure, print, save.

    Returns
    -------
    bool
        Whether every result of xpmlp was right.

    Notes
    -----
    Where the environment forces the code of another library, all of it is done in a process
    without that (:mod:`xpmlp.bench.free_choice`), or, if results are wrong there, without that
    library.
    """
    for file in (json_file, plot_file):
        if file is not None and not file.absolute().parent.is_dir():
            # Found out now, not after minutes of measuring.
            raise ConfigError(f"expected a file in a folder that exists, got {file}")
    progress = Console(stderr=True)
    if variables := free_choice.forced():
        text, problem = free_choice.as_text(variables), free_choice.problem_without()
        if problem is None:
            progress.print(f"without {text}: libraries choose their own code", style="dim")
            again = [sys.executable, "-m", "xpmlp", *sys.argv[1:]]
            return subprocess.run(again, env=free_choice.environment()).returncode == 0
        progress.print(f"with {text}, without which {problem}", markup=False)
    with progress.status("starting", spinner="line") as status:

        def tell(text: str) -> None:
            status.update(escape(text))

        record = run_suite(
            backends=None if backends is None else backends.split(","),
            peers=peers,
            only=only,
            quick=quick,
            progress=tell,
        )
    if json_file is not None:  # before anything is printed, which may fail: `| head`
        content = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        write_atomically(json_file, content.encode())
    if as_json:
        print_json(record)
    elif not console.is_terminal:
        print_record(Console(width=_FILE_WIDTH), record)  # in a file there is room
    else:
        print_record(console, record)
    if plot_file is not None:
        from ..bench.plot import plot_record

        plot_record(record, plot_file)
    return not any(name.startswith("xpmlp") for case in record["cases"] for name in case["wrong"])


def print_record(console: Console, record: dict[str, Any]) -> None:
    """The table, what it means, and what is not in it."""
    tables = [main_table(record)]
    if len(record["cases"]) > 1:
        tables.append(summary_table(record))
    for cells in tables:
        table = _table(cells)
        console.print(table if fits(console, table) else _listed(cells))
    console.print(EXPLANATION, markup=False)
    for line in (*conditions(record), *notes(record)):
        console.print(f"- {line}", markup=False, highlight=False)


def _listed(cells: Cells) -> Table:
    """The same for a narrow terminal: each case over its figures, one below the other."""
    table = Table(show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    for (_, (title, *texts)), ratios in zip(cells.rows, cells.ratios, strict=True):
        table.add_section()
        table.add_row(f"[bold]{escape(title)}[/]", "")
        for name, text, ratio in zip(cells.headers[1:], texts, ratios[1:], strict=True):
            table.add_row(escape(name), _styled(text, ratio))
    return table


def _styled(text: str, ratio: float | None) -> str:
    color = None if ratio is None else "green" if ratio >= 1.0 else "red"
    return f"[{color}]{escape(text)}[/]" if color else escape(text)


def _table(cells: Cells) -> Table:
    """Green where xpmlp is faster, red where it is slower."""
    table = Table()
    for number, header in enumerate(cells.headers):
        table.add_column(escape(header), justify="left" if number == 0 else "right")
    last = None
    for (group, texts), ratios in zip(cells.rows, cells.ratios, strict=True):
        if last not in (None, group):
            table.add_section()
        last = group
        styled = [_styled(*pair) for pair in zip(texts, ratios, strict=True)]
        table.add_row(*styled)
    return table
