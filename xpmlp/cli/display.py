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
    """Which classes were taken for which."""
    classes = list(result["class_accuracy"])
    table = Table(title="how often a class (row) was taken for another (column)")
    table.add_column("")
    for name in classes:
        table.add_column(escape(t.plain(name, 100)), justify="right")
    table.add_column("accuracy", justify="right")
    for name, counts in zip(classes, result["confusion_matrix"], strict=True):
        accuracy = result["class_accuracy"][name]
        share = "no rows" if accuracy is None else f"{100 * accuracy:.1f} %"
        table.add_row(
            escape(t.plain(name, 100)), *(str(count) if count else "·" for count in counts), share
        )
    console.print(table)


def as_table(values: dict[str, Any], title: str | None = None) -> Table:
    """Names and values, one below the other."""
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(
            escape(t.plain(name)), escape(t.plain(text))
        )  # messages hold brackets: "xpmlp[cli]"
    return table
