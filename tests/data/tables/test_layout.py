"""Text files: encoding, separator, what stands above the table, header, rows."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile

import numpy as np
import pytest

from xpmlp.data.tables import ReadOptions, read_table
from xpmlp.errors import ConfigError, DataError

BODY = "0.5,1,x\n1.5,2,y\n2.5,3,x\n-1,4,y\n"
SHEET = "size,count,kind\n" + BODY


def read(tmp_path, content, name="t.csv", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, ReadOptions(**options))


def values(table):
    return [
        [None if gone else cell for cell, gone in zip(c.texts(), c.missing, strict=True)]
        for c in table.columns
    ]


GOOD = [["0.5", "1.5", "2.5", "-1"], ["1", "2", "3", "4"], ["x", "y", "x", "y"]]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "   "])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.data", "t", "T.CSV"])
def test_separators_are_found_whatever_the_ending(tmp_path, separator, name):
    table = read(tmp_path, SHEET.replace(",", separator), name)
    assert table.names == ["size", "count", "kind"] and values(table) == GOOD


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", "größe"),
        ("utf-16", "größe"),
        ("utf-16-le", "größe"),
        ("utf-16-be", "größe"),
        ("latin-1", "größe"),
        ("cp1252", "“size”"),
    ],
)
def test_encodings_are_found(tmp_path, encoding, text):
    table = read(tmp_path, SHEET.replace("size", text).encode(encoding))
    assert table.names[0] == text and values(table) == GOOD


def test_an_encoding_can_be_named(tmp_path):
    content = SHEET.replace("size", "размер").encode("koi8-r")
    assert read(tmp_path, content, encoding="koi8-r").names[0] == "размер"
    with pytest.raises(ConfigError, match="`encoding`"):
        read(tmp_path, content, encoding="klingon")
    with pytest.raises(DataError, match="expected text in utf-8"):
        read(tmp_path, content, encoding="utf-8")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, "zip"])
@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv"])
def test_packed_files_are_known_by_their_content(tmp_path, pack, name):
    path = tmp_path / name
    if pack == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.csv", SHEET)
            archive.writestr("__MACOSX/._inner.csv", "x")
        content = path.read_bytes()
    else:
        content = pack(SHEET.encode())
    table = read(tmp_path, content, name)
    assert values(table) == GOOD and table.name == "t"


def test_bad_archives_are_named(tmp_path):
    whole = gzip.compress(SHEET.encode() * 50)
    with pytest.raises(DataError, match=r"t\.gz.*damaged"):
        read(tmp_path, whole[:-20], "t.gz")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", SHEET)
        archive.writestr("b.csv", SHEET)
    with pytest.raises(DataError, match=r"2 files .*'a\.csv', 'b\.csv'"):
        read_table(tmp_path / "two.zip")


def test_a_file_that_unpacks_to_far_too_much_is_refused(tmp_path):
    with pytest.raises(DataError, match="when unpacked"):
        read(tmp_path, gzip.compress(b"0,0\n" * (5 << 20), 1), "t.csv.gz")


@pytest.mark.parametrize(
    "above",
    [
        "sep=,\n",
        "# exported by a machine\n# in metres\n",
        "A title\n\n",
        "A title\nand, more\n",
        "178,13,a,b,c\n",
        "\n\n",
    ],
)
def test_lines_above_the_table_are_passed_over(tmp_path, above):
    table = read(tmp_path, above + SHEET)
    assert table.names == ["size", "count", "kind"] and values(table) == GOOD


def test_a_sep_line_says_the_separator(tmp_path):
    table = read(tmp_path, "sep=;\na;b\n1,5;2\n2,5;3\n")
    assert values(table) == [["1.5", "2.5"], ["2", "3"]]


def test_a_header_may_be_a_comment(tmp_path):
    np.savetxt(tmp_path / "t.txt", np.arange(12.0).reshape(4, 3), header="a b c")
    table = read_table(tmp_path / "t.txt")
    assert table.names == ["a", "b", "c"] and len(table) == 4


def test_r_writes_no_name_over_row_names(tmp_path):
    table = read(tmp_path, '"mpg" "cyl"\n"Mazda RX4" 21 6\n"Datsun" 22.8 4\n', "t.txt")
    assert table.names == ["unnamed_1", "mpg", "cyl"]
    assert values(table)[1] == ["21", "22.8"]


@pytest.mark.parametrize(
    "ends",
    [
        lambda line: line + ",",
        lambda line: line + ",,",
        lambda line: line + (",," if line[0] != "s" else ""),  # under the header only
    ],
)
def test_separators_at_the_ends_of_lines_make_no_columns(tmp_path, ends):
    table = read(tmp_path, "\n".join(ends(line) for line in SHEET.split()) + "\n")
    assert table.names == ["size", "count", "kind"] and values(table) == GOOD


def test_empty_rows_and_comments_between_rows_are_left_out_and_said(tmp_path):
    table = read(tmp_path, SHEET + ",,\n\n# the end\n")
    assert values(table) == GOOD
    assert "1 empty row left out" in table.how and "1 comment line left out" in table.how


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (BODY, False),
        (SHEET, True),
        ("M,0.4,15\nF,0.3,7\nM,0.5,9\nF,0.1,8\n", False),
        ("39, State-gov, 5\n50, Private, 6\n38, Private, 7\n40, State-gov, 8\n", False),
        ("1,0,0.85,0.85,g\n1,0,0.99,-0.1,b\n1,0,0.5,0.2,g\n", False),
        ("3,?,alfa,gas\n3,?,alfa,gas\n2,164,audi,gas\n", False),
        ("2018,2019,2020\n0.1,1.2,0\n-0.9,0.9,1\n0.2,0.1,1\n", True),
        ("1,2,3\n0.1,1.2,0\n-0.9,0.9,1\n", True),
        ("name,2018,2019\na,0.1,0.2\nb,0.3,0.4\n", True),
        ("h,3,2,1,y\n0.1,0.2,0,0,0\n0.3,0.4,1,1,1\n", True),
        ("cap,gill\nconvex,narrow\nbell,broad\nconvex,broad\n", True),
        ("a,b\na,x\nc,b\n", False),
        ("date,v\n2020-01-01,1\n2020-01-02,2\n", True),
        ("2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n", False),
    ],
)
def test_headers_are_told_from_rows(tmp_path, text, header):
    table = read(tmp_path, text)
    assert table.has_header is header
    assert len(table) == text.count("\n") - header


def test_a_header_can_be_asserted_and_denied(tmp_path):
    assert len(read(tmp_path, SHEET, header=False)) == 5
    assert read(tmp_path, BODY, header=True).names == ["0.5", "1", "x"]


def test_names_that_come_twice_or_are_empty_are_mended_and_said(tmp_path):
    table = read(tmp_path, "a, ,a,b \n1,2,3,x\n4,5,6,y\n")
    assert table.names == ["a", "unnamed_2", "a.2", "b"]
    assert any("'a'" in word for word in table.how)


def test_uneven_rows_are_named_all_of_them(tmp_path):
    with pytest.raises(DataError, match=r"expected 3 values.*got 2 in line 3, 4 in line 5.*--sep"):
        read(tmp_path, "a,b,c\n1,2,3\n1,2\n1,2,3\n1,2,3,4\n4,5,6\n")


@pytest.mark.parametrize("below", ["Total,60\n", "(60 rows)\n", "source: a\nof 2024\n"])
def test_remarks_below_the_table_are_left_out_and_said(tmp_path, below):
    table = read(tmp_path, "a,b,c,y\n" + "1.5,2,x,u\n2.5,3,y,v\n" * 10 + below)
    assert len(table) == 20 and "below the table" in " ".join(table.how)
    with pytest.raises(DataError, match="got 2 in line 22"):  # a row that was cut
        read(tmp_path, "a,b,c,y\n" + "1.5,2,x,u\n2.5,3,y,v\n" * 10 + "1.5,2\n")


def test_single_quotes_are_quotes_where_all_texts_have_them(tmp_path):
    table = read(tmp_path, "'a','b, c','y'\n" + "1.5,'x, z','u'\n2.5,'z','v'\n" * 3)
    assert table.names == ["a", "b, c", "y"] and "x, z" in table.columns[1].levels


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"<!DOCTYPE html><html><table></table></html>", "HTML or XML"),
        (b"<?xml version='1.0'?><a/>", "HTML or XML"),
        (b"\x7fELF\x02\x01" + bytes(range(256)) * 20, "binary"),
        (bytes(1000), "binary"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, word):
    with pytest.raises(DataError, match=word):
        read(tmp_path, content)


def test_quotes_line_breaks_and_long_cells(tmp_path):
    table = read(tmp_path, f'a,b\n"x, y\nz",1\n"{"q" * 200_000}",2\n"he said ""no""",3\n')
    assert len(table) == 3 and table.columns[0].levels[2] == 'he said "no"'
    with pytest.raises(DataError, match="quotes"):
        read(tmp_path, 'a,b\n1,"2\n3,4\n')


def test_options_out_of_range_are_refused():
    for options in ({"decimal": ";"}, {"thousands": "ab"}, {"decimal": ",", "thousands": ","}):
        with pytest.raises(ConfigError):
            ReadOptions(**options)


def test_a_column_that_turns_to_text_late_is_read_as_text(tmp_path):
    rows = "".join(f"{n % 7},{n}\n" for n in range(9000))
    table = read(tmp_path, "a,b\n" + rows + "005,1\nhigh,2\n" * 500)
    kinds = [column.kind for column in table.columns]
    assert kinds == ["text", "number"] and len(table) == 10_000
    assert "005" in table.columns[0].levels and "6" in table.columns[0].levels
