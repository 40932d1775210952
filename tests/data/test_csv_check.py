"""The look over a CSV file: separator, header, even rows."""

import pytest

from xpmlp.data.csv_check import check_csv
from xpmlp.errors import DataError


@pytest.mark.parametrize(
    ("text", "separator", "columns", "has_header", "rows"),
    [
        ("a,b\n1,2\n3,4\n", ",", ("a", "b"), True, 2),
        ("a;b\n1,5;2\n", ";", ("a", "b"), True, 1),
        ("a\tb\n1\t2", "\t", ("a", "b"), True, 1),
        ("1,2\n3,4\n", ",", ("0", "1"), False, 2),
        ("\ufeffa,b\r\n\r\n1,2\r\n", ",", ("a", "b"), True, 1),
        ('"a, b",c\n"1","x\ny"\n', ",", ("a, b", "c"), True, 1),
        (",a\n0,1\n", ",", ("", "a"), True, 1),
    ],
)
def test_layouts(tmp_path, text, separator, columns, has_header, rows):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    layout = check_csv(path)
    assert (layout.separator, layout.columns) == (separator, columns)
    assert (layout.has_header, layout.rows) == (has_header, rows)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"\n\n", "empty file"),
        (b"a,b\n", "rows under the header"),
        (b"a,b\n1,2\n1,2,3\n", r"expected 2 values in every row, got 3 in line 3 \(data row 2\)"),
        (b"a,b\n1,2\n1\n", r"got 1 in line 3 \(data row 2\)"),
        (b"1,2\n3\n", r"got 1 in line 2"),
        (b"a,b,a\n1,2,3\n", "'a' more than once"),
        (b"a,b\n1,\xff\n", "UTF-8"),
        (b'a,b\n1,"2\n3,4\n', "quotes"),
    ],
)
def test_bad_files_are_named(tmp_path, data, message):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        check_csv(path)
    assert str(path) in str(caught.value)
