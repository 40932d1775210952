"""Tables: what is read, how targets are found, and a clear word about every kind of bad file."""

import io
import sys
import zipfile

import numpy as np
import pytest

from xpmlp.data import load_table
from xpmlp.errors import ConfigError, DataError, MissingDependencyError

RNG = np.random.default_rng(0)
pandas = pytest.importorskip("pandas")


@pytest.fixture
def csv(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def rows(data):
    """Rows of both parts with their targets, in sorted order."""
    x = np.concatenate([data.x_train, data.x_test])
    y = np.concatenate([data.y_train, data.y_test])
    return sorted((*map(float, row), float(target)) for row, target in zip(x, y, strict=True))


FLOWERS = "length,width,kind\n" + "".join(
    f"{i},{i / 2},{kind}\n" for i, kind in enumerate(["iris", "rose"] * 10)
)


def test_text_target_becomes_classes(csv):
    data = load_table(csv(FLOWERS))
    assert data.task == "classification" and data.classes == ("iris", "rose")
    assert data.features == ("length", "width") and data.name == "table"
    assert data.x_train.shape == (16, 2) and data.x_train.dtype == np.float64
    assert rows(data) == [(i, i / 2, i % 2) for i in range(20)]
    assert np.bincount(data.y_test).tolist() == [2, 2]  # stratified


def test_seed_and_fraction_decide_the_division(csv):
    path = csv(FLOWERS)
    one = load_table(path, test_fraction=0.5, seed=1)
    assert len(one.x_test) == 10
    assert one.x_test.tolist() == load_table(path, test_fraction=0.5, seed=1).x_test.tolist()
    assert one.x_test.tolist() != load_table(path, test_fraction=0.5, seed=2).x_test.tolist()
    with pytest.raises(ConfigError, match="`test_fraction`"):
        load_table(path, test_fraction=1.5)


NUMBERS = "a,b,c\n" + "".join(f"{i},{i + 0.5},{i % 2}\n" for i in range(10))


@pytest.mark.parametrize(
    ("target", "features", "task"),
    [
        (None, ("a", "b"), "classification"),
        ("b", ("a", "c"), "regression"),
        (1, ("a", "c"), "regression"),
        ("1", ("a", "c"), "regression"),
        (-3, ("b", "c"), "regression"),
        (0, ("b", "c"), "regression"),
    ],
)
def test_target_by_name_or_number(csv, target, features, task):
    data = load_table(csv(NUMBERS), target=target)
    assert data.features == features and data.task == task


def test_a_column_name_that_is_a_number_wins_over_the_position(csv):
    data = load_table(csv("1,x,0\n" + NUMBERS.partition("\n")[2]), target="0")
    assert data.features == ("1", "x")


def test_task_override(csv):
    assert load_table(csv(NUMBERS), task="regression").task == "regression"
    assert load_table(csv(NUMBERS), target="a", task="classification").task == "classification"
    with pytest.raises(ConfigError, match="classification, regression"):
        load_table(csv(NUMBERS), task="ranking")


def test_dropped_columns(csv):
    data = load_table(csv("id,a,b\nx,1,2.5\ny,2,3.5\nz,3,4.5\n"), drop=["id"])
    assert data.features == ("a",)
    with pytest.raises(DataError, match="drop to be a column, got 'ids'"):
        load_table(csv("id,a,b\nx,1,2.5\ny,2,3.5\n"), drop=["ids"])


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.CSV"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_endings(csv, name, separator):
    data = load_table(csv(FLOWERS.replace(",", separator), name))
    assert rows(data) == [(i, i / 2, i % 2) for i in range(20)]


def test_no_header_and_truth_values(csv):
    text = "".join(f"{i},{str(i > 3).lower()},{i / 4}\n" for i in range(8))
    data = load_table(csv("0,0,0\n" + text.replace("true", "1").replace("false", "0")))
    assert data.features == ("0", "1") and len(data.x_train) + len(data.x_test) == 9
    data = load_table(csv("n,big,v\n" + text), target="big")
    assert data.classes == ("False", "True")
    data = load_table(csv("n,big,v\n" + text))
    assert set(np.concatenate([data.x_train, data.x_test])[:, 1]) == {0.0, 1.0}


def test_none_is_a_class_name_and_not_a_missing_value(csv):
    data = load_table(csv("a,kind\n1.5,None\n2,some\n3,None\n4,some\n"))
    assert data.classes == ("None", "some")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("a,b\n", "rows under the header"),
        ("a,b\n1,2\n1,2,3\n", "expected 2 values .* got 3 in line 3"),
        ("a,b\n1,2\n1\n", "expected 2 values .* got 1 in line 3"),
        ("a,b\n1,2\n1,2,3\n3\n", "got 3 in line 3, 1 in line 4; .*--sep"),
        ("a,b,c\n1,2,\n4,5,\n", "a target in 'c', got none in any row"),
        ("a,b\n1,1\n2,1\n", "two classes, got only '1'"),
        ("a\n1\n2\n", "at least one other"),
        ("a b\n1 2\n", "separator"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "binary file of another kind"),
        (b"\xd0\xcf\x11\xe0" + bytes(64), "Excel file of before 2007"),
        (b"\x80\x04\x95\x10\0\0\0.", "pickle, which is never read"),
    ],
)
def test_bad_csv_is_named(csv, text, message):
    path = csv(text)
    with pytest.raises(DataError, match=message) as caught:
        load_table(path)
    assert str(path) in str(caught.value)


