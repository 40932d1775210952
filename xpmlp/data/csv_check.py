"""Look over a CSV file before it is parsed: its separator, its header, and rows of uneven length.

Parsers of tables fill short rows with missing values and may drop the end of long ones in silence;
here both are errors that name the line.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError

_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class CsvLayout:
    """How a CSV file is laid out.

    Attributes
    ----------
    separator : str
        ``,``, ``;`` or a tab: the one that is most often in the first line.
    columns : tuple of str
        Names in the header; without a header ``"0"``, ``"1"``, …
    has_header : bool
        False if the first line holds numbers only.
    rows : int
        Rows under the header.
    """

    separator: str
    columns: tuple[str, ...]
    has_header: bool
    rows: int


def check_csv(path: Path) -> CsvLayout:
    """Read a CSV file through once and describe it.

    Raises
    ------
    DataError
        If it is empty, ragged, not UTF-8, has a column name twice, or a quote stays open.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            separator = max(_SEPARATORS, key=first.count)
            file.seek(0)
            return _check_rows(path, csv.reader(file, delimiter=separator, strict=True), separator)
    except UnicodeDecodeError as error:
        raise DataError(
            f"`{path}`: expected text in UTF-8, got a byte that is not ({error.reason} at byte "
            f"{error.start}); save it as CSV in UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"`{path}`: expected CSV, got {error}; check its quotes") from error


def _check_rows(path: Path, reader: Any, separator: str) -> CsvLayout:
    header: list[str] | None = None
    rows = 0
    for row in reader:
        if not row:
            continue  # an empty line
        if header is None:
            header = [cell.strip() for cell in row]
            continue
        rows += 1
        if len(row) != len(header):
            raise DataError(
                f"`{path}`: expected {len(header)} values in every row, got {len(row)} in "
                f"line {reader.line_num} (data row {rows}); mend that line"
            )
    if header is None:
        raise DataError(f"`{path}`: expected a table, got an empty file; check its name")
    if all(_is_number(cell) for cell in header):
        return CsvLayout(separator, tuple(map(str, range(len(header)))), False, rows + 1)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"`{path}`: expected a different name for each column, got "
            f"{', '.join(map(repr, twice))} more than once; rename them"
        )
    if rows == 0:
        raise DataError(f"`{path}`: expected rows under the header, got none; check its content")
    return CsvLayout(separator, tuple(header), True, rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
