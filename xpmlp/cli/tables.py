"""Options about a file's table, and the summary of what was understood of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import readable
from ..files import expanded

_PANEL = "A file's table"

Target = Annotated[
    str | None,
    typer.Option(help="The target column, name or number (the last).", rich_help_panel=_PANEL),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(help="Columns to leave out: id,date; may be repeated.", rich_help_panel=_PANEL),
]
Task = Annotated[
    str | None, typer.Option(help="classification or regression.", rich_help_panel=_PANEL)
]
Test = Annotated[
    str | None,
    typer.Option(help="Test rows: a file of their own, or a share (0.2).", rich_help_panel=_PANEL),
]
Group = Annotated[
    str | None,
    typer.Option(help="Rows alike in this column stay in one part.", rich_help_panel=_PANEL),
]
Time = Annotated[
    str | None,
    typer.Option(help="Test on the latest rows by this column.", rich_help_panel=_PANEL),
]
ID = typer.Option(
    "--id", help="Columns that only name rows: kept for predictions.", rich_help_panel=_PANEL
)
Keep = Annotated[
    list[str] | None,
    typer.Option(help="Columns to use though they look like ids.", rich_help_panel=_PANEL),
]
Category = Annotated[
    list[str] | None,
    typer.Option(help="Columns of categories, whatever they hold.", rich_help_panel=_PANEL),
]
Rare = Annotated[
    int | None,
    typer.Option(help="Levels of fewer rows are taken together.", rich_help_panel=_PANEL),
]
Sep = Annotated[
    str | None,
    typer.Option(help="Between cells: , ; | tab or blanks.", rich_help_panel=_PANEL),
]
Encoding = Annotated[
    str | None, typer.Option(help="Such as utf-8 or latin-1.", rich_help_panel=_PANEL)
]
Decimal = Annotated[str | None, typer.Option(help="Decimal sign: . or ,", rich_help_panel=_PANEL)]
Thousands = Annotated[
    str | None, typer.Option(help="Sign between groups of digits.", rich_help_panel=_PANEL)
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first line names the columns.",
        rich_help_panel=_PANEL,
    ),
]
Na = Annotated[
    list[str] | None,
    typer.Option(help="Further spellings of a missing value: -999.", rich_help_panel=_PANEL),
]
DefaultNa = Annotated[
    bool,
    typer.Option(help="Whether NA, ?, null, … are missing values.", rich_help_panel=_PANEL),
]


_OPTIONS: dict[str, tuple[Any, Any]] = {
    "target": (Target, None),
    "drop": (Drop, None),
    "task": (Task, None),
    "test": (Test, None),
    "group": (Group, None),
    "time": (Time, None),
    "ids": (Annotated[list[str] | None, ID], None),
    "keep": (Keep, None),
    "category": (Category, None),
    "rare": (Rare, None),
    "sep": (Sep, None),
    "encoding": (Encoding, None),
    "decimal": (Decimal, None),
    "thousands": (Thousands, None),
    "header": (Header, None),
    "na": (Na, None),
    "default_na": (DefaultNa, True),
}


def with_table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with all options about a table, which it gets as one dict, ``table``."""
    hints = get_type_hints(command, include_extras=True)
    parameters = []
    for name, own in inspect.signature(command).parameters.items():
        if name == "table":
            parameters += [
                inspect.Parameter(option, own.KEYWORD_ONLY, default=default, annotation=kind)
                for option, (kind, default) in _OPTIONS.items()
            ]
        else:
            parameters.append(own.replace(annotation=hints[name], kind=own.KEYWORD_ONLY))

    def run(**given: Any) -> Any:
        table = {name: given.pop(name) for name in _OPTIONS}
        return command(**given, table=table)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    described: Any = run
    described.__signature__ = inspect.Signature(parameters)
    return run


def data_options(data: str, *, test: str | None = None, **options: Any) -> dict[str, Any]:
    """What ``load_dataset`` is called with, and a run remembers: options that were given."""
    given = {name: value for name, value in options.items() if value not in (None, [])}
    if given.get("default_na") is True:
        del given["default_na"]
    if test is not None:
        try:
            given["test_fraction"] = float(test)
        except ValueError:
            given["test"] = str(expanded(test).resolve())
    return {"name_or_path": data} | given


def print_summary(console: Console, info: Any) -> None:
    """What was understood of a table, and what could be meant otherwise."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in info.summary:
        table.add_row(heading, escape(plain(text)))
    for place, doubt in enumerate(info.doubts):
        table.add_row("in doubt" if place == 0 else "", escape(plain(doubt)))
    console.print(table, highlight=False)


def plain(text: str, limit: int = 1500) -> str:
    """Text without signs that a terminal acts on, not too long."""
    return readable(text, limit)
