"""Columns of numbers, categories and dates as a matrix, in a way learnt from training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import ConfigError, DataError
from .cells import BOOLEAN as WORDS
from .cells import Blanks, bare, to_number
from .columns import BOOLEAN, CATEGORY, DATE, NUMBER, TEXT, Column, listed, shown
from .dates import from_whole_numbers, parse_dates

MAX_LEVELS = 100
_DAY = 86400.0
# Period of each part of a date, in its own units.
PERIODS = {"month": 12.0, "day": 31.0, "weekday": 7.0, "hour": 24.0}


@dataclass
class ColumnCode:
    """How one column is written as numbers.

    Attributes
    ----------
    name, kind : str
    fill : float or None
        What stands for a missing number or age: the median of the training rows. None refuses.
    flag : bool
        Whether a further column says which values are missing.
    levels : list of str
        Categories with a column of their own.
    rare, missing : bool
        Whether levels with few rows, and missing values, have a column.
    parts : list of str
        Parts of a date that differ between rows.
    start : float
        Day that ages count from, in days since 1970-01-01.
    aged : bool
        Whether the age is a column.
    """

    name: str
    kind: str
    fill: float | None = None
    flag: bool = False
    levels: list[str] = field(default_factory=list)
    rare: bool = False
    missing: bool = False
    parts: list[str] = field(default_factory=list)
    start: float = 0.0
    aged: bool = True

    def names(self) -> list[str]:
        """Names of the columns that it becomes."""
        if self.kind in (NUMBER, BOOLEAN):
            return [self.name, *([f"{self.name} missing"] if self.flag else [])]
        if self.kind == DATE:
            waves = [f"{self.name} {part} {wave}" for part in self.parts for wave in ("sin", "cos")]
            age = [f"{self.name} days"] if self.aged else []
            return [*age, *waves, *([f"{self.name} missing"] if self.flag else [])]
        return [
            *(f"{self.name}={level}" for level in self.levels),
            *([f"{self.name}=(rare)"] if self.rare else []),
            *([f"{self.name}=(missing)"] if self.missing else []),
        ]


class TableEncoder:
    """Writes the columns of a table as numbers.

    - A number is itself; a missing one is the median of the training rows, and where some were
      missing there a further column says so (0 or 1). Truth values are 0 and 1.
    - A category of K levels is K columns of 0 and 1. Levels of fewer than ``rare`` training rows,
      and those beyond the ``max_levels`` most frequent, share one column; so does what was not
      seen in training, or, if no level was rare, it is 0 in all of them. Missing ones are a level.
    - A date is its age in days since the first of the training rows, and sine and cosine of month,
      day, weekday and hour, of those that differ.

    Everything is learnt from the rows that :meth:`fit` is given and kept as JSON can hold it.

    Parameters
    ----------
    rare : int, optional
        Default: a hundredth of the rows, at least 2 and at most 10.
    max_levels : int
    timeless : collection of str
        Date columns without an age.

    Examples
    --------
    >>> import numpy as np
    >>> from xpmlp.data.tables import Column, TableEncoder
    >>> size = Column("size", "number", np.array([1.0, np.nan, 3.0]))
    >>> kind = Column("kind", "text", np.array([0, 1, 0], dtype=np.int32), ("a", "b"))
    >>> encoder = TableEncoder(rare=1).fit([size, kind])
    >>> encoder.names
    ('size', 'size missing', 'kind=a', 'kind=b')
    >>> encoder.transform([size, kind]).tolist()
    [[1.0, 0.0, 1.0, 0.0], [2.0, 1.0, 0.0, 1.0], [3.0, 0.0, 1.0, 0.0]]
    """

    def __init__(
        self,
        *,
        rare: int | None = None,
        max_levels: int = MAX_LEVELS,
        timeless: Sequence[str] = (),
    ):
        if rare is not None and rare < 1:
            raise ConfigError(f"`rare`: expected at least 1 row, got {rare}")
        if max_levels < 1:
            raise ConfigError(f"`max_levels`: expected at least 1, got {max_levels}")
        self.rare, self.max_levels, self.timeless = rare, max_levels, tuple(timeless)
        self.codes: list[ColumnCode] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that :meth:`transform` gives."""
        return tuple(name for code in self.codes for name in code.names())

    @property
    def numbers(self) -> tuple[bool, ...]:
        """Which columns of :meth:`transform` are numbers of any size, and not 0 and 1 or waves."""
        found: list[bool] = []
        for code in self.codes:
            own = code.kind in (NUMBER, BOOLEAN) or (code.kind == DATE and code.aged)
            found += [own, *[False] * (len(code.names()) - 1)] if code.names() else []
        return tuple(found)

    @property
    def categories(self) -> tuple[str, ...]:
        """Which category each column of :meth:`transform` is a level of; nothing for the others."""
        return tuple(
            code.name if code.kind == CATEGORY else "" for code in self.codes for _ in code.names()
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the columns that :meth:`transform` takes."""
        return tuple(code.name for code in self.codes)

    def fit(self, columns: Sequence[Column]) -> TableEncoder:
        """Learn from the columns of the training rows.

        Raises
        ------
        DataError
            If there are no rows.
        """
        if not columns or not len(columns[0]):
            raise DataError("`TableEncoder.fit`: expected columns with rows, got none")
        rows = len(columns[0])
        rare = self.rare if self.rare is not None else min(10, max(2, rows // 100))
        self.codes = [self._fit_one(column, rare) for column in columns]
        return self

    def _fit_one(self, column: Column, rare: int) -> ColumnCode:
        missing = column.missing
        code = ColumnCode(column.name, column.kind, flag=bool(missing.any()))
        known = column.values[~missing]
        if column.kind in (NUMBER, BOOLEAN):
            code.fill = float(np.median(known)) if len(known) else 0.0
        elif column.kind == DATE:
            days = _days(known)
            code.start = float(np.floor(days.min())) if len(days) else 0.0
            code.fill = float(np.median(days)) if len(days) else 0.0
            code.aged = column.name not in self.timeless
            code.parts = [
                name for name, values in _parts(known).items() if len(np.unique(values)) > 1
            ]
        else:
            code.kind, code.flag = CATEGORY, False
            counts = np.bincount(known, minlength=len(column.levels))
            order = sorted(range(len(counts)), key=lambda place: (-counts[place], place))
            seen = [place for place in order if counts[place]]
            kept = [place for place in seen if counts[place] >= rare][: self.max_levels]
            code.levels = sorted(column.levels[place] for place in kept)
            code.rare, code.missing = len(kept) < len(seen), bool(missing.any())
        return code

    def transform(self, columns: Sequence[Column], where: str = "table") -> np.ndarray:
        """Columns as a matrix.

        Parameters
        ----------
        columns : sequence of Column
            Found by name; others than those of :attr:`inputs` are passed over.
        where : str
            The file, for messages.

        Returns
        -------
        ndarray of float64, shape (N, D)

        Raises
        ------
        DataError
            If columns are missing or hold what they did not hold in training; all of them are
            named.
        """
        by_name = {column.name: column for column in columns}
        absent = [code.name for code in self.codes if code.name not in by_name]
        if absent:
            raise DataError(
                f"`{where}`: expected the columns the network was trained on, got none named "
                f"{listed(absent)}; it has {listed(by_name, 30)}"
            )
        rows = len(columns[0])
        out = np.zeros((rows, len(self.names)))
        wrong: list[str] = []
        start = 0
        for code in self.codes:
            width = len(code.names())
            try:
                _write(code, by_name[code.name], out[:, start : start + width])
            except DataError as error:
                wrong.append(str(error))
            start += width
        if wrong:
            more = f"; {len(wrong) - 8} more columns" if len(wrong) > 8 else ""
            raise DataError(f"`{where}`: {'; '.join(wrong[:8])}{more}; mend or leave them empty")
        return out

    def describe(self, row: np.ndarray) -> dict[str, str]:
        """A row of :meth:`transform` in words again: the value of each column of the file."""
        words: dict[str, str] = {}
        start = 0
        for code in self.codes:
            width = len(code.names())
            words[code.name] = _in_words(code, row[start : start + width])
            start += width
        return words

    def filled(self, columns: Sequence[Column]) -> dict[str, int]:
        """How many missing values of numbers and dates are filled in, by column."""
        by_name = {column.name: column for column in columns}
        counts = {
            code.name: int(_coerced(code, by_name[code.name]).missing.sum())
            for code in self.codes
            if code.kind != CATEGORY
        }
        return {name: count for name, count in counts.items() if count}

    def to_dict(self) -> dict[str, Any]:
        """All that was learnt, as JSON can hold it."""
        return {"columns": [vars(code) for code in self.codes]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableEncoder:
        """Undo :meth:`to_dict`.

        Raises
        ------
        DataError
            If it was not written by :meth:`to_dict`.
        """
        encoder = cls()
        try:
            encoder.codes = [ColumnCode(**code) for code in values["columns"]]
        except (KeyError, TypeError) as error:
            raise DataError(
                f"`TableEncoder.from_dict`: expected what to_dict wrote, got {values!r:.80} "
                f"({error})"
            ) from error
        return encoder

    @classmethod
    def of_numbers(cls, names: Sequence[str]) -> TableEncoder:
        """One that takes numbers as they are and refuses missing ones."""
        encoder = cls()
        encoder.codes = [ColumnCode(str(name), NUMBER) for name in names]
        return encoder


def _write(code: ColumnCode, column: Column, out: np.ndarray) -> None:
    column = _coerced(code, column)
    missing = column.missing
    if code.kind == CATEGORY:
        places = {level: place for place, level in enumerate(code.levels)}
        other = len(code.levels) if code.rare else -1
        wanted = np.array([*(places.get(level, other) for level in column.levels), -1])[
            column.values
        ]
        if code.missing:
            wanted = np.where(missing, len(code.levels) + code.rare, wanted)
        rows = np.flatnonzero(wanted >= 0)
        out[rows, wanted[rows]] = 1.0
        return
    if code.fill is None and missing.any():
        raise DataError(
            f"expected a value in every row of column {shown(code.name)}, got "
            f"{int(missing.sum())} missing ones, the first in row {int(np.argmax(missing)) + 1}"
        )
    fill = 0.0 if code.fill is None else code.fill  # then nothing is missing
    if code.kind == DATE:
        days = np.where(missing, fill, _days(column.values))
        if code.aged:
            out[:, 0] = days - code.start
        place = int(code.aged)
        parts = _parts(np.where(missing, np.datetime64(0, "s"), column.values))
        for name in code.parts:
            angle = 2 * np.pi * parts[name] / PERIODS[name]
            out[:, place] = np.where(missing, 0.0, np.sin(angle))
            out[:, place + 1] = np.where(missing, 0.0, np.cos(angle))
            place += 2
    else:
        out[:, 0] = np.where(missing, fill, column.values)
    if code.flag:
        out[:, -1] = missing


def _in_words(code: ColumnCode, values: np.ndarray) -> str:
    if code.kind == CATEGORY:
        rest = [*(["(rare)"] if code.rare else []), *(["(missing)"] if code.missing else [])]
        return [*code.levels, *rest][int(values.argmax())] if values.any() else "(other)"
    if code.flag and values[-1]:
        return "(missing)"
    if code.kind != DATE:
        return f"{values[0]:.6g}"
    if not code.aged:
        return "(date)"  # its parts alone, which are no date
    moment = np.datetime64(round((float(values[0]) + code.start) * _DAY), "s")
    return str(moment).removesuffix("T00:00:00").replace("T", " ")


def _coerced(code: ColumnCode, column: Column) -> Column:
    """A column as the kind that it had in training."""
    if column.kind == code.kind or {column.kind, code.kind} <= {NUMBER, BOOLEAN}:
        return column
    if code.kind == CATEGORY:
        if column.kind == TEXT:
            return column
        texts = column.texts()
        levels: dict[str, int] = {}
        codes = [-1 if t is None else levels.setdefault(t, len(levels)) for t in texts]
        return Column(column.name, CATEGORY, np.array(codes, dtype=np.int32), tuple(levels))
    if bool(column.missing.all()):
        empty = np.full(len(column), np.nan)
        return Column(column.name, code.kind, empty.astype("M8[s]") if code.kind == DATE else empty)
    if column.kind in (TEXT, CATEGORY):
        return _from_text(code, column)
    if column.kind == NUMBER and code.kind == DATE:
        dates = from_whole_numbers(column.values)
        if dates is not None:
            return Column(column.name, DATE, dates)
    raise _unlike(code, column, 0)


def _from_text(code: ColumnCode, column: Column) -> Column:
    blank = Blanks()
    values: list[Any] = []
    for place, level in enumerate(column.levels):
        if blank(level):
            values.append(np.datetime64("NaT", "s") if code.kind == DATE else np.nan)
        elif code.kind == DATE:
            found = parse_dates([level])
            if found is None:
                raise _unlike(code, column, place)
            values.append(found[0][0])
        else:
            number = to_number(bare(level)[0])
            number = WORDS.get(level.lower()) if number is None else number
            if number is None:
                raise _unlike(code, column, place)
            values.append(number)
    gone = np.datetime64("NaT", "s") if code.kind == DATE else np.nan
    return Column(column.name, code.kind, np.array([*values, gone])[column.values])


def _unlike(code: ColumnCode, column: Column, place: int) -> DataError:
    hits = column.values == place if column.kind in (TEXT, CATEGORY) else ~column.missing
    row = int(np.argmax(hits))
    if column.kind in (TEXT, CATEGORY):
        value = shown(column.levels[place])
    else:
        value = shown(str(column.values[row]))
    kind = {NUMBER: "numbers", BOOLEAN: "truth values", DATE: "dates"}[code.kind]
    return DataError(f"expected {kind} in column {shown(code.name)}, got {value} in row {row + 1}")


def _days(values: np.ndarray) -> np.ndarray:
    return values.astype("M8[s]").astype(np.int64) / _DAY


def _parts(values: np.ndarray) -> dict[str, np.ndarray]:
    days = values.astype("M8[D]")
    months = values.astype("M8[M]")
    return {
        "month": months.astype(np.int64) % 12,
        "day": (days - months.astype("M8[D]")).astype(np.int64),
        "weekday": (days.astype(np.int64) + 3) % 7,
        "hour": (values - days).astype("m8[s]").astype(np.int64) / 3600.0,
    }
