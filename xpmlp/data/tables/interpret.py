"""Coded texts become columns: numbers in any spelling, truth values, dates, or texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .cells import WEAK_MISSING, Blanks, as_booleans, bare, to_number, vote
from .columns import BOOLEAN, DATE, NUMBER, TEXT, Column, listed, shown
from .dates import NOT_A_DATE, parse_dates
from .rows import RawColumn

_ODD_SHARE = 0.05  # of the cells of a column of numbers may be something else


@dataclass
class Reading:
    """How the texts of a table are to be taken, and what was seen.

    Attributes
    ----------
    blank : Blanks
    decimal : "." or ","
    thousands : str or None
    how, doubts : list of str
    """

    blank: Blanks
    decimal: str = "."
    thousands: str | None = None
    how: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    marks: dict[str, list[str]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)


def choose_decimal(columns: Sequence[RawColumn], separator: str) -> tuple[str, bool]:
    """The decimal sign of a table, and whether it could be the other one.

    One column that leaves no doubt decides for all of them. ``1,234`` alone is a thousand, except
    where cells are separated by semicolons or tabs.
    """
    votes = []
    for column in columns:
        found = vote(column.levels) if _mostly_numbers(column.levels) else None
        if found in (",", "."):
            votes.append(found)
        elif found == "?":
            votes.append("?")
    if "," in votes:
        return ",", "." in votes
    if "?" in votes and "." not in votes:
        return ("," if separator == ";" else "."), True
    return ".", False


def _mostly_numbers(levels: Sequence[str]) -> bool:
    looked = levels[:200]
    numbers = sum(
        to_number(bare(t)[0], ",") is not None or to_number(bare(t)[0]) is not None for t in looked
    )
    return numbers >= 0.5 * len(looked)


def interpret(name: str, raw: RawColumn, reading: Reading, as_text: bool = False) -> Column:
    """One column from what was read.

    Parameters
    ----------
    name : str
    raw : RawColumn
    reading : Reading
        Gathers what is worth saying.
    as_text : bool
        Whether it is wanted as text, whatever it holds.
    """
    if raw.codes is None:
        assert raw.numbers is not None
        return _with_infinities(name, raw.numbers, reading, raw.zeros)
    blank = reading.blank
    levels = [level.strip() for level in raw.levels]
    present = [place for place, level in enumerate(levels) if not blank(level)]
    counts = np.bincount(raw.codes, minlength=len(levels))
    if not present:
        return Column(name, NUMBER, np.full(len(raw.codes), np.nan))
    if not as_text:
        found = (
            _numbers(name, raw.codes, levels, counts, reading)
            or _booleans(name, raw.codes, levels, present)
            or _dates(name, raw.codes, levels, reading)
        )
        if found is not None:
            return found
    return _text(name, raw.codes, levels, reading)


def _with_infinities(name: str, values: np.ndarray, reading: Reading, zeros: bool) -> Column:
    for number in reading.blank.numbers():
        values = np.where(values == number, np.nan, values)
    endless = int(np.isinf(values).sum())
    if endless:
        reading.odd.append(f"{shown(name)} ({endless} infinite)")
        values = np.where(np.isinf(values), np.nan, values)
    return Column(name, NUMBER, values, zeros=zeros)


def _numbers(
    name: str, codes: np.ndarray, levels: list[str], counts: np.ndarray, reading: Reading
) -> Column | None:
    values = np.full(len(levels), np.nan)
    odd, marks, good = [], set(), 0
    seen: set[float] = set()
    for place, level in enumerate(levels):
        if reading.blank(level):
            continue
        text, mark = bare(level)
        number = to_number(text, reading.decimal, reading.thousands)
        if number is None:
            odd.append(place)
            continue
        values[place] = number
        good += int(counts[place])
        seen.add(number)
        if mark:
            marks.add(mark)
    if not seen:
        return None
    truths = [place for place in odd if levels[place].lower() in ("true", "false")]
    for place in truths if len(truths) == len(odd) and seen <= {0.0, 1.0} else ():
        values[place] = float(levels[place].lower() == "true")
        odd = []
    strange = [place for place in odd if levels[place].lower() not in WEAK_MISSING]
    strange_rows = int(counts[strange].sum())
    if strange and not (
        strange_rows <= _ODD_SHARE * good and len(strange) <= 5 and len(seen) >= 10
    ):
        return None
    if odd and not strange and len(seen) < 2 and len(levels) <= 3:
        return None  # such as 1 and -: as likely two classes
    if strange:
        cells = listed((levels[place] for place in strange), 3)
        reading.odd.append(f"{shown(name)} ({cells} in {strange_rows} of {len(codes)} rows)")
    for mark in marks:
        reading.marks.setdefault(mark, []).append(name)
    zeros = any(t[:1] == "0" and t[1:].isdigit() for t in levels) and all(
        t.isdigit() for t in levels if not reading.blank(t)
    )
    return _with_infinities(name, values[codes], reading, zeros)


def _booleans(name: str, codes: np.ndarray, levels: list[str], present: list[int]) -> Column | None:
    weak = [place for place in present if levels[place].lower() in WEAK_MISSING - {"n"}]
    words = [place for place in present if place not in weak]
    found = as_booleans([levels[place] for place in words])
    if found is None or len(set(found)) < len(found):
        return None  # one word in several spellings is for the reader of a warning to mend
    values = np.full(len(levels), np.nan)
    values[words] = found
    # The spelling stays: a target with these values has the classes that the file names.
    spelled = ["False", "True"]
    for place, value in zip(words, found, strict=True):
        if levels[place].lower() not in ("true", "false"):
            spelled[int(value)] = levels[place]
    return Column(name, BOOLEAN, values[codes], tuple(spelled))


def _dates(name: str, codes: np.ndarray, levels: list[str], reading: Reading) -> Column | None:
    present = [
        place
        for place, level in enumerate(levels)
        if not reading.blank(level) and level.lower() not in WEAK_MISSING
    ]
    if not present:
        return None
    # Where decimals have a comma, the day comes first.
    found = parse_dates([levels[place] for place in present], reading.decimal == ",")
    if found is None:
        return None
    dates, unsure = found
    if unsure:
        reading.doubts.append(
            f"{shown(name)}: day and month could be the other way round (read as "
            f"{'day/month' if reading.decimal == ',' else 'month/day'}); "
            "write dates as 2024-12-31 to be sure"
        )
    values = np.full(len(levels), NOT_A_DATE)
    values[present] = dates
    return Column(name, DATE, values[codes])


def _text(name: str, codes: np.ndarray, levels: list[str], reading: Reading) -> Column:
    """Texts without blanks and quotes around them; NA stays among codes of two letters."""
    if all(len(t) > 1 and t[0] == t[-1] == "'" for t in levels if not reading.blank(t)):
        levels = [level[1:-1].strip() if len(level) > 1 else level for level in levels]
    blank = reading.blank
    codes_of_two = [t for t in levels if len(t) == 2 and t.isupper() and t.isalpha()]
    others = [t for t in levels if not blank(t)]
    if (
        "NA" in levels
        and "NA" not in blank.extra
        and len(others) >= 2
        and len(codes_of_two) == len(others) + 1
    ):
        reading.doubts.append(
            f"{shown(name)}: NA is taken for a value, as all others are codes of two letters; "
            "--na NA if it means missing"
        )
        blank = Blanks(blank.extra, False)
    distinct: dict[str, int] = {}
    places = np.array(
        [-1 if blank(t) else distinct.setdefault(t, len(distinct)) for t in levels] or [-1],
        dtype=np.int32,
    )
    return Column(name, TEXT, places[codes], tuple(distinct))
