"""A table in memory: columns of numbers, dates or coded text, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...errors import DataError

NUMBER, BOOLEAN, DATE, TEXT, CATEGORY = "number", "boolean", "date", "text", "category"


@dataclass(frozen=True, eq=False)
class Column:
    """One column.

    Attributes
    ----------
    name : str
    kind : str
        ``number`` and ``boolean``: float64, NaN where missing. ``date``: datetime64[s], NaT where
        missing. ``text`` and ``category`` (text that the file declares to be one): int32 places in
        ``levels``, -1 where missing. ``boolean`` has the words for 0 and for 1 there.
    values : ndarray, shape (N,)
    levels : tuple of str
        The different texts.
    zeros : bool
        Whether whole numbers were written with leading zeros, as codes are.
    """

    name: str
    kind: str
    values: np.ndarray
    levels: tuple[str, ...] = ()
    zeros: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> np.ndarray:
        """True where there is no value."""
        if self.kind == DATE:
            return np.isnat(self.values)
        if self.kind in (TEXT, CATEGORY):
            return self.values < 0
        return np.isnan(self.values)

    def take(self, rows: np.ndarray) -> Column:
        """The same column with these rows only."""
        return replace(self, values=self.values[rows])

    def texts(self) -> np.ndarray:
        """The values as text, None where missing; whole numbers without ``.0``."""
        if self.kind in (TEXT, CATEGORY):
            return np.array([*self.levels, None], dtype=object)[self.values]
        gone = self.missing
        if self.kind == BOOLEAN:
            words = np.array([*(self.levels or ("0", "1")), None], dtype=object)
            return words[np.where(gone, 2, self.values).astype(np.int64)]
        if self.kind == DATE:
            found = [None if no else str(v) for v, no in zip(self.values, gone, strict=True)]
        else:
            found = [
                None if no else number_text(v)
                for v, no in zip(self.values.tolist(), gone.tolist(), strict=True)
            ]
        return np.array(found, dtype=object)

    def constant(self) -> bool:
        """Whether all values are the same, none of them missing."""
        low, high = self.values.min(), self.values.max()
        return bool(low == high) and not bool(self.missing[0])

    def distinct(self) -> int:
        """How many different values there are, missing ones not counted."""
        return len(np.unique(self.values[~self.missing]))


@dataclass
class Table:
    """Columns of one length, and what was seen while reading them.

    Attributes
    ----------
    columns : list of Column
    name : str
        The file's name without its endings.
    how : list of str
        How the file was read, for the summary: separator, encoding, what was passed over.
    doubts : list of str
        What could be meant otherwise, each with the option that says so.
    default_target : str or None
        The column that the format itself makes the target.
    has_header : bool
        Whether the names are from the file.
    digest : str
        SHA-256 of the content.
    """

    columns: list[Column]
    name: str = "table"
    how: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    default_target: str | None = None
    has_header: bool = True
    digest: str = ""

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    def column(self, name: str) -> Column:
        """The column of that name."""
        return self.columns[self.names.index(name)]

    def take(self, rows: np.ndarray) -> Table:
        """The same table with these rows only."""
        return replace(self, columns=[column.take(rows) for column in self.columns])

    def find(self, where: str, argument: str, wanted: str | int) -> str:
        """A column's name from its name, or from its place (from 0; negative from the end).

        Raises
        ------
        DataError
            If there is none; the columns are listed.
        """
        names = self.names
        if isinstance(wanted, str):
            for same in (str, str.strip, lambda name: name.strip().casefold()):
                hits = [name for name in names if same(name) == same(wanted)]
                if len(hits) == 1:
                    return hits[0]
            if wanted == "" and names and names[0].startswith(UNNAMED):
                return names[0]
        try:
            place = int(wanted)
        except ValueError:
            place = len(names)
        if not -len(names) <= place < len(names):
            listed = ", ".join(shown(name) for name in names[:30])
            more = f" and {len(names) - 30} more" if len(names) > 30 else ""
            raise DataError(
                f"`{where}`: expected {argument} to be a column, got {shown(str(wanted))}; the "
                f"columns are {listed}{more} (or their numbers from 0)"
            )
        return names[place]

    def find_all(self, where: str, argument: str, wanted: Any) -> list[str]:
        """Columns from a list; a text that is no column is taken apart at its commas."""
        found: list[str] = []
        for one in [wanted] if isinstance(wanted, str | int) else list(wanted or ()):
            parts: list[str | int] = [one]
            if isinstance(one, str) and "," in one:
                try:
                    found.append(self.find(where, argument, one))
                    continue
                except DataError:
                    parts = [part for part in split_names(one) if part]
            found.extend(self.find(where, argument, part) for part in parts)
        return list(dict.fromkeys(found))


UNNAMED = "unnamed"


def split_names(text: str) -> list[str]:
    """``a, "b, c"`` as ``["a", "b, c"]``."""
    import csv

    return [part.strip() for part in next(csv.reader([text], skipinitialspace=True), [])]


def number_text(value: float) -> str:
    """A number as a file would write it: 3 rather than 3.0."""
    return str(int(value)) if value == int(value) and abs(value) < 2**63 else repr(value)


def shown(text: str, limit: int = 40) -> str:
    """A name or value for a message: quoted, cut, without anything that a terminal acts on."""
    return repr(text if len(text) <= limit else f"{text[: limit - 1]}…")


def listed(names: Any, limit: int = 8) -> str:
    """Some names in a row, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(shown(str(name)) for name in names[:limit]) + more
