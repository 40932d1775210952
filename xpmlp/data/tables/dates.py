"""Dates and times in the spellings that tables have, judged by the whole column."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_NAME = r"(?P<name>[A-Za-z]{3,9})\.?"
_TIME = (
    r"(?P<h>\d{1,2})[:.](?P<mi>\d{2})(?:[:.](?P<s>\d{2})(?:[.,]\d+)?)?(?:\s*(?P<half>[AaPp][Mm]))?"
)
_ZONE = r"(?:\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}))?"
_WITH_TIME = rf"(?:[T\s,]+{_TIME}{_ZONE})?"
_FORMS = [
    re.compile(
        rf"(?P<y>\d{{4}})(?P<sep>[-/.])(?P<m>\d{{1,2}})(?P=sep)(?P<d>\d{{1,2}}){_WITH_TIME}"
    ),
    re.compile(
        rf"(?P<a>\d{{1,2}})(?P<sep>[-/.])(?P<b>\d{{1,2}})(?P=sep)(?P<y>\d{{4}}|\d{{2}}){_WITH_TIME}"
    ),
    re.compile(rf"(?P<d>\d{{1,2}})[-\s/.]+{_NAME}[-\s/.,]+(?P<y>\d{{4}}|\d{{2}}){_WITH_TIME}"),
    re.compile(rf"{_NAME}\s+(?P<d>\d{{1,2}}),?\s+(?P<y>\d{{4}}){_WITH_TIME}"),
    re.compile(r"(?P<y>\d{4})-(?P<m>\d{2})"),
    re.compile(rf"{_TIME}"),
]
DATE_LIKE = re.compile(
    "|".join(
        re.sub(r"\?P<\w+>", "?:", form.pattern).replace("(?P=sep)", "[-/.]") for form in _FORMS
    )
)
NOT_A_DATE = np.datetime64("NaT", "s")


def parse_dates(levels: Sequence[str], day_first: bool = False) -> tuple[np.ndarray, bool] | None:
    """Texts as datetime64[s], and whether day and month could be the other way round.

    ``5/3/2024`` is the fifth of March where another date of the column has a day above 12 in first
    place; else the third of May, unless ``day_first``. With points the day is always first. Times
    by themselves are of 1970-01-01. Zones are taken into account: the result is in UTC.

    Returns
    -------
    None if any of the texts is no date.
    """
    for form in _FORMS:
        matches = [form.fullmatch(level.strip()) for level in levels]
        found = [match.groupdict() for match in matches if match is not None]
        if len(found) < len(levels):
            continue
        numeric = [parts for parts in found if parts.get("a")]
        certain = any(int(p["a"] or 0) > 12 or p["sep"] == "." for p in numeric)
        other = any(int(p["b"] or 0) > 12 for p in numeric)
        day_first = (certain or day_first) and not (other and not certain)
        try:
            dates = np.array([_date(parts, day_first) for parts in found], dtype="datetime64[s]")
        except ValueError:
            continue
        return dates, bool(numeric) and not certain and not other
    return None


def _date(parts: dict[str, str | None], day_first: bool) -> np.datetime64:
    year, month, day = parts.get("y"), parts.get("m"), parts.get("d") or "1"
    if parts.get("a"):
        day, month = (parts["a"], parts["b"]) if day_first else (parts["b"], parts["a"])
    if parts.get("name"):
        name = str(parts["name"])[:3].lower()
        if name not in _MONTHS:
            raise ValueError(name)
        month = str(_MONTHS.index(name) + 1)
    if year is None:
        year, month, day = "1970", "1", "1"
    elif len(year) == 2:
        year = f"{'20' if int(year) < 69 else '19'}{year}"
    date = np.datetime64(f"{year}-{int(month or 1):02}-{int(day or 1):02}", "s")
    if parts.get("h"):
        hour, minute, second = (int(parts.get(key) or 0) for key in ("h", "mi", "s"))
        if parts.get("half"):
            hour = hour % 12 + (12 if str(parts["half"]).lower() == "pm" else 0)
        if hour > 24 or minute > 59 or second > 60:
            raise ValueError(hour)
        date += np.timedelta64(3600 * hour + 60 * minute + second, "s")
    zone = parts.get("zone")
    if zone and zone[0] in "+-":
        offset = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        date -= np.timedelta64(offset if zone[0] == "+" else -offset, "s")
    return date


def from_whole_numbers(values: np.ndarray) -> np.ndarray | None:
    """Numbers such as 20240131 as dates, if all of them are dates between 1900 and 2100."""
    known = values[~np.isnan(values)]
    if not len(known) or known.min() < 19000101 or known.max() > 21001231:
        return None
    distinct, places = np.unique(known, return_inverse=True)
    if np.any(distinct != np.floor(distinct)):
        return None
    texts = [f"{int(v) // 10000:04}-{int(v) // 100 % 100:02}-{int(v) % 100:02}" for v in distinct]
    try:
        dates = np.array(texts, dtype="datetime64[s]")
    except ValueError:
        return None
    result = np.full(len(values), NOT_A_DATE)
    result[~np.isnan(values)] = dates[places]
    return result
