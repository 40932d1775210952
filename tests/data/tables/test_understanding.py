"""Which columns are inputs, what the target is, which rows are held out, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.data import load_table
from xpmlp.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def write(path, names, rows):
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def people(tmp_path):
    rows = [
        (n + 1, f"P{n}", n % 7 + 0.5, "ab"[n % 2], 3, "", ["yes", "no"][n % 3 == 0])
        for n in range(60)
    ]
    names = ["PersonId", "name", "size", "kind", "same", "void", "answer"]
    return write(tmp_path / "people.csv", names, rows)


def said(data):
    return dict(data.table.summary)


def test_columns_by_kind_and_what_is_left_out(people):
    data = load_table(people)
    assert data.features == ("size", "kind=a", "kind=b") and data.classes == ("no", "yes")
    out = said(data)["left out"]
    for part in ("row numbers: 'PersonId'", "'name'", "one value only: 'same'", "value: 'void'"):
        assert part in out
    assert "'answer', the last column" in said(data)["target"]
    assert "no (20), yes (40)" in said(data)["target"]
    assert "48 to train on, 12 to test on" in said(data)["rows"]


def test_columns_can_be_kept_dropped_and_made_categories(people):
    assert "PersonId" in load_table(people, keep=["PersonId"]).features
    assert load_table(people, drop=["kind"]).features == ("size",)
    assert "size=0.5" in load_table(people, category=["size"]).features
    assert load_table(people, drop=["size", "kind"], keep="name").features[0].startswith("name=")


def test_nothing_left_is_refused_with_the_reasons(people):
    with pytest.raises(DataError, match=r"expected an input .*'name'.*--keep"):
        load_table(people, drop="PersonId,size,kind")


def test_names_before_positions_and_names_with_commas(tmp_path):
    path = write(tmp_path / "t.csv", ["h", "3", "1", '"x, km"', "y"], RNG.random((20, 5)))
    assert load_table(path, target="1").features == ("h", "3", "x, km", "y")
    assert load_table(path, target=1).features == ("h", "1", "x, km", "y")
    assert load_table(path, drop="x, km").features == ("h", "3", "1")
    assert load_table(path, drop='"x, km",3').features == ("h", "1")
    assert load_table(path, drop=["h", "x, km"]).features == ("3", "1")


def test_an_unnamed_column_is_dropped_by_an_empty_name(tmp_path):
    path = write(tmp_path / "t.csv", ["", "a", "y"], [(n, n % 5 / 2, n % 2) for n in range(20)])
    assert load_table(path).features == ("a",)
    assert said(load_table(path, drop=[""]))["dropped"] == "'unnamed_1'"


def test_rows_without_a_target_are_left_out_and_said(tmp_path):
    rows = [(n / 3, ["yes", "no", "?"][n % 3]) for n in range(30)]
    data = load_table(write(tmp_path / "t.csv", ["a", "y"], rows))
    assert data.classes == ("no", "yes") and len(data.x_train) + len(data.x_test) == 20
    assert "10 without a target left out" in said(data)["data"]


@pytest.mark.parametrize(
    ("values", "task", "word"),
    [
        ([0.0, 1.0], "classification", "2 classes: 0 (20), 1 (20)"),
        ([1.0, 2.0, 3.0, 4.0], "classification", "whole numbers of few values"),
        ([1.5, 2.0], "regression", "regression (numbers), 1.5 to 2"),
        (list(range(20)), "regression", "whole numbers, 20 different ones"),
    ],
)
def test_the_task_and_why_are_said(tmp_path, values, task, word):
    rows = [(n / 3, values[n % len(values)]) for n in range(40)]
    data = load_table(write(tmp_path / "t.csv", ["a", "y"], rows))
    assert data.task == task and word in said(data)["target"]


def test_doubtful_tasks_name_the_option(tmp_path):
    rows = [(n / 3, n % 3, n % 20) for n in range(60)]
    path = write(tmp_path / "t.csv", ["a", "grade", "count"], rows)
    grade = load_table(path, target="grade").table.doubts
    count = load_table(path, target="count").table.doubts
    assert any("--task regression" in doubt for doubt in grade)
    assert any("--task classification" in doubt for doubt in count)
    assert not any(
        "--task" in d for d in load_table(path, target="grade", task="regression").table.doubts
    )


def test_classes_that_differ_in_blanks_or_case(tmp_path):
    rows = [(n / 3, ["Yes", "yes", "No", "No "][n % 4]) for n in range(40)]
    data = load_table(write(tmp_path / "t.csv", ["a", "y"], rows))
    assert data.classes == ("No", "Yes", "yes")
    assert any("differ in spelling only: 'Yes', 'yes'" in doubt for doubt in data.table.doubts)


def test_classes_of_one_row_each_are_refused_or_said(tmp_path):
    names = write(tmp_path / "n.csv", ["a", "y"], [(n / 3, f"person {n}") for n in range(40)])
    with pytest.raises(DataError, match="40 different texts in 40 rows"):
        load_table(names)
    rows = [(n / 3, "u" if n == 0 else "vw"[n % 2]) for n in range(40)]
    data = load_table(write(tmp_path / "s.csv", ["a", "y"], rows))
    assert any("one row each ('u')" in doubt for doubt in data.table.doubts)


@pytest.mark.parametrize(
    ("name", "values", "word"),
    [
        ("zip", [f"{n:05}" for n in range(500, 540)], "leading zeros"),
        ("day", range(20240101, 20240129), "taken for dates"),
        ("height", [n * 3 for n in range(40)], None),
        ("steps", range(40), "goes up by one"),
        ("year", range(1960, 2000), None),
        ("t", [*RNG.random(38).round(3), -999, -999], "--na -999"),
    ],
)
def test_numbers_that_may_be_something_else_are_used_and_said(tmp_path, name, values, word):
    rows = [(value, n % 7, n % 2) for n, value in enumerate(values)]
    data = load_table(write(tmp_path / "t.csv", [name, "a", "y"], rows))
    doubts = [doubt for doubt in data.table.doubts if f"'{name}'" in doubt]
    assert bool(doubts) is (word is not None) and (word or "") in "".join(doubts)


def test_whole_numbers_too_long_for_floats_are_left_out(tmp_path):
    rows = [(10**25 + n, n % 7, n % 2) for n in range(40)]
    data = load_table(write(tmp_path / "t.csv", ["long", "a", "y"], rows))
    assert "too many digits" in said(data)["left out"] and data.features == ("a",)


# --- which rows are held out ---


@pytest.fixture
def visits(tmp_path):
    rows = [(f"p{n % 10}", f"2024-{n % 12 + 1:02}-15", n / 7, n * 1.5) for n in range(120)]
    return write(tmp_path / "visits.csv", ["patient", "date", "a", "y"], rows)


def test_groups_stay_together(visits):
    data = load_table(visits, group="patient")
    assert not any("patient" in name for name in data.features)
    patients = np.arange(120) % 10
    test = data.table.test_rows
    assert len(test) == 24
    assert not set(patients[test]) & set(np.delete(patients, test))
    (x, _), (x_val, _) = data.split_validation(0.2)
    place = data.features.index("a")
    ours, theirs = ({round(a * 7) % 10 for a in rows[:, place]} for rows in (x, x_val))
    assert theirs and not ours & theirs


def test_the_latest_rows_are_held_out(visits):
    data = load_table(visits, time="date")
    assert not any(name == "date days" for name in data.features)
    months = np.arange(120) % 12
    assert min(months[data.table.test_rows]) == 9 and len(data.x_test) == 24
    (x, _), (x_val, _) = data.split_validation(10)
    np.testing.assert_array_equal(np.concatenate([x, x_val]), data.x_train)


def test_a_file_of_its_own_for_testing(tmp_path, visits):
    rows = [("p3", "2025-01-01", 1.0, 2.0), ("new", "", "", 3.0), ("p1", "2025-01-01", 2.0, "")]
    other = write(tmp_path / "other.csv", ["patient", "date", "a", "y"], rows)
    data = load_table(visits, test=other)
    assert len(data.x_train) == 120 and data.y_test.tolist() == [2.0, 3.0]
    assert "1 without a target" in said(data)["rows"]


def test_what_was_learnt_is_from_the_training_rows_only(tmp_path):
    rows = [(n, n / 2) for n in range(100)]
    data = load_table(write(tmp_path / "t.csv", ["v", "y"], rows))
    kept = np.setdiff1d(np.arange(100), data.table.test_rows)
    assert data.table.encoder.codes[0].fill == np.median(kept)


def test_ids_are_no_inputs(people):
    data = load_table(people, ids=["name", "size"])
    assert data.features == ("kind=a", "kind=b") and data.table.ids == ["name", "size"]


def test_roles_that_contradict_are_refused(visits):
    for options in ({"group": "y"}, {"time": "y"}, {"ids": ["y"], "target": "y"}):
        with pytest.raises((ConfigError, DataError)):
            load_table(visits, target="y", **{k: v for k, v in options.items() if k != "target"})
    with pytest.raises(DataError, match="dates in 'date'"):
        load_table(visits, target="date")
    with pytest.raises(DataError, match="in every row of the time column"):
        load_table(visits, time="patient")


def test_messages_are_short_and_harmless(tmp_path):
    names = [f"\x1b[31m{'n' * 300}{n}" for n in range(200)]
    path = write(tmp_path / "t.csv", names, RNG.random((5, 200)))
    with pytest.raises(DataError) as caught:
        load_table(path, target="absent")
    assert len(str(caught.value)) <= 2000 and "\x1b" not in str(caught.value)
