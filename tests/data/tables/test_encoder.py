"""Columns as numbers: what is learnt, from which rows, and what happens to what is new."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xpmlp.data.tables import Column, TableEncoder
from xpmlp.errors import ConfigError, DataError


def number(*values, name="n"):
    return Column(name, "number", np.array(values, dtype=np.float64))


def text(*values, name="t"):
    levels = sorted({v for v in values if v is not None})
    codes = [-1 if v is None else levels.index(v) for v in values]
    return Column(name, "text", np.array(codes, dtype=np.int32), tuple(levels))


def dates(*values, name="d"):
    return Column(name, "date", np.array(values, dtype="datetime64[s]"))


def test_missing_numbers_become_the_median_and_a_flag():
    encoder = TableEncoder().fit([number(1, np.nan, 3, 100)])
    assert encoder.names == ("n", "n missing")
    assert encoder.transform([number(np.nan, 7)]).tolist() == [[3, 1], [7, 0]]


def test_without_missing_ones_in_training_there_is_no_flag_but_a_median():
    encoder = TableEncoder().fit([number(1, 2, 3)])
    assert encoder.transform([number(np.nan)]).tolist() == [[2]]
    assert encoder.filled([number(np.nan, 1)]) == {"n": 1}


def test_levels_are_columns_and_rare_missing_and_unseen_ones_have_a_place():
    seen = text("a", "a", "b", "b", "c", None)
    encoder = TableEncoder(rare=2).fit([seen])
    assert encoder.names == ("t=a", "t=b", "t=(rare)", "t=(missing)")
    new = encoder.transform([text("b", "c", "new", None)])
    assert new.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_unseen_and_missing_levels_without_a_column_are_zeros():
    encoder = TableEncoder().fit([text("a", "b", "a", "b")])
    assert encoder.transform([text("new", None, "b")]).tolist() == [[0, 0], [0, 0], [0, 1]]


def test_no_more_levels_than_the_limit_the_frequent_ones_first():
    encoder = TableEncoder(rare=1, max_levels=2).fit([text(*"aaabbccd")])
    assert encoder.names == ("t=a", "t=b", "t=(rare)")


def test_dates_become_age_and_the_parts_that_differ():
    days = dates("2024-01-01", "2024-03-01", "2024-06-01")
    encoder = TableEncoder().fit([days])
    assert encoder.names == (
        *("d days", "d month sin", "d month cos", "d weekday sin", "d weekday cos"),
    )
    x = encoder.transform([days])
    assert x[:, 0].tolist() == [0, 60, 152]
    np.testing.assert_allclose(x[1, 1:3], [np.sin(np.pi / 3), np.cos(np.pi / 3)])
    np.testing.assert_allclose(x[0, 3:5], [0, 1], atol=1e-12)  # a Monday
    assert not any("days" in name for name in TableEncoder(timeless=("d",)).fit([days]).names)


def test_missing_dates_are_the_median_with_a_flag():
    encoder = TableEncoder().fit([dates("2024-01-01", "2024-01-03", "NaT")])
    row = encoder.transform([dates("NaT")])[0]
    assert row[0] == 1 and row[-1] == 1 and np.isfinite(row).all()


def test_only_the_rows_that_it_is_given_teach_it():
    columns = [number(1, 2, 3, 1000), text("a", "b", "a", "secret")]
    encoder = TableEncoder(rare=1).fit([column.take(np.array([0, 1, 2])) for column in columns])
    assert encoder.codes[0].fill == 2 and "secret" not in str(encoder.to_dict())


def test_it_goes_through_json_exactly():
    columns = [
        number(0.1, np.nan, 1 / 3),
        text("ä", None, "b"),
        dates("2024-01-01", "NaT", "2024-02-03"),
    ]
    encoder = TableEncoder(rare=1).fit(columns)
    again = TableEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again.names == encoder.names
    np.testing.assert_array_equal(again.transform(columns), encoder.transform(columns))
    with pytest.raises(DataError, match="to_dict"):
        TableEncoder.from_dict({"columns": [{"nonsense": 1}]})


def test_columns_are_found_by_name_and_others_passed_over():
    encoder = TableEncoder().fit([number(1, 2, name="a"), number(3, 4, name="b")])
    new = [number(9, name="z"), number(30, name="b"), number(10, name="a")]
    assert encoder.transform(new).tolist() == [[10, 30]]
    with pytest.raises(DataError, match=r"none named 'a', 'b'; it has 'z'"):
        encoder.transform(new[:1], "f.csv")


def test_all_columns_of_another_kind_are_named_in_one_message():
    encoder = TableEncoder().fit([number(1, 2, name="a"), dates("2024-01-01", "2024-01-02")])
    with pytest.raises(DataError, match=r"numbers in column 'a', got 'x' in row 2; .*dates.*'d'"):
        encoder.transform([text("1", "x", name="a"), text("soon", "2024-01-01", name="d")], "f")


def test_text_is_read_as_what_was_there_in_training():
    encoder = TableEncoder().fit([number(1, 2, name="a"), number(0, 1, name="flag")])
    new = [text("$5", "?", name="a"), text("yes", "no", name="flag")]
    assert encoder.transform(new).tolist() == [[5, 1], [1.5, 0]]
    levels = TableEncoder().fit([text("1", "2", "1", "2")])
    assert levels.transform([number(2, np.nan, name="t")]).tolist() == [[0, 1], [0, 0]]


def test_numbers_only_refuses_missing_ones():
    encoder = TableEncoder.of_numbers(["n"])
    assert encoder.transform([number(1, 2)]).tolist() == [[1], [2]]
    with pytest.raises(DataError, match="1 missing ones, the first in row 2"):
        encoder.transform([number(1, np.nan)])


def test_bad_settings():
    for options in ({"rare": 0}, {"max_levels": 0}):
        with pytest.raises(ConfigError):
            TableEncoder(**options)
    with pytest.raises(DataError, match="expected columns with rows"):
        TableEncoder().fit([])


def test_a_row_in_words_again():
    columns = [
        Column("size", "number", np.array([1.5, np.nan, 3.0])),
        Column("kind", "text", np.array([0, 1, -1], dtype=np.int32), ("a", "b")),
        Column("when", "date", np.array(["2024-01-02", "2024-03-04T05:06:07", "NaT"], "M8[s]")),
        Column("yes", "boolean", np.array([0.0, 1.0, 1.0])),
    ]
    encoder = TableEncoder(rare=1).fit(columns)
    told = [list(encoder.describe(row).values()) for row in encoder.transform(columns)]
    assert list(encoder.describe(encoder.transform(columns)[0])) == ["size", "kind", "when", "yes"]
    assert told[0] == ["1.5", "a", "2024-01-02", "0"]
    assert told[1] == ["(missing)", "b", "2024-03-04 05:06:07", "1"]
    assert told[2] == ["3", "(missing)", "(missing)", "1"]
