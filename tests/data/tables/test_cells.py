"""What cells mean: numbers in all spellings, missing values, truth values, dates."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.data.tables import ReadOptions, read_table


def column(tmp_path, cells, separator=";", **options):
    """The kind and values of a column with these cells."""
    path = tmp_path / "t.csv"
    lines = [f"other{separator}v", *(f"{n / 8}{separator}{cell}" for n, cell in enumerate(cells))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = read_table(path, ReadOptions(**options))
    found = table.column("v")
    return found.kind, found.values.tolist() if found.kind != "text" else list(found.texts()), table


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1", "-2.5", "+3", "1e-3", ".5"], [1, -2.5, 3, 0.001, 0.5]),
        (["0,5", "1,25", "-3,0"], [0.5, 1.25, -3]),
        (["1.234,5", "2.000,25"], [1234.5, 2000.25]),
        (["1,234.5", "2,000.25"], [1234.5, 2000.25]),
        (["1,234,567", "2,000"], [1234567, 2000]),
        (["1.234.567", "2.000"], [1234567, 2000]),
        (["1 234", "2\u00a0000,5", "3\u202f000"], [1234, 2000.5, 3000]),
        (["1'234", "2'000.5"], [1234, 2000.5]),
        (["$100.50", "$1,200.00", "-$3"], [100.5, 1200, -3]),
        (["100 €", "2.50 €"], [100, 2.5]),
        (["USD 5", "USD 7"], [5, 7]),
        (["10%", "12.5 %"], [10, 12.5]),
        (["\u22125", "4"], [-5, 4]),
        (["(1,234.50)", "7.00"], [-1234.5, 7]),
    ],
)
def test_numbers_in_many_spellings(tmp_path, cells, numbers):
    kind, values, _ = column(tmp_path, cells)
    assert kind == "number" and values == numbers


def test_one_column_decides_what_a_comma_is_in_all(tmp_path):
    (tmp_path / "t.csv").write_text("a;b\n0,126;1,259\n0,132;1,514\n")
    table = read_table(tmp_path / "t.csv")
    assert table.columns[1].values.tolist() == [1.259, 1.514] and not table.doubts


def test_a_comma_that_could_be_either_is_said_and_can_be_overruled(tmp_path):
    assert column(tmp_path, ["1,000", "2,500"], "\t")[1] == [1000, 2500]
    _, values, table = column(tmp_path, ["1,000", "2,500"], ";")
    assert values == [1, 2.5] and "--decimal ." in table.doubts[0]
    assert column(tmp_path, ["1,000", "2,500"], ";", decimal=".")[1] == [1000, 2500]
    assert column(tmp_path, ["1*000", "2*500"], ";", thousands="*")[1] == [1000, 2500]


@pytest.mark.parametrize(
    "blank",
    [
        *("", " ", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "null", "NULL", "?", "#N/A", "<NA>"),
        *("#DIV/0!", "#VALUE!", "\\N", "NaT", "n.a.", "(null)"),  # in any column
        *("None", "none", "-", "--", ".", "..", "unknown", "missing", "nil"),  # among numbers
    ],
)
def test_spellings_of_missing_values(tmp_path, blank):
    kind, values, _ = column(tmp_path, ["1.5", blank, "3.5", "4"])
    assert kind == "number"
    np.testing.assert_array_equal(values, [1.5, np.nan, 3.5, 4])


def test_among_texts_only_the_plain_spellings_are_missing(tmp_path):
    cells = ["red", "?", "None", "-", "", "red"]
    assert column(tmp_path, cells)[1] == ["red", None, "None", "-", None, "red"]


def test_na_is_a_value_among_codes_of_two_letters(tmp_path):
    _, values, table = column(tmp_path, ["NA", "ZA", "BW", "NA"])
    assert values == ["NA", "ZA", "BW", "NA"] and "--na NA" in table.doubts[0]
    assert column(tmp_path, ["NA", "ZA", "BW"], na=("NA",))[1] == [None, "ZA", "BW"]


def test_spellings_can_be_added_and_the_usual_ones_switched_off(tmp_path):
    _, values, _ = column(tmp_path, ["1", "-999", "2"], na=("-999",))
    np.testing.assert_array_equal(values, [1, np.nan, 2])
    assert column(tmp_path, ["?", "x", "?", ""], default_na=False)[1] == ["?", "x", "?", None]


def test_a_few_odd_cells_among_many_numbers_are_missing_and_said(tmp_path):
    cells = [*map(str, range(60)), "see note"]
    kind, values, table = column(tmp_path, cells)
    assert kind == "number" and np.isnan(values[-1])
    assert "'v' ('see note' in 1 of 61 rows)" in table.doubts[0]
    assert column(tmp_path, ["2", "3", "4", "5more"] * 20)[0] == "text"


def test_infinite_numbers_are_missing_and_said(tmp_path):
    _, values, table = column(tmp_path, ["1", "inf", "2"])
    assert np.isnan(values[1]) and "'v' (1 infinite)" in table.doubts[0]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["yes", "no", "", "no"], "boolean"),
        (["True", "FALSE", "True"], "boolean"),
        (["TRUE", "FALSE", "NA"], "boolean"),
        (["t", "f"], "boolean"),
        (["yes", "Yes", "no"], "text"),
        (["yes", "no", "maybe"], "text"),
    ],
)
def test_truth_values(tmp_path, words, kind):
    assert column(tmp_path, words)[0] == kind


@pytest.mark.parametrize(
    ("cells", "first"),
    [
        (["2024-01-31", "2024-02-01"], "2024-01-31T00:00:00"),
        (["2024-01-31 12:30", "2024-02-01 00:00"], "2024-01-31T12:30:00"),
        (["2024-01-31T12:30:05Z", "2024-02-01T00:00:00Z"], "2024-01-31T12:30:05"),
        (["2024-01-31T12:00:00+02:00", "2024-02-01T00:00:00+02:00"], "2024-01-31T10:00:00"),
        (["31/1/2024", "5/3/2024"], "2024-01-31T00:00:00"),
        (["1/31/2024", "3/5/2024"], "2024-01-31T00:00:00"),
        (["31.01.2024", "05.03.2024"], "2024-01-31T00:00:00"),
        (["31-Jan-2024", "05-Mar-2024"], "2024-01-31T00:00:00"),
        (["January 31, 2024", "March 5, 2024"], "2024-01-31T00:00:00"),
        (["18.00.00", "19.00.00"], "1970-01-01T18:00:00"),
        (["6:30 PM", "7:00 AM"], "1970-01-01T18:30:00"),
    ],
)
def test_dates_and_times(tmp_path, cells, first):
    path = tmp_path / "t.csv"
    path.write_text("v;w\n" + "".join(f'"{cell}";1\n' for cell in [*cells, "?"]))
    found = read_table(path).column("v")
    assert found.kind == "date" and str(found.values[0]) == first and np.isnat(found.values[-1])


def test_dates_that_could_be_the_other_way_round_are_said(tmp_path):
    _, _, table = column(tmp_path, ["5/3/2024", "6/4/2024"])
    assert "the other way round" in table.doubts[0]


def test_quotes_around_all_values_are_no_part_of_them(tmp_path):
    assert column(tmp_path, ["'-1'", "'1'", "'a'"])[1] == ["-1", "1", "a"]
