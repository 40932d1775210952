"""What commands print: tables, figures and JSON on standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import tables as t

console = Console()
"""Where results go: standard output, or standard error beside ``--json``."""
_TAKEN = 3


def print_json(values: Any) -> None:
    """The last line of a command's output."""
    from .runs import without_nan

    print(json.dumps(without_nan(values), allow_nan=False))


def print_result(result: dict[str, Any], folder: Path) -> None:
    """How good a network is, and where it lies."""
    if result["test_accuracy"] is not None:
        headline = f"test accuracy {100 * result['test_accuracy']:.2f} %"
    else:
        headline = f"test R² {result['test_r2']:.4f}, RMSE {result['test_rmse']:.4g}"
    seconds, epochs = result["train_seconds"], result["epochs"]
    console.print(
        f"[bold]{headline}[/bold], loss {result['test_loss']:.4f}, after {epochs} "
        f"epoch{'s' * (epochs != 1)} in {seconds:.1f} s on {result['backend']} "
        f"({result['device']})",
        highlight=False,
    )
    console.print(f"run folder: {folder}", highlight=False, markup=False, soft_wrap=True)


def print_classes(result: dict[str, Any]) -> None:
    """Which classes were taken for which: as a matrix where there is room for it."""
    matrix = _matrix(result)
    console.print(matrix if fits(console, matrix) else _class_by_class(result))


def fits(console: Console, table: Table) -> bool:
    """Whether there is room for all of a table."""
    without_bound = console.options.update(width=100_000)
    return console.measure(table, options=without_bound).maximum <= console.width


def _matrix(result: dict[str, Any]) -> Table:
    classes = list(result["class_accuracy"])
    table = Table(title="how often a class (row) was taken for another (column)")
    table.add_column("")
    for name in classes:
        table.add_column(escape(t.plain(name, 100)), justify="right")
    table.add_column("accuracy", justify="right")
    for name, counts in zip(classes, result["confusion_matrix"], strict=True):
        cells = (str(count) if count else "·" for count in counts)
        table.add_row(escape(t.plain(name, 100)), *cells, _share(result["class_accuracy"][name]))
    return table


def _class_by_class(result: dict[str, Any]) -> Table:
    """A row a class, with the classes that it was taken for most."""
    classes = list(result["class_accuracy"])
    table = Table(title="what each class was taken for")
    table.add_column("class", overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("right", justify="right", no_wrap=True)
    table.add_column("taken for", overflow="fold")
    for place, counts in enumerate(result["confusion_matrix"]):
        wrong = [at for at, count in enumerate(counts) if count and at != place]
        most = sorted(wrong, key=counts.__getitem__, reverse=True)[:_TAKEN]
        taken = [f"{t.plain(classes[at], 24)} ({counts[at]})" for at in most]
        table.add_row(
            escape(t.plain(classes[place], 40)),
            str(sum(counts)),
            _share(result["class_accuracy"][classes[place]]),
            escape(", ".join(taken)),
        )
    return table


def _share(accuracy: float | None) -> str:
    return "no rows" if accuracy is None else f"{100 * accuracy:.1f} %"


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Rows as a table of as many of their columns as there is room for, the first ones."""
    names = list(rows[0])
    for shown in range(len(names), 0, -1):
        table = Table()
        for name in names[:shown]:
            table.add_column(escape(t.plain(name, 100)), justify="right", overflow="fold")
        for row in rows:
            cells = (row[name] for name in names[:shown])
            table.add_row(
                *(
                    f"{value:.4g}" if isinstance(value, float) else escape(t.plain(str(value), 100))
                    for value in cells
                )
            )
        if shown == 1 or fits(console, table):
            console.print(table)
            break
    if shown < len(names):
        console.print(f"{len(names) - shown} more columns are in a file: --out", markup=False)


def as_table(values: dict[str, Any], title: str | None = None) -> Table:
    """Names and values, one below the other."""
    table = Table(show_header=False, title=title, title_justify="left")
    longest = max((len(str(name)) for name in values), default=0)
    table.add_column(style="bold", no_wrap=longest < console.width // 2, overflow="fold")
    table.add_column(overflow="fold")
    for name, value in values.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(
            escape(t.plain(name)), escape(t.plain(text))
        )  # messages hold brackets: "xpmlp[cli]"
    return table
