"""The columns of a large, regular text by pyarrow: many times as fast as cells one by one.

Regular is what needs no decision row by row: every row as wide as the others, none empty, no
quotes. Whatever else there is, ``read_columns`` reads, and says; both come to the same columns.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from .cells import Blanks
from .layout import Layout
from .rows import RawColumn, numbers_of

_LEAST = 1 << 20  # bytes, below which the time is not noticed
_WORDS = 1000  # of which some stand for missing values
_ENCODINGS = ("ascii", "utf-8", "utf-8-sig")


def columns_by_arrow(
    content: bytes,
    layout: Layout,
    *,
    as_text: Callable[[int], bool],
    blank: Blanks,
    plain_decimals: bool,
) -> list[RawColumn] | None:
    """What :func:`~xpmlp.data.tables.rows.read_columns` gives, or None for a text that is for it.

    Parameters
    ----------
    content : bytes
        The whole file.
    layout : Layout
        Found in it.
    as_text, blank, plain_decimals
        As of ``read_columns``.
    """
    if len(content) < _LEAST or importlib.util.find_spec("pyarrow") is None:
        return None
    if layout.encoding not in _ENCODINGS or layout.separator == " ":
        return None
    if layout.quote.encode() in content or b"\0" in content:
        return None
    if b"\r" in content and content.count(b"\r") != content.count(b"\r\n"):
        return None
    table = _texts(content, layout)
    if table is None or not len(table) or _has_empty_rows(table):
        return None
    return [
        _as_text(*_coded(column)) if as_text(place) else _column(column, blank, plain_decimals)
        for place, column in enumerate(table.columns)
    ]


def _texts(content: bytes, layout: Layout) -> Any:
    """All cells as texts, or None where rows are uneven or no UTF-8."""
    import pyarrow
    from pyarrow import csv

    start = 0
    for _ in range(layout.skip):
        start = content.find(b"\n", start) + 1
        if start == 0:
            return None
    if start == 0 and content.startswith(b"\xef\xbb\xbf"):
        start = 3
    names = [str(place) for place in range(layout.width)]
    try:
        return csv.read_csv(
            pyarrow.BufferReader(memoryview(content)[start:]),
            # Arrow's threads each take room for themselves, many times that of a small file.
            read_options=csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=layout.separator, quote_char=False),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.string()), strings_can_be_null=False
            ),
        ).combine_chunks()
    except (pyarrow.ArrowInvalid, UnicodeError):
        return None


def _has_empty_rows(table: Any) -> bool:
    """Whether all cells of some row are empty: such rows are left out, and counted."""
    compute = _compute()
    empty = None
    for column in table.columns:
        one = compute.equal(compute.utf8_trim_whitespace(column), "")
        empty = one if empty is None else compute.and_(empty, one)
        if not compute.any(empty).as_py():
            return False
    return True


def _column(texts: Any, blank: Blanks, plain_decimals: bool) -> RawColumn:
    """Numbers, if all cells are some or blank."""
    compute = _compute()
    if plain_decimals or not compute.any(compute.match_substring(texts, ".")).as_py():
        values = _cast(texts)
        if values is None and (without := _without_blanks(texts, blank)) is not None:
            values = _cast(without)
        if values is not None:
            return RawColumn(numbers=values, zeros=_has_zeros_first(texts, values))
    return _by_levels(texts, blank, plain_decimals)


def _cast(texts: Any) -> np.ndarray | None:
    """The cells as float64, None if one is no number, or written as arrow does not know it."""
    import pyarrow

    compute = _compute()
    try:
        return compute.cast(texts, pyarrow.float64()).to_numpy(zero_copy_only=False)
    except pyarrow.ArrowInvalid:
        return None


def _without_blanks(texts: Any, blank: Blanks) -> Any:
    """Nothing in place of the words, if each says that there is no value; else None."""
    import pyarrow

    compute = _compute()
    words = compute.invert(compute.match_substring_regex(texts, r"^\s*-?\.?[0-9]"))
    some = compute.unique(texts.filter(words))
    if len(some) > _WORDS or not all(blank(word) for word in some.to_pylist()):
        return None
    return compute.if_else(words, pyarrow.scalar(None, pyarrow.string()), texts)


def _has_zeros_first(texts: Any, values: np.ndarray) -> bool:
    """Whether numbers are whole and one is written with a zero before other digits."""
    compute = _compute()
    whole = values[~np.isnan(values)]
    if not np.array_equal(whole, np.floor(whole)):
        return False
    return compute.any(compute.match_substring_regex(texts, r"^\s*[+-]?0[0-9]")).as_py()


def _by_levels(texts: Any, blank: Blanks, plain_decimals: bool) -> RawColumn:
    """Different texts are few: each is looked at once, as a cell would be."""
    levels, indices = _coded(texts)
    found = numbers_of(levels, blank, plain_decimals)
    if found is None:
        return _as_text(levels, indices)
    values, zeros = found
    return RawColumn(numbers=values[indices], zeros=zeros)


def _as_text(levels: list[str], indices: np.ndarray) -> RawColumn:
    """Codes in the order of first appearance."""
    places: dict[str, int] = {}
    own = [places.setdefault(text.strip(), len(places)) for text in levels]
    return RawColumn(codes=np.asarray(own, dtype=np.int32)[indices], levels=list(places))


def _coded(texts: Any) -> tuple[list[str], np.ndarray]:
    """The different texts as they appear, and which of them each cell is."""
    coded = texts.dictionary_encode().combine_chunks()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()


def _compute() -> Any:
    """pyarrow's functions of columns, which it makes as it is loaded."""
    return importlib.import_module("pyarrow.compute")
