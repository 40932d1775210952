"""Inputs without targets, as a trained network is given them."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.data import load_features
from xpmlp.errors import DataError


def write(path, text):
    path.write_text(text)
    return path


def test_columns_are_taken_by_name_in_the_order_of_training(tmp_path):
    path = write(tmp_path / "t.csv", "label,b,a\nx,1,2\ny,3,4\n")
    np.testing.assert_array_equal(load_features(path, ["a", "b"], 2), [[2, 1], [4, 3]])


def test_all_columns_are_taken_without_names(tmp_path):
    path = write(tmp_path / "t.csv", "a,b\n1,2\n3,4\n")
    np.testing.assert_array_equal(load_features(path), [[1, 2], [3, 4]])


def test_parquet_and_npz(tmp_path):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"a": [1.0], "b": [2.0]}).to_parquet(tmp_path / "t.parquet")
    np.testing.assert_array_equal(load_features(tmp_path / "t.parquet", ["b"]), [[2]])
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "t.npz", x=x)
    np.testing.assert_array_equal(load_features(tmp_path / "t.npz", inputs=12), x)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n1\n", "none named 'b'"),
        ("a,b\n1,\n", "missing"),
        ("a,b\n1,inf\n", "column 'b'"),
        ("a,b\n1,2\n1,x\n", "'x' in row 2"),
        ("a,b\n1,2,3\n", "t.csv"),
        ("a,b\n", "t.csv"),
    ],
    ids=["column", "missing", "inf", "text", "ragged", "empty"],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load_features(write(tmp_path / "t.csv", text), ["a", "b"])


def test_wrong_length_of_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected 3 numbers in a row"):
        load_features(write(tmp_path / "t.csv", "a,b\n1,2\n"), None, 3)


def test_bad_npz_files_are_refused(tmp_path):
    path = tmp_path / "t.npz"
    for arrays, message in (({"y": np.ones(3)}, "named x"), ({"x": np.ones(3)}, r"\(N, …\)")):
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=message):
            load_features(path)
    np.savez(path, x=np.array([{}, {}], dtype=object))
    with pytest.raises(DataError, match="never unpickled"):
        load_features(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="NPZ archive"):
        load_features(path)


def test_missing_and_unknown_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of that name"):
        load_features(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="empty file"):
        load_features(write(tmp_path / "t.xlsx", ""))
