"""Tables and arrays from the user's own files: CSV and Parquet (through pandas), and NPZ."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, MissingDependencyError
from .csv_check import check_csv
from .dataset import Dataset, check_finite
from .splits import part_size, split_rows
from .targets import check_task, encode_targets

_MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
_LAYOUTS = (
    "either x and y (divided into training and test part here), "
    "or x_train, y_train, x_test and y_test"
)
ENDINGS = (".csv", ".tsv", ".parquet", ".npz")


def load_table(
    path: str | Path,
    *,
    target: str | int | None = None,
    drop: str | Sequence[str | int] = (),
    task: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Read a table and divide it into a training and a test part.

    CSV (``.csv``, ``.tsv``; separated by comma, semicolon or tab; with or without a header) and
    Parquet hold one target column; all others are inputs and must be numbers. NPZ files hold
    arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``; there ``target``
    and ``drop`` have no meaning.

    Text, truth values, and whole numbers of at most 64 different values (each on average in two
    rows or more) as target make a classification; its class names are sorted. Other targets make
    a regression. ``task`` overrides this.

    Parameters
    ----------
    path : path
        A file ending in .csv, .tsv, .parquet or .npz.
    target : str or int, optional
        Name or number of the target column (negative numbers count from the end). Default: the
        last.
    drop : str, or sequence of str or int
        Columns to leave out, such as row numbers, by name or number.
    task : "classification" or "regression", optional
        What to make of the target.
    test_fraction : float
        Part of the rows to hold out for testing, stratified by class; not used where the file has
        a test part of its own.
    seed : int
        Seed of the division: the same seed, the same rows.

    Returns
    -------
    Dataset
        ``x`` float64 ``(N, D)`` (NPZ: as stored); ``y`` int64 ``(N,)`` or floats.

    Raises
    ------
    DataError
        If the file is missing, empty, ragged or damaged, a value is missing, infinite or text
        where a number is expected (column, row and value are named), or the target is unknown.
        Rows are counted from 1, the first row under the header.
    MissingDependencyError
        If pandas is needed and not installed.
    ConfigError
        If ``task`` or ``test_fraction`` is out of range.
    """
    path = Path(path).expanduser()
    check_task(task)
    drop = [drop] if isinstance(drop, str) else list(drop)
    if path.is_dir():
        raise DataError(
            f"`{path}`: expected a file, got a folder; name a file in it that ends in "
            f"{', '.join(ENDINGS)} (a known data set in a folder: mnist with data_dir, --data-dir)"
        )
    if not path.is_file():
        raise DataError(f"`{path}`: expected a file, got none of that name; check the path")
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(
            f"`{path}`: expected a file ending in {', '.join(ENDINGS)}, got {ending or 'no ending'}"
        )
    try:
        if ending == ".npz":
            if target is not None or len(drop):
                raise ConfigError(
                    f"`{path}`: expected no target or drop for an NPZ file, whose targets are in "
                    f"the array y; got target={target!r}, drop={drop!r}; leave them out"
                )
            return _load_npz(path, task, test_fraction, seed)
    except OSError as error:
        raise DataError(f"`{path}`: could not be read ({error}); check the file") from error
    frame = read_frame(path)
    dropped = {_place(path, "drop", name, frame) for name in drop}
    kept = [i for i in range(frame.shape[1]) if i not in dropped]
    if len(kept) < 2:
        raise DataError(
            f"`{path}`: expected a target column and at least one other, got only "
            f"{', '.join(repr(frame.columns[i]) for i in kept) or 'none'}; check the separator "
            "(comma, semicolon or tab)"
        )
    position = kept[-1] if target is None else _place(path, "target", target, frame)
    if position in dropped:
        raise ConfigError(
            f"`{path}`: expected target and drop to name different columns, got target={target!r}, "
            f"drop={drop!r}"
        )
    label = str(frame.columns[position])
    columns = [i for i in kept if i != position]
    names = [str(frame.columns[i]) for i in columns]
    x = np.column_stack([numbers(path, frame.iloc[:, i]) for i in columns])
    check_finite(x, str(path), tuple(names), first_row=1)
    raw = _raw_target(path, frame.iloc[:, position])
    y, classes = encode_targets(raw, f"{path}: column {label!r}", task)
    return _divide(path, x, y, classes, tuple(names), test_fraction, seed)


