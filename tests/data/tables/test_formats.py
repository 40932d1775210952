"""Files that are no lines of cells, and text that is of another kind than it seems."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xpmlp.data import load_table
from xpmlp.data.tables import ReadOptions, read_table
from xpmlp.errors import DataError

pandas = pytest.importorskip("pandas")

FRAME = pandas.DataFrame({"a": [0.5, 1.5, None, 2.0], "b": [1, 2, 3, 4], "y": ["u", "v", "u", "v"]})


def kinds(table):
    return {column.name: column.kind for column in table.columns}


WANTED = {"a": "number", "b": "number", "y": "text"}


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.csv", "t"])
def test_columnar_files_whatever_the_ending(tmp_path, name):
    pytest.importorskip("pyarrow")
    FRAME.to_feather(tmp_path / name) if "feather" in name else FRAME.to_parquet(tmp_path / name)
    table = read_table(tmp_path / name)
    assert kinds(table) == WANTED and len(table) == 4


@pytest.mark.parametrize("name", ["t.xlsx", "t.csv"])
def test_workbooks(tmp_path, name):
    pytest.importorskip("openpyxl")
    with pandas.ExcelWriter(tmp_path / "t.xlsx") as writer:
        pandas.DataFrame({"x": ["made by", ""]}).to_excel(
            writer, sheet_name="data", index=False, header=False
        )
        FRAME.assign(d=pandas.date_range("2024-01-01", periods=4)).to_excel(
            writer, sheet_name="data", index=False, startrow=2
        )
        FRAME.to_excel(writer, sheet_name="more")
    (tmp_path / "t.xlsx").rename(tmp_path / name)
    table = read_table(tmp_path / name)
    assert kinds(table) == WANTED | {"d": "date"} and len(table) == 4
    assert any("'data' of 2" in word for word in table.how)


def test_damaged_workbooks_are_named(tmp_path):
    pytest.importorskip("openpyxl")
    FRAME.to_excel(tmp_path / "t.xlsx")
    content = (tmp_path / "t.xlsx").read_bytes()
    (tmp_path / "t.xlsx").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"t\.xlsx"):
        read_table(tmp_path / "t.xlsx")


@pytest.mark.parametrize(
    "options",
    [{"orient": "records", "lines": True}, {"orient": "records"}, {}, {"orient": "list"}],
    ids=["lines", "records", "columns", "lists"],
)
def test_json(tmp_path, options):
    if options.get("orient") == "list":
        columns = {name: list(part) for name, part in FRAME.fillna(0.0).items()}
        (tmp_path / "t.jsonl").write_text(json.dumps(columns, default=int))
    else:
        FRAME.to_json(tmp_path / "t.jsonl", **options)
    table = read_table(tmp_path / "t.jsonl")
    assert kinds(table) == WANTED and len(table) == 4


@pytest.mark.parametrize(
    "text", ['{"a": 1}\n{"a": \n', "[1, 2]\n", '[{"a": 1}, 2]', '{"a": 1}\n3\n']
)
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(DataError):
        load_table(tmp_path / "t.jsonl")


ARFF = """% a comment
@RELATION things
@attribute 'body size' REAL
@attribute b {1, 2, '3 or more'}
@attribute y {u,v}
@DATA
0.5,1,u
?,'3 or more',v
% another
1.5,2,u
"""


def test_arff(tmp_path):
    (tmp_path / "t.arff").write_text(ARFF)
    table = read_table(tmp_path / "t.arff")
    assert kinds(table) == {"body size": "number", "b": "category", "y": "category"}
    assert table.column("b").texts().tolist() == ["1", "3 or more", "2"]
    assert np.isnan(table.column("body size").values[1])
    (tmp_path / "t.arff").write_text(ARFF.partition("@DATA")[0] + "@data\n{0 1, 2 u}\n")
    with pytest.raises(DataError, match="sparse"):
        read_table(tmp_path / "t.arff")


@pytest.mark.parametrize("name", ["t.svm", "t.libsvm", "t.txt"])
def test_svmlight(tmp_path, name):
    (tmp_path / name).write_text("1 qid:1 1:0.5 3:2 # note\n-1 2:1\n" * 10)
    data = load_table(tmp_path / name)
    assert data.classes == ("-1", "1") and data.features == ("1", "2", "3")
    (tmp_path / name).write_text("1 1:0.5\n" * 6 + "1 4000000000:1\n")
    with pytest.raises(DataError, match=r"at most \d+ cells"):
        load_table(tmp_path / name)


def test_npy(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(40.0).reshape(10, 4) % 7)
    assert load_table(tmp_path / "t.npy").features == ("0", "1", "2")
    records = np.array([(0.5, b"u"), (1.5, b"v")] * 5, dtype=[("a", "f8"), ("y", "S1")])
    np.save(tmp_path / "t.npy", records)
    assert load_table(tmp_path / "t.npy").classes == ("u", "v")
    np.save(tmp_path / "t.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="never unpickled"):
        load_table(tmp_path / "t.npy")
    np.save(tmp_path / "t.npy", np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="shape"):
        load_table(tmp_path / "t.npy")


@pytest.mark.parametrize(
    ("x", "y"), [("X", "y"), ("data", "target"), ("features", "labels"), ("arr_0", "arr_1")]
)
def test_arrays_under_other_names(tmp_path, x, y):
    np.savez(
        tmp_path / "t.npz", **{x: np.random.default_rng(0).random((20, 2)), y: np.arange(20.0) % 2}
    )
    assert load_table(tmp_path / "t.npz").classes == ("0", "1")


def test_four_arrays_under_other_names_and_targets_of_one_column(tmp_path):
    x, y = np.random.default_rng(0).random((20, 2)), (np.arange(20) % 2)[:, None]
    np.savez(tmp_path / "t.npz", X_train=x, y_train=y, X_test=x, y_test=y)
    data = load_table(tmp_path / "t.npz")
    assert data.classes == ("0", "1") and data.y_test.shape == (20,)


def test_texts_in_typed_files_are_read_like_those_of_csv(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": ["1,5", "?", "2,5"], "d": ["2024-01-01", None, "2024-01-03"]})
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", ReadOptions(decimal=","))
    assert kinds(table) == {"a": "number", "d": "date"}


def test_json_that_is_no_table_gets_a_clear_word(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({"a": 1, "b": [1, 2]}))
    with pytest.raises(DataError):
        load_table(tmp_path / "t.json")
