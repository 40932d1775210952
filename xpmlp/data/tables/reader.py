"""One reader for every file: its content says what it is, and columns come out."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...files import reading
from .arrow_text import columns_by_arrow
from .cells import Blanks
from .columns import CATEGORY, TEXT, Column, Table, listed, shown
from .content import form_of, read_content
from .formats import (
    SVMLIGHT,
    arff_parts,
    frame_table,
    json_rows,
    npy_table,
    svmlight_table,
    workbook_rows,
)
from .interpret import Reading, choose_decimal, interpret
from .layout import (
    FIELD_LIMIT,
    Layout,
    choose_encoding,
    find_layout,
    rows_of,
    text_lines,
)
from .options import ReadOptions
from .rows import RawColumn, even_rows, read_columns

ENDINGS = (
    *(".csv", ".tsv", ".txt", ".data", ".xlsx", ".parquet", ".feather", ".arff", ".jsonl"),
    *(".svm", ".npz", ".npy"),
)
"""Endings of files that are read; the content decides, and gz, zip, bz2 and xz are unpacked."""

_START = 1 << 16  # bytes that tell what kind of text it is
_UNREAD = {
    "xls": "an Excel file of before 2007; save it as .xlsx or CSV",
    "hdf5": "an HDF5 file; save the table as Parquet or CSV",
    "sqlite": "an SQLite database; save the table as CSV",
    "pdf": "a PDF; save the table as CSV",
    "pickle": "a pickle, which is never read since it can run any code; save it as Parquet or CSV",
}


def read_table(
    path: str | Path,
    options: ReadOptions | None = None,
    *,
    expected: Sequence[str] = (),
    as_text: Sequence[str] = (),
    content: bytes | None = None,
) -> Table:
    """Read any file that holds a table.

    Parameters
    ----------
    path : path
        ``-`` is standard input.
    options : ReadOptions, optional
    expected : sequence of str
        Columns that should be there, which helps to know a header.
    as_text : sequence of str
        Columns to keep as text, whatever they hold.
    content : bytes, optional
        What the file holds, where it has been read (and unpacked) already.

    Raises
    ------
    DataError
        If there is no such file or no table in it; lines that do not fit are named.
    ConfigError
        If an option is out of range.
    MissingDependencyError
        If a library is needed that is not installed.
    """
    where = str(path)
    content = read_content(path) if content is None else content
    with reading(where, "a table", "save it as CSV", DataError):
        return _read_table(path, options or ReadOptions(), expected, as_text, content)


def _read_table(
    path: str | Path,
    options: ReadOptions,
    expected: Sequence[str],
    as_text: Sequence[str],
    content: bytes,
) -> Table:
    where, form = str(path), form_of(content)
    if form in _UNREAD:
        raise DataError(f"`{where}`: expected a table, got {_UNREAD[form]}")
    if form in ("parquet", "feather"):
        table = _retyped(frame_table(content, form, where), options, set(as_text))
    elif form == "npy":
        table = npy_table(content, where)
    elif form == "npz":
        raise DataError(f"`{where}`: expected a table, got NumPy arrays")
    else:
        table = _read_text(content, form, where, options, expected, set(as_text))
    table.name = file_stem(path)
    table.digest = digest_of(content)
    if not table.columns or not len(table):
        under = " under the header" if table.columns and table.has_header else ""
        raise DataError(f"`{where}`: expected rows{under}, got none; check its content")
    return table


def digest_of(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def file_stem(path: str | Path) -> str:
    """A file's name without its endings: ``t`` for t.csv.gz."""
    if str(path) == "-":
        return "stdin"
    name = Path(path).name
    packed = re.sub(r"\.(gz|zip|bz2|xz)$", "", name, flags=re.IGNORECASE)
    return Path(packed).stem if "." in packed[1:] else packed