def _divide(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    classes: tuple[str, ...] | None,
    features: tuple[str, ...] | None,
    test_fraction: float,
    seed: int,
) -> Dataset:
    held = part_size(test_fraction, len(x), "test_fraction")
    kept, test = split_rows(len(x), held, seed=seed, labels=None if classes is None else y)
    return Dataset(path.stem, x[kept], y[kept], x[test], y[test], classes, features, str(path))


# --- CSV and Parquet -----------------------------------------------------------------------------


def read_frame(path: Path) -> Any:
    """A CSV or Parquet file as a pandas table of at least one row, or a DataError."""
    try:
        frame = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except OSError as error:
        raise DataError(f"`{path}`: could not be read ({error}); check the file") from error
    if frame.shape[0] == 0:
        raise DataError(f"`{path}`: expected rows, got an empty table; check its content")
    return frame


def _pandas(path: Path) -> ModuleType:
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError(
            f"`{path}`: expected pandas to read it with, got none installed; "
            'pip install "xpmlp[cli]", or save the data as NPZ'
        ) from error
    return pandas


def _read_csv(path: Path) -> Any:
    pandas = _pandas(path)
    layout = check_csv(path)
    try:
        frame = pandas.read_csv(
            path,
            sep=layout.separator,
            header=0 if layout.has_header else None,
            names=list(layout.columns),
            index_col=False,
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=list(_MISSING),
            low_memory=False,
        )
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"`{path}`: expected CSV, got {error}; check the file") from error
    if len(frame) != layout.rows:
        raise DataError(
            f"`{path}`: expected {layout.rows} rows, but {len(frame)} could be read; "
            "check it for stray quotes and empty lines"
        )
    return frame


def _read_parquet(path: Path) -> Any:
    pandas = _pandas(path)
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise MissingDependencyError(
            f"`{path}`: expected pyarrow to read Parquet with, got none installed; "
            'pip install "xpmlp[cli]", or save the data as CSV or NPZ'
        ) from error
    except (ValueError, OSError, KeyError) as error:  # pyarrow's errors derive from these
        raise DataError(
            f"`{path}`: expected a Parquet file, got one that cannot be read "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "write it again"
        ) from error
    frame.columns = [str(name) for name in frame.columns]
    return frame.reset_index(drop=True)


def _place(path: Path, argument: str, column: str | int, frame: Any) -> int:
    """A column's place: by name first, then as a number."""
    names = list(frame.columns)
    if isinstance(column, str) and column in names:
        return names.index(column)
    try:
        number = int(column)
    except ValueError:
        raise DataError(_unknown_column(path, argument, column, frame)) from None
    if not -len(names) <= number < len(names):
        raise DataError(_unknown_column(path, argument, column, frame))
    return number % len(names)


def _unknown_column(path: Path, argument: str, name: str | int, frame: Any) -> str:
    shown = ", ".join(repr(str(c)) for c in frame.columns[:30])
    more = f" and {frame.shape[1] - 30} more" if frame.shape[1] > 30 else ""
    return (
        f"`{path}`: expected {argument} to be a column, got {name!r}; "
        f"the columns are {shown}{more} (or their numbers from 0)"
    )


def numbers(path: Path, column: Any) -> np.ndarray:
    """A column as float64; text, dates and missing values are errors that say where."""
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    numeric = is_numeric_dtype(column) or is_bool_dtype(column)
    if not numeric or is_complex_dtype(column):
        row = _first_text(column)
        value = repr(column.iloc[row])
        raise DataError(
            f"`{path}`: expected numbers in column {column.name!r}, got {value:.60} in row "
            f"{row + 1}; {_mend(value)}"
        )
    _check_missing(path, column)
    return column.to_numpy(dtype=np.float64)


def _mend(value: str) -> str:
    """What to do about a value that is no number."""
    if re.fullmatch(r"'[+-]?\d+,\d+'", value):
        return "write decimals with a point, not a comma"
    return "mend the value, encode the column as numbers, or leave it out with drop (--drop)"