def test_unknown_target_lists_the_columns(csv):
    for target in ("kinds", 3, -4, "7"):
        with pytest.raises(DataError, match="'length', 'width', 'kind'"):
            load_table(csv(FLOWERS), target=target)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="none of that name"):
        load_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="expected a file"):
        load_table(tmp_path)


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("pandas", "t.parquet", "cli"),
        ("pyarrow", "t.feather", "cli"),
        ("openpyxl", "t.xlsx", "excel"),
    ],
)
def test_missing_library_names_the_extra(tmp_path, monkeypatch, missing, name, extra):
    path = tmp_path / name
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    write = {"parquet": frame.to_parquet, "feather": frame.to_feather, "xlsx": frame.to_excel}
    pytest.importorskip("openpyxl")
    write[name.partition(".")[2]](path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=rf'{missing}.*pip install "xpmlp\[{extra}\]"'):
        load_table(path)


# --- Parquet ---


@pytest.fixture
def parquet(tmp_path):
    pytest.importorskip("pyarrow")

    def write(**columns):
        path = tmp_path / "table.parquet"
        pandas.DataFrame(columns).to_parquet(path)
        return path

    return write


def test_parquet(parquet):
    data = load_table(
        parquet(a=np.arange(20, dtype=np.int32), b=np.arange(20) / 2, kind=["x", "y"] * 10)
    )
    assert data.classes == ("x", "y") and data.features == ("a", "b")
    assert rows(data) == [(i, i / 2, i % 2) for i in range(20)]


def test_parquet_categories_and_nullable_integers(parquet):
    path = parquet(a=pandas.array([1, 2, 3, 4], dtype="Int64"), k=pandas.Categorical(list("abab")))
    data = load_table(path)
    assert data.classes == ("a", "b")
    assert rows(data) == [(1, 0), (2, 1), (3, 0), (4, 1)]


def test_parquet_of_all_kinds(parquet):
    names = ["u", "v"] * 10
    data = load_table(
        parquet(
            text=names,
            gap=[1.0, None, 3.0, np.inf] * 5,
            day=pandas.date_range("2020-01-01", periods=20),
            whole=pandas.array([1, None] * 10, dtype="Int64"),
            code=pandas.Categorical([10, 20] * 10),
            yes=pandas.array([True, None] * 10, dtype="boolean"),
            y=np.arange(20) / 3,
        )
    )
    kinds = {code.name: code.kind for code in data.table.encoder.codes}
    assert kinds == {
        "text": "category",
        "gap": "number",
        "day": "date",
        "whole": "number",
        "code": "category",
        "yes": "boolean",
    }
    assert np.isfinite(data.x_train).all()
    assert any("'gap' (5 infinite)" in doubt for doubt in data.table.doubts)


def test_parquet_of_lists_or_without_rows(parquet):
    data = load_table(parquet(a=[[1], [2]] * 5, c=np.arange(10.0), b=np.arange(10) / 3))
    assert data.features == ("c",) and "'a'" in dict(data.table.summary)["read"]
    with pytest.raises(DataError, match="expected rows"):
        load_table(parquet(a=[], b=[]))


def test_a_named_index_is_a_column(tmp_path):
    frame = pandas.DataFrame({"b": np.arange(8.0), "y": ["u", "v"] * 4})
    frame.set_index(pandas.Index(np.arange(8) * 0.5, name="a")).to_parquet(tmp_path / "t.parquet")
    assert load_table(tmp_path / "t.parquet").features == ("a", "b")