def _read_text(
    content: bytes,
    form: str,
    where: str,
    options: ReadOptions,
    expected: Sequence[str],
    as_text: set[str],
) -> Table:
    nominal: set[str] = set()
    fast = None
    before = csv.field_size_limit(FIELD_LIMIT)
    try:
        if form == "xlsx":
            cells, how = workbook_rows(content, where)
            layout, rows = _rows_in_memory(cells, None, where, options, expected, how)
        else:
            kind, text = _text_kind(content, options, where)
            if kind == "svmlight":
                return svmlight_table(text, where)
            if kind == "json":
                names, cells = json_rows(text, where)
                layout, rows = _rows_in_memory(cells, names, where, options, expected, [])
            elif kind == "arff":
                names, nominal, lines = arff_parts(text, where)
                cells = list(even_rows(lines, len(names), where, _count(), []))
                layout, rows = _rows_in_memory(cells, names, where, options, expected, [])
            else:
                layout, rows = _rows_of_text(content, where, options, expected)
                fast = partial(columns_by_arrow, content, layout)
        return _table(layout, rows, options, as_text, nominal, fast)
    except csv.Error as error:
        raise DataError(
            f"`{where}`: expected CSV, got {error}; check its quotes, or name the separator (--sep)"
        ) from error
    except UnicodeError as error:
        raise DataError(f"`{where}`: expected text, got {error}; name the --encoding") from error
    finally:
        csv.field_size_limit(before)


def _count() -> Callable[[], int]:
    return lambda: 0


def _text_kind(content: bytes, options: ReadOptions, where: str) -> tuple[str, str]:
    """What kind of text it is; the whole of it only for kinds that need it."""
    encoding, _ = choose_encoding(content, options.encoding, where)
    start = content[:_START].decode(encoding, errors="ignore").lstrip("\ufeff \r\n\t")
    lines = [line.strip() for line in start.splitlines()[:5] if line.strip()]
    if re.match(r"<(\?xml|!doctype|html|table|body)", start, re.IGNORECASE):
        raise DataError(f"`{where}`: expected a table, got a page in HTML or XML; save it as CSV")
    if re.search(r"^@(relation|attribute)\b", start, re.IGNORECASE | re.MULTILINE):
        return "arff", content.decode(encoding)
    if start.startswith("{") or re.match(r"\[\s*\{", start):
        return "json", content.decode(encoding)
    if len(lines) > 1:
        lines = lines[:-1] if len(content) > _START else lines
    if lines and all(SVMLIGHT.fullmatch(line) for line in lines):
        return "svmlight", content.decode(encoding)
    return "cells", ""


def _rows_of_text(
    content: bytes, where: str, options: ReadOptions, expected: Sequence[str]
) -> tuple[Layout, Callable[[], Iterator[Sequence[str]]]]:
    layout = find_layout(
        content,
        where,
        separator=options.sep,
        encoding=options.encoding,
        header=options.header,
        expected=expected,
    )
    passes: list[int] = []

    def rows() -> Iterator[Sequence[str]]:
        lines = text_lines(content, layout.encoding, layout.skip)
        reader = rows_of(lines, layout.separator, layout.quote, strict=True)
        passes.append(1)
        return even_rows(
            reader,
            layout.width,
            where,
            lambda: layout.skip + reader.line_num,  # type: ignore[attr-defined]
            layout.how if len(passes) == 1 else [],  # said once
        )

    return layout, rows


def _rows_in_memory(
    cells: list[list[str]],
    names: list[str] | None,
    where: str,
    options: ReadOptions,
    expected: Sequence[str],
    how: list[str],
) -> tuple[Layout, Callable[[], Iterator[Sequence[str]]]]:
    """Rows that are no text file: the header is found in the same way."""
    if names is None:
        sample = cells[:1000]
        import io

        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            # A row that leaves cells open at its end stands above the table.
            [row if row[-1] else row[: max(1, _filled(row))] for row in sample]
            if sample and sum(bool(row[-1]) for row in sample) > len(sample) // 2
            else sample
        )
        layout = find_layout(
            text.getvalue().encode(),
            where,
            separator=",",
            encoding="utf-8",
            header=options.header,
            expected=expected,
        )
        layout.how = [*how, *(word for word in layout.how)]
        start = _row_after(text.getvalue(), layout.skip)
        layout.width = len(cells[0]) if cells else 0
        if layout.names is not None and len(layout.names) < layout.width:
            rest = range(len(layout.names), layout.width)
            layout.names = [*layout.names, *(f"unnamed_{place + 1}" for place in rest)]
        cells = cells[start:]
    else:
        layout = Layout("utf-8", ",", names=names, width=len(names), how=how)
    return layout, lambda: iter(row for row in cells if any(row))


def _filled(row: list[str]) -> int:
    return max((place + 1 for place, cell in enumerate(row) if cell), default=0)


