"""What the texts of a column mean: numbers in all their spellings, truth values, dates, nothing.

A column is judged as a whole, from its different texts: ``1,000`` is a thousand where another cell
says ``1,000,000`` and one where another says ``0,5``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MISSING = frozenset(
    [
        *("", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "+nan", "null", "(null)", "?"),
        *("#div/0!", "#value!", "#ref!", "#null!", "#num!", "#name?", "nat", "\\n", "n.a.", "??"),
        *("1.#qnan", "-1.#ind", "1.#ind", "-1.#qnan", "#n/a n/a", "#error!"),
    ]
)
"""Spellings of a missing value, in any column; lower case."""

WEAK_MISSING = frozenset(
    [
        *("none", "nil", "-", "--", "---", ".", "..", "...", "*", "x", "missing", "unknown"),
        *("n", "na.", "not available", "not applicable", "unavailable", "no data", "nd", "n.d."),
        *("–", "—", "_", "blank", "(blank)", "undefined", "void", "inf", "-inf", "+inf"),
        *("infinity", "-infinity", "tbd", ":", "/", "empty"),
    ]
)
"""Spellings that are one only among numbers and dates: elsewhere they may be a class."""

BOOLEAN = {
    **dict.fromkeys(("true", "yes", "t", "y", "on"), 1.0),
    **dict.fromkeys(("false", "no", "f", "n", "off"), 0.0),
}
_PAIRS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"on", "off"})

PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
DECIMAL_COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:[. '’\u00a0\u202f]\d{3})+|\d*),\d+(?:[eE][+-]?\d+)?")
THOUSANDS_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")
THOUSANDS_POINT = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3}){2,}")
THOUSANDS_BLANK = re.compile(r"[+-]?[1-9]\d{0,2}(?:[ '’\u00a0\u202f]\d{3})+(?:[.,]\d+)?")
_CURRENCY = (
    r"[$€£¥₹₽₩¢₺₴₪]|(?:US|A|C|R)\$|\b(?:USD|EUR|GBP|JPY|CHF|CAD|AUD|INR|CNY|SEK|NOK|DKK|PLN)\b"
)
_MARKS = re.compile(rf"{_CURRENCY}|%")
_HAS_MARK = re.compile(r"[$€£¥₹₽₩¢₺₴₪%]|[A-Z]{3}")


@dataclass(frozen=True)
class Blanks:
    """Which texts say that there is no value.

    Attributes
    ----------
    extra : frozenset of str
        Spellings beside the usual ones.
    usual : bool
        Whether the usual ones count; an empty cell always does.
    """

    extra: frozenset[str] = frozenset()
    usual: bool = True

    def __call__(self, text: str) -> bool:
        text = text.strip()
        return not text or text in self.extra or (self.usual and text.lower() in MISSING)

    def numbers(self) -> list[float]:
        """The extra spellings that are numbers, such as -999."""
        return [float(text) for text in self.extra if PLAIN.fullmatch(text)]


def bare(text: str) -> tuple[str, str]:
    """A number without its currency or percent sign, ``(5)`` as ``-5``, and the sign's name."""
    text = text.strip().replace("\u2212", "-")
    if text.startswith("(") and text.endswith(")") and len(text) > 2:
        text = "-" + text[1:-1].strip()
    mark = ""
    if _HAS_MARK.search(text):
        found = _MARKS.findall(text)
        if len(found) == 1:
            mark = "percent" if found[0] == "%" else "currency"
            text = _MARKS.sub("", text).strip()
            text = re.sub(r"^([+-])\s+", r"\1", text)
    return text, mark


def vote(texts: Iterable[str]) -> str | None:
    """Which sign the decimals of a column have, if its texts leave no other reading.

    Returns
    -------
    "," or ".", or "?" if commas are there that could be either, or None without commas.
    """
    seen = None
    for text in texts:
        text, _ = bare(text)
        if "," not in text:
            if THOUSANDS_POINT.fullmatch(text):
                return ","
            continue
        decimal, thousands = DECIMAL_COMMA.fullmatch(text), THOUSANDS_COMMA.fullmatch(text)
        if decimal and not thousands:
            return ","
        if thousands and not decimal:
            return "."
        if decimal and thousands:
            seen = "?"
    return seen


def to_number(text: str, decimal: str = ".", thousands: str | None = None) -> float | None:
    """A number from its text, or None.

    Parameters
    ----------
    text : str
        Without currency or percent sign, as :func:`bare` leaves it.
    decimal : "." or ","
    thousands : str, optional
        A sign between groups of digits that is to be passed over wherever it stands.
    """
    if thousands:
        text = text.replace(thousands, "")
    if PLAIN.fullmatch(text) and (decimal == "." or not THOUSANDS_POINT_ONE.fullmatch(text)):
        return float(text)
    if THOUSANDS_BLANK.fullmatch(text):
        return float(re.sub("[ '’\u00a0\u202f]", "", text).replace(",", "."))
    if decimal == ",":
        if DECIMAL_COMMA.fullmatch(text):
            return float(re.sub("[. '’\u00a0\u202f]", "", text).replace(",", "."))
        if THOUSANDS_POINT.fullmatch(text) or THOUSANDS_POINT_ONE.fullmatch(text):
            return float(text.replace(".", ""))
    elif THOUSANDS_COMMA.fullmatch(text):
        return float(text.replace(",", ""))
    return None


# With decimal commas a single group after a point is a thousand, as in 1.234.
THOUSANDS_POINT_ONE = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")


def looks_typed(text: str) -> bool:
    """Whether a cell is a number, a date, a truth value or missing, in any spelling."""
    from .dates import DATE_LIKE

    text, _ = bare(text)
    return (
        text.lower() in MISSING
        or text.lower() in BOOLEAN
        or any(
            form.fullmatch(text)
            for form in (PLAIN, DECIMAL_COMMA, THOUSANDS_COMMA, THOUSANDS_BLANK, DATE_LIKE)
        )
    )


def is_number(text: str) -> bool:
    """Whether a cell is a number in any spelling."""
    text, _ = bare(text)
    return any(
        form.fullmatch(text)
        for form in (PLAIN, DECIMAL_COMMA, THOUSANDS_COMMA, THOUSANDS_BLANK, THOUSANDS_POINT)
    )


def as_booleans(levels: Sequence[str]) -> list[float] | None:
    """0 and 1 for the two words of a pair such as yes and no, in any case; else None."""
    words = [level.strip().lower() for level in levels]
    if words and any(set(words) <= pair for pair in _PAIRS) and len(set(words)) == 2:
        return [BOOLEAN[word] for word in words]
    if words and set(words) <= {"true", "false"}:
        return [BOOLEAN[word] for word in words]
    return None
