"""Predictions in a file of the kind that its ending says, or on standard output."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.tables.cells import is_number
from ..errors import ConfigError, MissingDependencyError
from ..files import expanded, write_atomically
from .runs import without_nan

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")


def check_output(out: str, source: str) -> Path | None:
    """Where predictions may go; None for standard output (``-``).

    Raises
    ------
    ConfigError
        If the ending is unknown, the file is the one that is read, or it is no plain file.
    """
    if out == "-":
        return None
    path = expanded(out)
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"`--out`: expected a file ending in {', '.join(ENDINGS)}, or - for standard output, "
            f"got {out!r}"
        )
    if path.exists() or path.is_symlink():
        path = path.resolve()  # a link stays one
        if path.exists() and not path.is_file():
            raise ConfigError(f"`--out`: expected a plain file or a new one, got {out!r}")
        given = expanded(source)
        if source != "-" and path.exists() and given.exists() and path.samefile(given):
            raise ConfigError(
                f"`--out`: expected another file than the one that is read, got {out!r}; "
                "its rows would be lost"
            )
    return path


def write_rows(path: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, TSV, JSON lines, Parquet or Excel; whole, or not at all.

    What a spreadsheet would take for a formula has a quote in front in the files it opens.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    MissingDependencyError
        If a library is needed that is not installed.
    """
    ending = ".csv" if path is None else path.suffix.lower()
    if ending in (".csv", ".tsv", ".xlsx"):
        rows = [{_no_formula(n): _no_formula(v) for n, v in row.items()} for row in rows]
    if ending in (".csv", ".tsv"):
        text = io.StringIO()
        writer = csv.DictWriter(
            text,
            list(rows[0]),
            delimiter="\t" if ending == ".tsv" else ",",
            lineterminator="\n",
        )
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
    elif ending == ".jsonl":
        lines = (json.dumps(without_nan(row), ensure_ascii=False) for row in rows)
        content = "".join(f"{line}\n" for line in lines).encode()
    else:
        content = _frame_bytes(ending, rows)
    if path is None:
        sys.stdout.flush()
        sys.stdout.write(content.decode())
    else:
        write_atomically(path, content)


def _no_formula(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula, with a quote in front; numbers stay."""
    if not isinstance(value, str) or not value.lstrip().startswith(("=", "+", "-", "@")):
        return value
    return value if is_number(value) else f"'{value}"


def _frame_bytes(ending: str, rows: Sequence[dict[str, Any]]) -> bytes:
    library, extra = ("pyarrow", "cli") if ending == ".parquet" else ("openpyxl", "excel")
    buffer = io.BytesIO()
    try:
        import pandas

        frame = pandas.DataFrame(list(rows))
        if ending == ".parquet":
            frame.to_parquet(buffer, index=False)
        else:
            frame.to_excel(buffer, index=False)
    except ImportError as error:
        raise MissingDependencyError(
            f'a {ending} file needs pandas and {library}: pip install "xpmlp[cli,{extra}]", or '
            "use a name ending in .csv"
        ) from error
    return buffer.getvalue()
