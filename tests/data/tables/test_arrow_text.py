"""Large texts read column by column by pyarrow come to what cells one by one come to."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from xpmlp.data.tables import arrow_text
from xpmlp.data.tables.cells import Blanks
from xpmlp.data.tables.layout import Layout, rows_of, text_lines
from xpmlp.data.tables.reader import read_table
from xpmlp.data.tables.rows import even_rows, read_columns

CELLS = (
    *("1", "-2.5", "+3", "1e5", "1E-3", ".5", "5.", "007", "00.5", "0", "-0", "  12 ", "1e400"),
    *("1_000", "1,5", "١", "nan", "-nan", "inf", "+inf", "Infinity", "0x10", "1d5", "1 2", "$5"),
    *("", " ", "NA", "n/a", "?", "-", "none", "missing", "red", "Red", " red", "ünlü", "#1", "9%"),
)


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(arrow_text, "_LEAST", 0)


def both(text, width, separator=";", blank=Blanks(), as_text=(), plain_decimals=True, skip=0):  # noqa: B008
    """(fast, slow) columns of a text."""
    content = text.encode()
    layout = Layout("utf-8", separator, skip=skip, width=width)
    how = {
        "as_text": lambda place: place in as_text,
        "blank": blank,
        "plain_decimals": plain_decimals,
    }

    def rows():
        lines = text_lines(content, "utf-8", skip)
        return even_rows(rows_of(lines, separator), width, "t", lambda: 0, [])

    return arrow_text.columns_by_arrow(content, layout, **how), read_columns(rows, width, **how)


def assert_same(fast, slow):
    assert fast is not None and len(fast) == len(slow)
    for one, other in zip(fast, slow, strict=True):
        assert (one.numbers is None) == (other.numbers is None)
        if one.numbers is not None:
            np.testing.assert_array_equal(one.numbers, other.numbers)
            assert one.zeros == other.zeros
        else:
            assert one.levels == other.levels
            np.testing.assert_array_equal(one.codes, other.codes)


@pytest.mark.parametrize("plain_decimals", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_columns_of_all_kinds_of_cells(seed, plain_decimals):
    rng = np.random.default_rng(seed)
    columns = [np.arange(40).astype(str)]  # so that no row is empty
    for _ in range(6):
        some = rng.choice(CELLS, size=rng.integers(1, 6), replace=False)
        columns.append(rng.choice(some, size=40))
    text = "\n".join(";".join(row) for row in zip(*columns, strict=True)) + "\n" * (seed % 2)
    blank = Blanks(frozenset({"red", "-2.5"} if seed % 3 == 0 else ()), seed % 5 > 0)
    as_text = {1} if seed % 4 == 0 else ()
    assert_same(*both(text, 7, blank=blank, as_text=as_text, plain_decimals=plain_decimals))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_and_what_stands_above(end):
    text = end.join(["a remark", "x,y", "1,red", "", "2,blue", "3,red"])
    assert_same(*both(text, 2, ",", skip=2))
    assert_same(*both("\ufeff" + end.join(["1,2", "3,4"]), 2, ",")[:1], both("1,2\n3,4", 2, ",")[1])


def test_all_digits_of_a_float(rng):
    values = rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500)
    fast, slow = both("\n".join(f"{value};1" for value in values.tolist()), 2)
    assert_same(fast, slow)
    np.testing.assert_array_equal(fast[0].numbers, values)


@pytest.mark.parametrize(
    "text",
    [
        "1;2\n3\n",
        "1;2\n3;4;5\n",
        "1;2\n ; \n3;4\n",
        '1;"2"\n',
        "1;2\r3;4\r",
        "1;2\0\n",
        "",
    ],
    ids=repr,
)
def test_what_is_decided_row_by_row_is_not_read_fast(text):
    layout = Layout("utf-8", ";", width=2)
    how = {"as_text": lambda place: False, "blank": Blanks(), "plain_decimals": True}
    assert arrow_text.columns_by_arrow(text.encode(), layout, **how) is None


def test_bytes_that_are_no_text():
    layout = Layout("utf-8", ";", width=1)
    how = {"as_text": lambda place: False, "blank": Blanks(), "plain_decimals": True}
    assert arrow_text.columns_by_arrow(b"1\n\xff\xfe\n", layout, **how) is None


def test_a_file_is_read_so(tmp_path, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("cells were read one by one")

    monkeypatch.setattr("xpmlp.data.tables.reader.read_columns", never)
    (tmp_path / "t.csv").write_text("id,size,colour\n1,2.5,red\n2,,blue\n3,1e3,red\n")
    table = read_table(tmp_path / "t.csv")
    assert [column.kind for column in table.columns] == ["number", "number", "text"]
    np.testing.assert_array_equal(table.columns[1].values, [2.5, np.nan, 1e3])
