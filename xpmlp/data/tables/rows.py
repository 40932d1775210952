"""Rows of cells, column by column: numbers as they come, texts coded, in blocks.

A column of plain numbers never exists as text: its cells become floats block by block. A column
that turns out to hold something else after its first block is read a second time.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ...errors import DataError
from .cells import Blanks, is_number
from .columns import shown

_BLOCK = 4096
_LEADING_ZERO = re.compile(r"^\s*[+-]?0\d", re.MULTILINE)


@dataclass
class RawColumn:
    """What the cells of a column came to: numbers, or coded texts."""

    numbers: np.ndarray | None = None
    codes: np.ndarray | None = None
    levels: list[str] = field(default_factory=list)
    zeros: bool = False


class _Builder:
    """Takes a column's cells in blocks."""

    def __init__(self, as_text: bool, blank: Blanks, plain_decimals: bool):
        self.text, self.blank, self.plain_decimals = as_text, blank, plain_decimals
        self.parts: list[np.ndarray] = []
        self.zeros = self.late = False
        self.codes, self.places = array("i"), dict[str, int]()

    def add(self, cells: Sequence[str]) -> None:
        if self.late:
            return
        if not self.text:
            found = numbers_of(cells, self.blank, self.plain_decimals)
            if found is not None:
                self.parts.append(found[0])
                self.zeros |= found[1]
                return
            if self.parts:
                self.late = True
                self.parts = []
                return
            self.text = True
        places = self.places
        self.codes.extend([places.setdefault(cell.strip(), len(places)) for cell in cells])

    def done(self) -> RawColumn:
        if self.text:
            codes = np.frombuffer(self.codes, dtype=np.intc).astype(np.int32)
            return RawColumn(codes=codes, levels=list(self.places))
        numbers = np.concatenate(self.parts) if self.parts else np.empty(0)
        return RawColumn(numbers=numbers, zeros=self.zeros)


def numbers_of(
    cells: Sequence[str], blank: Blanks, plain_decimals: bool
) -> tuple[np.ndarray, bool] | None:
    """Cells as float64, NaN where blank, and whether they are whole and one begins with a zero.

    None, if a cell is no number.
    """
    joined = "\n".join(cells)
    # float() takes 1_000 and digits of all scripts; tables with them are looked at as texts.
    if "_" in joined or not joined.isascii() or (not plain_decimals and "." in joined):
        return None
    try:
        try:
            values = np.array([float(cell) for cell in cells])
        except ValueError:
            values = np.array([np.nan if blank(cell) else float(cell) for cell in cells])
    except ValueError:
        return None
    if "0" not in joined or not _LEADING_ZERO.search(joined):
        return values, False
    whole = values[~np.isnan(values)]
    return values, bool(np.all(whole == np.floor(whole)))


def read_columns(
    rows: Callable[[], Iterator[Sequence[str]]],
    width: int,
    *,
    as_text: Callable[[int], bool] = lambda place: False,
    blank: Blanks = Blanks(),  # noqa: B008
    plain_decimals: bool = True,
) -> list[RawColumn]:
    """Read all rows into columns.

    Parameters
    ----------
    rows : callable
        Gives the rows, each of ``width`` cells, and gives them again when called again.
    width : int
    as_text : callable
        Whether the column of that place is wanted as text, whatever it holds.
    blank : Blanks
        Which cells hold no value.
    plain_decimals : bool
        False: cells with a point are kept as text, since it may part thousands.
    """
    columns: list[RawColumn | None] = [None] * width
    texts = {place for place in range(width) if as_text(place)}
    while any(column is None for column in columns):
        builders = {
            place: _Builder(place in texts, blank, plain_decimals)
            for place in range(width)
            if columns[place] is None
        }
        source = rows()
        while block := list(islice(source, _BLOCK)):
            for place, cells in enumerate(zip(*block, strict=True)):
                if place in builders:
                    builders[place].add(cells)
        for place, builder in builders.items():
            if builder.late:
                texts.add(place)
            else:
                columns[place] = builder.done()
    return [column for column in columns if column is not None]


def even_rows(
    source: Iterator[list[str]], width: int, where: str, line: Callable[[], int], notes: list[str]
) -> Iterator[list[str]]:
    """Rows of one length; comments, empty rows and empty cells beyond the last column left out.

    Raises
    ------
    DataError
        If rows are shorter or longer; the first lines are named and all of them counted.
    """
    uneven: list[tuple[int, int]] = []
    below: list[list[str]] = []  # short lines after the last row
    count = empty = comments = good = 0
    for row in source:
        if len(row) != width:
            if not row or not any(cell.strip() for cell in row):
                empty += bool(row)
                continue
            if len(row) > width and not any(cell.strip() for cell in row[width:]):
                row = row[:width]
            elif row[0].startswith(("#", "%")):
                comments += 1
                continue
            else:
                count += 1
                if count <= 5:
                    uneven.append((line(), len(row)))
                    below.append(row)
                continue
        if not row[0].strip() and not any(cell.strip() for cell in row):
            empty += 1
            continue
        below.clear()
        good += 1
        yield row
    if good >= 10 and 0 < count == len(below) <= 3 and all(_remark(row, width) for row in below):
        notes.append(
            f"{count} line{'s' * (count > 1)} below the table left out: {shown(below[0][0])}"
        )
        count = 0
    if count:
        named = ", ".join(f"{length} in line {number}" for number, length in uneven)
        more = f" and in {count - 5} more" if count > 5 else ""
        raise DataError(
            f"`{where}`: expected {width} values in every row, got {named}{more}; mend these "
            "lines, or name the separator (--sep)"
        )
    if empty:
        notes.append(f"{empty} empty row{'s' * (empty > 1)} left out")
    if comments:
        notes.append(f"{comments} comment line{'s' * (comments > 1)} left out")


def _remark(row: list[str], width: int) -> bool:
    """Whether a short line is a remark or a sum, rather than a row that was cut."""
    return 2 * len(row) <= width and not is_number(row[0])