def test_damaged_parquet_is_named(parquet):
    path = parquet(a=[1.0, 2.0], b=[3.0, 4.0])
    whole = path.read_bytes()
    for bad in (b"PAR1", whole[:-5], whole[: len(whole) // 2]):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="expected a Parquet file"):
            load_table(path)


# --- NPZ ---


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        path = tmp_path / "arrays.npz"
        np.savez(path, **arrays)
        return path

    return write


def test_npz_is_divided(npz):
    x = RNG.integers(0, 256, (20, 3, 3), dtype=np.uint8)
    data = load_table(npz(x=x, y=np.arange(20) % 4))
    assert data.x_train.shape == (16, 3, 3) and data.x_train.dtype == np.uint8
    assert data.classes == ("0", "1", "2", "3") and data.features is None


def test_npz_with_its_own_test_part_is_kept_as_it_is(npz):
    arrays = {
        "x_train": RNG.random((6, 2)),
        "y_train": np.array(list("abcabc")),
        "x_test": RNG.random((3, 2)),
        "y_test": np.array(["c", "a", "a"]),
    }
    data = load_table(npz(**arrays), test_fraction=0.9)
    np.testing.assert_array_equal(data.x_train, arrays["x_train"])
    np.testing.assert_array_equal(data.x_test, arrays["x_test"])
    assert data.y_train.tolist() == [0, 1, 2, 0, 1, 2] and data.y_test.tolist() == [2, 0, 0]


def test_npz_regression_with_several_targets(npz):
    data = load_table(npz(x=RNG.random((10, 2)), y=RNG.random((10, 3)).astype(np.float32)))
    assert data.task == "regression"
    assert data.y_train.shape == (8, 3) and data.y_train.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((4, 2))}, "either x and y .* or x_train, y_train, x_test and y_test"),
        ({"x_train": np.ones((4, 2)), "y_train": np.ones(4)}, "either x and y"),
        ({}, "either x and y .*got none"),
        ({"x": np.ones((4, 2)), "y": np.ones(3)}, "the same N"),
        ({"x": np.ones(4), "y": np.ones(4)}, "the same N"),
        ({"x": np.ones((0, 2)), "y": np.ones(0)}, "the same N"),
        ({"x": np.full((4, 2), "a"), "y": np.ones(4)}, "numbers in x"),
        ({"x": np.full((4, 2), np.nan), "y": np.ones(4)}, "8 NaN|NaN or infinite"),
        ({"x": np.ones((4, 2)), "y": np.array([1.0, 2, np.inf, 4])}, "1 NaN or infinite"),
        ({"x": np.array([[{}]] * 4, dtype=object), "y": np.ones(4)}, "never unpickled"),
        ({"x": np.ones((4, 2)), "y": np.array([None] * 4, dtype=object)}, "never unpickled"),
        (
            {
                "x_train": np.ones((4, 2)),
                "y_train": np.array(list("abab")),
                "x_test": np.ones((2, 2)),
                "y_test": np.ones(2),
            },
            "y_train and y_test of one kind",
        ),
    ],
)
def test_bad_npz_is_named(npz, arrays, message):
    path = npz(**arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_table(path)
    assert path.stem in str(caught.value)


def test_damaged_npz_is_named(npz, tmp_path):
    path = npz(x=np.ones((50, 4)), y=np.arange(50) / 3)
    whole = path.read_bytes()
    middle = len(whole) // 2
    single = io.BytesIO()
    np.save(single, np.ones(3))
    lying = io.BytesIO()  # a header that promises 2**50 values
    np.lib.format.write_array_header_1_0(
        lying, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50, 1)}
    )
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w") as archive:
        archive.writestr("x.npy", lying.getvalue())
        archive.writestr("y.npy", lying.getvalue())
    flipped = bytearray(whole)
    flipped[middle] ^= 255
    for bad in (b"", b"PK", whole[:middle], bytes(flipped), single.getvalue(), bomb.getvalue()):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"arrays\.npz"):
            load_table(path)


def test_target_and_drop_make_no_sense_for_npz(npz):
    path = npz(x=np.ones((4, 2)), y=np.arange(4) / 2)
    for options in ({"target": "y"}, {"drop": ["a"]}):
        with pytest.raises(ConfigError, match="NPZ"):
            load_table(path, **options)