def _first_text(column: Any) -> int:
    """The first row whose value is present but no number; 0 if all of them are."""
    for row, (value, missing) in enumerate(zip(column, column.isna(), strict=True)):
        try:
            if not missing:
                float(value)
        except (TypeError, ValueError):
            return row
    return 0


def _raw_target(path: Path, column: Any) -> np.ndarray:
    """The target column as a NumPy array of text, truth values, integers or floats."""
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    _check_missing(path, column)
    if is_bool_dtype(column):
        return column.to_numpy(dtype=bool)
    if is_integer_dtype(column):
        return column.to_numpy(dtype=np.int64)
    if is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64)
    return column.astype(str).to_numpy(dtype=object)


def _check_missing(path: Path, column: Any) -> None:
    missing = column.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"`{path}`: expected a value in every row of column {column.name!r}, got "
            f"{int(missing.sum())} missing ones, the first in row "
            f"{int(np.flatnonzero(missing)[0]) + 1}; fill them or drop those rows"
        )


# --- NPZ -----------------------------------------------------------------------------------------


def _load_npz(path: Path, task: str | None, test_fraction: float, seed: int) -> Dataset:
    arrays = _read_npz(path)
    if "x_train" not in arrays:
        x, y = arrays["x"], arrays["y"]
        _check_pair(path, "x", x, "y", y)
        y, classes = encode_targets(y, f"{path}: y", task)
        return _divide(path, x, y, classes, None, test_fraction, seed)
    x_train, x_test = arrays["x_train"], arrays["x_test"]
    y_train, y_test = arrays["y_train"], arrays["y_test"]
    _check_pair(path, "x_train", x_train, "y_train", y_train)
    _check_pair(path, "x_test", x_test, "y_test", y_test)
    if y_train.shape[1:] != y_test.shape[1:] or y_train.dtype.kind != y_test.dtype.kind:
        raise DataError(
            f"`{path}`: expected y_train and y_test of one kind, got {y_train.dtype} "
            f"{y_train.shape} and {y_test.dtype} {y_test.shape}; save both in the same form"
        )
    # One coding for both parts; a class that only the test part has is still a class.
    y, classes = encode_targets(np.concatenate([y_train, y_test]), f"{path}: y_train, y_test", task)
    cut = len(y_train)
    return Dataset(path.stem, x_train, y[:cut], x_test, y[cut:], classes, None, str(path))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    fix = "write it again with numpy.savez_compressed"
    try:
        if not zipfile.is_zipfile(path):  # np.load would also take a single array, or text
            raise DataError(f"`{path}`: expected an NPZ archive, got another or cut file; {fix}")
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            keys = set(file.files)
            if {"x_train", "y_train", "x_test", "y_test"} <= keys:
                wanted = ("x_train", "y_train", "x_test", "y_test")
            elif {"x", "y"} <= keys:
                wanted = ("x", "y")
            else:
                raise DataError(
                    f"`{path}`: expected the arrays {_LAYOUTS}, got "
                    f"{', '.join(sorted(keys)) or 'none'}; {fix} under these names"
                )
            return {key: file[key] for key in wanted}
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"`{path}`: expected arrays that fit in memory ({error}); check the file"
        ) from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"`{path}`: expected plain arrays, got Python objects, which are never unpickled; "
                "save numbers or fixed-width text"
            ) from error
        raise DataError(
            f"`{path}`: expected an NPZ archive, got one that cannot be read ({error}); {fix}"
        ) from error


def _check_pair(path: Path, x_name: str, x: np.ndarray, y_name: str, y: np.ndarray) -> None:
    """What has to hold before rows can be divided; the rest is checked by Dataset."""
    if x.ndim < 2 or y.ndim not in (1, 2) or len(x) != len(y) or len(x) == 0:
        raise DataError(
            f"`{path}`: expected {x_name} of shape (N, …) and {y_name} of shape (N,) or (N, M) "
            f"with the same N ≥ 1, got {x.shape} and {y.shape}; check what was saved"
        )
    if x.dtype.kind not in "buif":
        raise DataError(
            f"`{path}`: expected numbers in {x_name}, got dtype {x.dtype}; encode them first"
        )
    check_finite(x, f"{path}: {x_name}")