def _row_after(text: str, lines: int) -> int:
    """How many rows end within the first lines of a text."""
    reader = csv.reader(iter(text.splitlines(keepends=True)))
    return sum(1 for _ in reader if reader.line_num <= lines)


def _table(
    layout: Layout,
    rows: Callable[[], Iterator[Sequence[str]]],
    options: ReadOptions,
    as_text: set[str],
    nominal: set[str],
    fast: Callable[..., list[RawColumn] | None] | None,
) -> Table:
    width = layout.width
    names = layout.names
    has_header = names is not None
    if names is None:
        names = [str(place) for place in range(width)]
    blank = Blanks(frozenset(text.strip() for text in options.na), options.default_na)
    texts = as_text | nominal
    known: list[str] = names

    def read(plain_decimals: bool) -> list[RawColumn]:
        how: Any = {
            "as_text": lambda place: known[place] in texts,
            "blank": blank,
            "plain_decimals": plain_decimals,
        }
        found = None if fast is None else fast(**how)
        return read_columns(rows, width, **how) if found is None else found

    plain = options.decimal != "," and options.thousands != "."
    raw = read(plain)
    decimal, unsure = options.decimal, False
    if decimal is None:
        decimal, unsure = choose_decimal(raw, layout.separator)
        if decimal == "," and plain:
            raw = read(False)  # a point may part thousands
    reading = Reading(blank, decimal, options.thousands)
    columns = []
    for name, part in zip(names, raw, strict=True):
        column = interpret(name, part, reading, name in texts)
        columns.append(replace(column, kind=CATEGORY) if name in nominal else column)
    columns = _without_empty_ends(columns, layout)
    if decimal == ",":
        layout.how.append("decimal commas")
    if unsure:
        layout.doubts.append(
            f"commas in numbers are taken for {'decimal signs' if decimal == ',' else 'thousands'};"
            f" --decimal {'.' if decimal == ',' else ','} if they are not"
        )
    for mark, marked in reading.marks.items():
        layout.how.append(f"{mark} signs passed over in {listed(marked)}")
    if reading.odd:
        layout.doubts.append(
            f"taken for missing among numbers: {'; '.join(reading.odd[:8])}"
            f"{f'; {len(reading.odd) - 8} more' if len(reading.odd) > 8 else ''}; "
            "--category NAME if such a column is no number"
        )
    return Table(
        columns,
        how=layout.how,
        doubts=[*layout.doubts, *reading.doubts],
        has_header=has_header,
    )


def _without_empty_ends(columns: list[Column], layout: Layout) -> list[Column]:
    """Leave out unnamed columns at the end that hold nothing: separators at the ends of lines."""
    count = len(columns)
    while (
        count > 1
        and (layout.names is None or layout.names[count - 1].startswith("unnamed_"))
        and bool(columns[count - 1].missing.all())
    ):
        count -= 1
    if count < len(columns):
        ends = len(columns) - count
        layout.how.append(f"{ends} empty column{'s' * (ends > 1)} at the end left out")
    return columns[:count]


def _retyped(table: Table, options: ReadOptions, as_text: set[str]) -> Table:
    """Texts of a typed file looked at like those of a CSV file; blanks of --na taken out."""
    blank = Blanks(frozenset(text.strip() for text in options.na), options.default_na)
    reading = Reading(blank, options.decimal or ".", options.thousands)
    columns = []
    for column in table.columns:
        if column.kind == TEXT:
            levels = [*column.levels, ""]
            codes = np.where(column.values < 0, len(levels) - 1, column.values)
            raw = RawColumn(codes=codes.astype(np.int32), levels=levels)
            column = interpret(column.name, raw, reading, column.name in as_text)
        elif column.kind == "number":
            values = column.values
            for number in blank.numbers():
                values = np.where(values == number, np.nan, values)
            endless = int(np.isinf(values).sum())
            if endless:
                reading.odd.append(f"{shown(column.name)} ({endless} infinite)")
                values = np.where(np.isinf(values), np.nan, values)
            column = replace(column, values=values)
        columns.append(column)
    table.columns = columns
    if reading.odd:
        table.doubts.append(f"taken for missing among numbers: {'; '.join(reading.odd[:8])}")
    table.doubts.extend(reading.doubts)
    return table
