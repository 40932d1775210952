"""What each column is for: which are inputs, of which kind, and which are left out and why."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from .columns import CATEGORY, DATE, NUMBER, TEXT, UNNAMED, Column, shown
from .dates import from_whole_numbers

_ID_NAME = re.compile(
    rf"{UNNAMED}.*|(row|obs|record|case|line)?[ _.-]?(index|idx|no|nr|num|number|names?|id)\.?|#|"
    r"instant|order|row(s|names)?|.*[ _.\-](id|idx|uuid|guid|key)|.*[a-z](Id|ID)|pid|uid",
    re.IGNORECASE,
)
_CAMEL_ID = re.compile(r".*[a-z](Id|ID)|.*[ _.\-](?i:id|idx|uuid|guid|key)")
_TIME_NAME = re.compile(r".*(year|date|time|month|day|week|hour|age|t)", re.IGNORECASE)
_MANY_LEVELS = 10  # fewer whole numbers are no ids
_EXACT = 2**53  # beyond it, not every whole number is a float


@dataclass
class Inputs:
    """The columns that a network is to see, and a word on the others.

    Attributes
    ----------
    columns : list of Column
        Each of the kind that it is used as.
    left_out : dict of str to list of str
        Names by reason.
    how, doubts : list of str
    """

    columns: list[Column] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)

    def leave_out(self, column: Column, reason: str) -> None:
        """Note that a column is no input."""
        self.left_out.setdefault(reason, []).append(column.name)


def choose_inputs(
    columns: list[Column], *, keep: Collection[str] = (), categories: Collection[str] = ()
) -> Inputs:
    """Decide for each column.

    Parameters
    ----------
    columns : list of Column
        All but the target and what was dropped.
    keep : collection of str
        Columns that are inputs even if they look like row numbers or ids.
    categories : collection of str
        Columns that are categories, whatever they hold.
    """
    inputs = Inputs()
    ids: list[tuple[Column, str]] = []
    for column in columns:
        missing = column.missing
        if bool(missing.all()):
            inputs.leave_out(column, "without any value")
        elif column.constant():
            long = column.kind == NUMBER and abs(column.values[0]) > _EXACT
            inputs.leave_out(
                column,
                "whole numbers of too many digits to tell apart" if long else "with one value only",
            )
        elif column.name in categories:
            inputs.columns.append(as_category(column))
        elif column.kind == NUMBER:
            reason = None if column.name in keep else _no_input(column)
            if reason is not None:
                ids.append((column, reason))
            else:
                inputs.columns.append(_number(column, inputs))
        elif column.kind == TEXT and _one_each(column):
            if column.name in keep:
                inputs.columns.append(column)
            else:
                inputs.leave_out(column, "text of its own in nearly every row")
        else:
            inputs.columns.append(column)
    if not inputs.columns and ids:  # better a row number than nothing
        inputs.columns = [column for column, _ in ids]
        inputs.doubts.append(
            f"{', '.join(shown(column.name) for column, _ in ids)}: looks like row numbers, but "
            "nothing else is there"
        )
        return inputs
    for column, reason in ids:
        inputs.leave_out(column, reason)
    return inputs


def as_category(column: Column) -> Column:
    """Any column as a category of its values."""
    if column.kind in (TEXT, CATEGORY):
        return replace(column, kind=CATEGORY)
    texts = column.texts()
    levels: dict[str, int] = {}
    codes = [-1 if text is None else levels.setdefault(text, len(levels)) for text in texts]
    return Column(column.name, CATEGORY, np.array(codes, dtype=np.int32), tuple(levels))


def _one_each(column: Column) -> bool:
    present = int((~column.missing).sum())
    distinct = column.distinct()
    return present == len(column) and distinct > 10 and distinct > 0.95 * present


def _no_input(column: Column) -> str | None:
    """Why numbers are no input: they count the rows, or tell one from the other."""
    values = column.values
    if np.isnan(values).any() or len(values) < 3 or bool(np.any(values != np.floor(values))):
        return None
    if not _ID_NAME.fullmatch(column.name):
        return None
    if bool(np.all(np.diff(values) == 1)):
        return "row numbers"
    if column.distinct() == len(values) and len(values) > 10:
        return "ids, another in every row"
    return None


def _number(column: Column, inputs: Inputs) -> Column:
    """A column of numbers as it is used; what it could be besides is said."""
    name, values = shown(column.name), column.values
    known = values[~np.isnan(values)]
    dates = from_whole_numbers(values)
    if dates is not None:
        inputs.doubts.append(f"{name}: whole numbers such as {known[0]:.0f} are taken for dates")
        return Column(column.name, DATE, dates)
    whole = bool(np.all(known == np.floor(known)))
    if whole and float(np.abs(known).max()) > _EXACT:
        inputs.doubts.append(
            f"{name}: whole numbers of {len(f'{np.abs(known).max():.0f}')} digits, of which 16 "
            "count; --drop it if they are ids"
        )
    elif column.zeros:
        inputs.doubts.append(
            f"{name}: leading zeros, as codes have; used as numbers (--category {column.name})"
        )
    elif whole and len(known) > 10 and bool(np.all(np.diff(values) == 1)):
        if not _TIME_NAME.fullmatch(column.name):
            inputs.doubts.append(
                f"{name}: goes up by one from row to row; --drop it if it counts rows"
            )
    elif whole and _CAMEL_ID.fullmatch(column.name) and column.distinct() > _MANY_LEVELS:
        inputs.doubts.append(
            f"{name}: used as numbers; --drop, --category or --group if they are ids"
        )
    else:
        _say_sentinel(column, known, inputs)
    return column


def _say_sentinel(column: Column, known: np.ndarray, inputs: Inputs) -> None:
    """-999 and the like, far from all other values, more than once."""
    low = float(known.min())
    others = known[known > low]
    if low not in (-9.0, -99.0, -999.0, -9999.0, -99999.0, -200.0) or not len(others):
        return
    far = float(others.min()) >= 0 or float(others.min()) - low > np.ptp(others)
    if far and int((known == low).sum()) > 1:
        inputs.doubts.append(
            f"{shown(column.name)}: {low:.0f} in {int((known == low).sum())} rows; "
            f"--na {low:.0f} if it means missing"
        )
