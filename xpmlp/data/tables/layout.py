"""How a text file is laid out: encoding, separator, what stands above the table, and a header."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ...errors import ConfigError, DataError
from .cells import Blanks, is_number, looks_typed
from .columns import listed, shown
from .header import LOOK, has_header, tidy_names

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
_WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "bar": "|"}
_HEAD = 1000  # lines that the layout is told from; every later line is checked against it
COMMENTS = ("#", "%")
_BLANK = Blanks()
FIELD_LIMIT = 1 << 27  # characters in a cell
MOST_COLUMNS = 200_000


@dataclass
class Layout:
    """What is to be known before the rows of a text file can be read.

    Attributes
    ----------
    encoding, separator : str
    quote : str
        Around cells that hold the separator.
    skip : int
        Lines above the first row of the table, header included.
    names : list of str or None
        From the header.
    width : int
        Cells in a row.
    how, doubts : list of str
        For the summary.
    """

    encoding: str
    separator: str
    quote: str = '"'
    skip: int = 0
    names: list[str] | None = None
    width: int = 0
    how: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def choose_encoding(content: bytes, wanted: str | None, where: str) -> tuple[str, str | None]:
    """The encoding of a text, and a word on it where it is not UTF-8."""
    if wanted is not None:
        try:
            codecs.lookup(wanted)
            content.decode(wanted)
        except LookupError as error:
            raise ConfigError(
                f"`encoding`: expected a name such as utf-8, latin-1 or utf-16, got {wanted!r}"
            ) from error
        except UnicodeError as error:
            raise DataError(f"`{where}`: expected text in {wanted}, got {error}") from error
        return ("utf-8-sig" if wanted.lower() in ("utf-8", "utf8") else wanted), None
    if content.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", None
    for name in ("utf-16", ""):
        if name and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return name, "encoding UTF-16"
    start = content[:4096]
    if b"\0" in start:
        for name, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
            if zeros.count(0) > 0.6 * len(zeros) and _is_text(start, name):
                return name, "encoding UTF-16"
        raise DataError(
            f"`{where}`: expected a table (CSV, TSV or other text, Excel, Parquet, Feather, ARFF, "
            "JSON lines, svmlight, NPZ, NPY; packed or not), got a binary file of another kind; "
            "save it as one of these"
        )
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for place in range(0, len(content), 1 << 20):
            decoder.decode(content[place : place + (1 << 20)])
        decoder.decode(b"", True)
        return "utf-8", None
    except UnicodeDecodeError:
        pass
    # Bytes 80 to 9F are letters and quotes in Windows' encoding and nothing in Latin-1.
    name = "latin-1" if re.search(rb"[\x81\x8d\x8f\x90\x9d]", content) else "cp1252"
    return name, "encoding Latin-1 (it is not UTF-8; --encoding sets another)"


def _is_text(start: bytes, encoding: str) -> bool:
    """Whether the start of a file is text in an encoding."""
    try:
        text = start[: len(start) // 4 * 4].decode(encoding)
    except UnicodeError:
        return False
    return sum(c.isprintable() or c in "\r\n\t\ufeff" for c in text) > 0.95 * len(text)


def text_lines(content: bytes, encoding: str, skip: int = 0) -> Iterator[str]:
    """The lines of a text, decoded as they are read, line ends kept."""
    file = io.TextIOWrapper(io.BytesIO(content), encoding=encoding, newline="")
    return islice(file, skip, None)


def rows_of(
    lines: Iterable[str], separator: str, quote: str = '"', strict: bool = False
) -> Iterator[list[str]]:
    """Rows of cells."""
    if separator == " ":
        lines = (re.sub(r"[ \t]+", " ", line.strip()) + "\n" for line in lines)
    return csv.reader(
        lines, delimiter=separator, quotechar=quote, skipinitialspace=True, strict=strict
    )


def find_layout(
    content: bytes,
    where: str,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    expected: Sequence[str] = (),
) -> Layout:
    """Look a text over.

    Parameters
    ----------
    content : bytes
    where : str
        The file, for messages.
    separator, encoding, header
        What is known already.
    expected : sequence of str
        Names that a header, if there is one, should hold.

    Raises
    ------
    DataError
        If it is empty, or no text.
    """
    codec, word = choose_encoding(content, encoding, where)
    layout = Layout(codec, separator or ",", how=[word] if word else [])
    if separator is not None:
        layout.separator = _WORDS.get(separator.lower(), separator)
        if separator.lower() in ("space", "spaces", "blank", "blanks", "whitespace", "\\s+"):
            layout.separator = " "
        if len(layout.separator) != 1 or layout.separator in '\r\n"':
            raise ConfigError(
                f"`sep`: expected one sign, or comma, semicolon, tab, bar or blanks, got "
                f"{separator!r}"
            )
    lines = list(islice(text_lines(content, codec), _HEAD + 1))
    cut = len(lines) > _HEAD
    lines = lines[:_HEAD]
    said = re.fullmatch(r'\s*"?sep=(.)"?\s*', lines[0]) if lines else None
    if said:  # Excel's own way to name the separator
        lines, layout.skip = lines[1:], 1
        layout.separator = layout.separator if separator else said[1]
    if not any(line.strip() for line in lines):
        raise DataError(f"`{where}`: expected a table, got an empty file; check its name")
    if separator is None and not said:
        layout.separator = _choose_separator(lines, cut, where)
    rows = _numbered(lines, layout.separator, cut)
    if _single_quotes([row for _, row in rows]):
        layout.quote = "'"
        rows = _numbered(lines, layout.separator, cut, "'")
    if not rows:
        raise DataError(f"`{where}`: expected a table, got one without a value; check its name")
    layout.width = _width([row for _, row in rows])
    if layout.width > MOST_COLUMNS:
        raise _too_wide(where, layout.width)
    if layout.separator != ",":
        layout.how.append(f"separated by {SEPARATORS.get(layout.separator, layout.separator)}")
    _find_start(layout, rows, header, expected)
    return layout


def _single_quotes(rows: list[list[str]]) -> bool:
    """Whether texts stand between single quotes."""
    texts = [
        cell for row in rows[:LOOK] for cell in row if not is_number(cell) and not _BLANK(cell)
    ]
    # A cell with the separator in it is in pieces here, each with a quote at one end.
    quoted = sum("'" in (text.strip()[0], text.strip()[-1]) for text in texts)
    return len(texts) > 1 and quoted > 0.8 * len(texts)


def _numbered(
    lines: list[str], separator: str, cut: bool, quote: str = '"'
) -> list[tuple[int, list[str]]]:
    """Rows of a sample with the number of lines read until their end; empty ones left out."""
    reader = rows_of(lines, separator, quote)
    found = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                found.append((reader.line_num, row))  # type: ignore[attr-defined]
    except csv.Error:
        pass  # told by line when all of the file is read
    return found[:-1] if cut and len(found) > 1 else found


def _width(rows: list[list[str]]) -> int:
    counts = Counter(len(row) for row in rows)
    most = max(counts.values())
    # Between widths that are as frequent, as in two lines that differ, the first line's.
    width = next(len(row) for row in rows if counts[len(row)] == most)
    # Separators at the ends of the rows but not of the header: no columns.
    first = next(len(row) for row in rows if not row[0].startswith(COMMENTS) or row is rows[-1])
    if 1 < first < width and not any(cell.strip() for row in rows for cell in row[first:]):
        return first
    return width


def _too_wide(where: str, width: int) -> DataError:
    return DataError(
        f"`{where}`: expected at most {MOST_COLUMNS} columns, got {width}; are rows and columns "
        "exchanged, or is another sign the separator (--sep)?"
    )


def _choose_separator(lines: list[str], cut: bool, where: str) -> str:
    best, best_score = ",", 0.0
    for separator in SEPARATORS:
        rows = [row for _, row in _numbered(lines, separator, cut)]
        rows = [row for row in rows if not row[0].startswith(COMMENTS)] or rows
        if not rows:
            continue
        width = _width(rows)
        if width > MOST_COLUMNS:
            raise _too_wide(where, width)
        if width < 2:
            narrower = [len(row) for row in rows if len(row) > 1]
            if 2 * len(narrower) < len(rows):
                continue
            width = Counter(narrower).most_common(1)[0][0]
        whole = [row for row in rows if len(row) == width]
        cells = [cell for row in whole[:LOOK] for cell in row if cell.strip()]
        typed = sum(map(looks_typed, cells)) / max(1, len(cells))
        score = len(whole) / len(rows) * (0.3 + typed) + 0.001 * min(width, 50)
        if separator == " ":  # texts have blanks; columns seldom do
            score = 0.93 * score
        if score > best_score:
            best, best_score = separator, score
    return best


def _find_start(
    layout: Layout,
    rows: list[tuple[int, list[str]]],
    header: bool | None,
    expected: Sequence[str],
) -> None:
    """Where the table starts, and whether with a header."""
    width = layout.width
    start = 0
    while start < len(rows) - 1 and not _fits(rows[start][1], width, rows[start + 1 :]):
        start += 1
    above = [row for _, row in rows[:start]]
    passed = [row for row in above if not row[0].startswith(COMMENTS)]
    first = list(rows[start][1])
    skip_to = rows[start - 1][0] if start else 0
    comment_names = None
    if above and above[-1][0].startswith(COMMENTS) and header is None:
        # numpy.savetxt and others write the header as a comment.
        text = layout.separator.join(above[-1]).lstrip("#% ")
        comment_names = next(rows_of([text], layout.separator), [])
    if first[0].startswith(COMMENTS) and not first[0].strip("#% "):
        first = first[1:] if len(first) == width + 1 else first
    body = [row for _, row in rows[start + 1 :] if len(row) >= width]
    if passed:
        layout.how.append(
            f"{len(passed)} line{'s' * (len(passed) > 1)} above the table passed over: "
            f"{shown(layout.separator.join(passed[0]), 60)}"
        )
    names = None
    if header is None:
        header, sure = has_header(first, body, width, expected)
        if not header and comment_names and len(comment_names) == width:
            layout.skip += skip_to
            layout.names = tidy_names(comment_names, layout.how)
            return
        if not sure:
            layout.doubts.append(
                f"the first line {'is taken for a header' if header else 'is taken for data'} "
                f"({listed(first, 4)}); --{'no-' * header}header if it is "
                f"{'data' if header else 'one'}"
            )
    if header:
        names = [cell.lstrip("#").strip() if i == 0 else cell for i, cell in enumerate(first)]
        if len(names) == width - 1:  # as R writes tables with row names
            names = ["", *names]
        layout.skip += rows[start][0]
        layout.names = tidy_names(names, layout.how)
    else:
        layout.how.append("no header: columns are 0, 1, …")
        layout.skip += skip_to


def _fits(row: list[str], width: int, later: list[tuple[int, list[str]]]) -> bool:
    """Whether a row can be the table's first: as long as most, or a header in R's way."""
    data_next = bool(later) and any(is_number(cell) for cell in later[0][1])
    if row[0].startswith(COMMENTS) and later and (row[0].strip() in COMMENTS or not data_next):
        return False  # a remark, unless it is as in "#id,a,b" over data
    if len(row) == width or (len(row) > width and not any(c.strip() for c in row[width:])):
        return True
    texts = not any(is_number(cell) or not cell.strip() for cell in row)
    texts = texts and data_next
    return len(row) == width - 1 and len(row) > 0 and texts and not row[0].startswith(COMMENTS)
