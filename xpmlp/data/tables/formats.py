"""Files that are not lines of cells: Excel, JSON, ARFF, svmlight, NPY, Parquet and Feather.

The first three are made into rows of text and read like any other text; the others have columns of
their own.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from ...errors import DataError, MissingDependencyError
from ...files import most_unpacked, reading
from ...npz import read_npy
from .arrow import read_arrow
from .columns import CATEGORY, DATE, NUMBER, TEXT, Column, Table, shown


def check_cells(
    rows: int, columns: int, content: bytes | str, where: str, fix: str, *, text: bool = True
) -> None:
    """Whether a table written out in full is of a size that one would expect of its file.

    Raises
    ------
    DataError
        If it has far more cells than the file has bytes.
    """
    most = most_unpacked(len(content), text=text) // 8
    if rows * columns > most:
        raise DataError(
            f"`{where}`: expected at most {most} cells in a file of {len(content)} bytes, got "
            f"{rows} rows of {columns}; {fix}"
        )


def needs(where: str, library: str, extra: str, error: ImportError) -> MissingDependencyError:
    """What to install for a kind of file."""
    return MissingDependencyError(
        f"`{where}`: expected {library} to read it with, got none installed; "
        f'pip install "xpmlp[{extra}]", or save the data as CSV'
    )


def workbook_rows(content: bytes, where: str) -> tuple[list[list[str]], list[str]]:
    """The cells of an Excel workbook's first sheet with cells, as text, and what to say."""
    try:
        import openpyxl
    except ImportError as error:
        raise needs(where, "openpyxl", "excel", error) from error
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on styles and extensions, which are of no matter
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
            for sheet in sheets or book.worksheets:
                rows, cells = [], 0
                for row in sheet.iter_rows(values_only=True):
                    cells += len(row)
                    check_cells(1, cells, content, where, "save the cells in use as CSV")
                    if any(value is not None for value in row):
                        rows.append([cell_text(value) for value in row])
                rows = [row for row in rows if any(row)]
                if rows:
                    break
            else:
                rows, sheet = [], None
            names = book.sheetnames
            book.close()
    except DataError:
        raise
    except Exception as error:  # zip, XML and openpyxl each have their own
        raise DataError(
            f"`{where}`: expected an Excel workbook, got one that cannot be read ({error}); "
            "save it as CSV"
        ) from error
    width = max((len(row) for row in rows), default=0)
    while width and not any(row[width - 1] for row in rows if len(row) == width):
        rows = [row[: width - 1] for row in rows]
        width -= 1
    how = [f"Excel sheet {shown(sheet.title)} of {len(names)}"] if sheet and names[1:] else []
    return [row + [""] * (width - len(row)) for row in rows], how


def cell_text(value: Any) -> str:
    """A value as a text file would hold it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(value)
    if hasattr(value, "isoformat"):
        text = value.isoformat()
        return text[:10] if text.endswith("T00:00:00") else text
    return str(value)


def json_rows(text: str, where: str) -> tuple[list[str], list[list[str]]]:
    """Names and rows of JSON lines, or of one JSON array of records."""
    try:
        if text.lstrip().startswith("["):
            records = json.loads(text)
        else:
            try:
                records = [json.loads(text)]
            except ValueError:
                records = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"`{where}`: expected JSON, a record a line, got {str(error)[:200]}; check the file"
        ) from error
    if isinstance(records, list) and len(records) == 1 and isinstance(records[0], dict):
        records = _records_of_columns(records[0]) or records
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise DataError(
            f'`{where}`: expected JSON records such as {{"a": 1, "y": 2}}, a line each, got '
            "something else; write it with pandas' to_json(orient='records', lines=True)"
        )
    names = list(dict.fromkeys(name for record in records for name in record))
    check_cells(len(records), len(names), text, where, "give all records the same names")
    rows = []
    for record in records:
        row = []
        for name in names:
            value = record.get(name)
            row.append(json.dumps(value) if isinstance(value, dict | list) else cell_text(value))
        rows.append(row)
    return [str(name) for name in names], rows


def _records_of_columns(columns: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Records from ``{"a": [1, 2], …}`` or ``{"a": {"0": 1, "1": 2}, …}``."""
    if not columns or not all(isinstance(part, list | dict) for part in columns.values()):
        return None
    parts = {
        name: dict(enumerate(part)) if isinstance(part, list) else part
        for name, part in columns.items()
    }
    keys = list(dict.fromkeys(key for part in parts.values() for key in part))
    return [{name: part.get(key) for name, part in parts.items()} for key in keys]


_ATTRIBUTE = re.compile(r"""@attribute\s+('[^']*'|"[^"]*"|\S+)\s+(.*)""", re.IGNORECASE)


def arff_parts(text: str, where: str) -> tuple[list[str], set[str], Iterator[list[str]]]:
    """Names, the names of nominal columns, and the rows of an ARFF file."""
    names, nominal = [], set()
    lines = iter(text.splitlines())
    for line in lines:
        line = line.strip()
        if line.lower().startswith("@data"):
            break
        match = _ATTRIBUTE.match(line)
        if match:
            name = match[1].strip("'\"")
            names.append(name)
            if match[2].lstrip().startswith("{"):
                nominal.add(name)
    else:
        raise DataError(f"`{where}`: expected a line @data in an ARFF file, got none")
    data = [line for line in lines if line.strip() and not line.lstrip().startswith("%")]
    if data and data[0].lstrip().startswith("{"):
        raise DataError(
            f"`{where}`: expected full rows in an ARFF file, got sparse ones; save it as CSV"
        )
    quote = "'" if any("'" in line for line in data) else '"'
    return names, nominal, csv.reader(data, quotechar=quote, skipinitialspace=True)


_PAIR = re.compile(r"(\d+):(\S+)")
SVMLIGHT = re.compile(
    r"[+-]?[\d.]+(?:[eE][+-]?\d+)?(?:\s+qid:\d+)?(?:\s+\d+:[+-]?[\d.]\S*)+\s*(?:#.*)?"
)


def svmlight_table(text: str, where: str) -> Table:
    """svmlight / libsvm lines, ``label place:value …``, written out in full."""
    labels, places, rows, values = [], [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        try:
            label, *rest = line.split()
            labels.append(float(label))
            for pair in rest:
                place, value = pair.split(":")
                if place == "qid":
                    continue
                rows.append(len(labels) - 1)
                places.append(int(place))
                values.append(float(value))
        except ValueError as error:
            raise DataError(
                f"`{where}`: expected lines such as '1 3:0.5 7:1' (svmlight), got "
                f"{shown(line)} in line {number}"
            ) from error
    first = 0 if 0 in places else 1
    width = max(places, default=0) - first + 1
    if width < 1:
        raise DataError(f"`{where}`: expected places of features from 0, got lower ones")
    check_cells(len(labels), width, text, where, "leave out rare features", text=False)
    full = np.zeros((len(labels), width))
    full[rows, np.array(places) - first] = values
    columns = [Column(str(n + first), NUMBER, full[:, n]) for n in range(width)]
    columns.append(Column("label", NUMBER, np.array(labels)))
    return Table(columns, how=["svmlight format"], default_target="label")


def npy_table(content: bytes, where: str) -> Table:
    """An array of rows, or of records with names."""
    fix = "Python objects are never unpickled: save numbers"
    with reading(where, "a plain array", fix, DataError):
        array = read_npy(content)
    if array.dtype.names:
        parts = [(name, array[name]) for name in array.dtype.names]
    elif array.ndim == 2:
        parts = [(str(place), array[:, place]) for place in range(array.shape[1])]
    else:
        raise DataError(
            f"`{where}`: expected rows and columns, or records, got an array of shape "
            f"{array.shape}; save inputs and targets as x and y with numpy.savez"
        )
    return Table([array_column(name, values, where) for name, values in parts], has_header=False)


def array_column(name: str, values: np.ndarray, where: str) -> Column:
    """A column from an array of numbers, texts or dates."""
    if values.ndim == 1 and values.dtype.kind in "buif":
        return Column(name, NUMBER, values.astype(np.float64))
    if values.ndim == 1 and values.dtype.kind == "M":
        return Column(name, DATE, values.astype("datetime64[s]"))
    if values.ndim == 1 and values.dtype.kind in "US":
        levels, codes = np.unique(values.astype(str), return_inverse=True)
        return Column(name, TEXT, codes.astype(np.int32), tuple(map(str, levels)))
    raise DataError(
        f"`{where}`: expected numbers or text in {shown(name)}, got {values.dtype} "
        f"{values.shape[1:] or ''}; convert it"
    )


def frame_table(content: bytes, form: str, where: str) -> Table:
    """A Parquet or Feather file."""
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401  (what pandas reads these with)
    except ImportError as error:
        raise needs(where, f"{error.name or 'pandas and pyarrow'}", "cli", error) from error
    table = read_arrow(content, form, where)
    with reading(where, "columns of numbers, text and dates", "write them as CSV", DataError):
        # Columns that pandas wrote as categories; of whole numbers, the file alone still knows.
        parts = (table.schema.pandas_metadata or {}).get("columns", [])
        declared = {str(p["name"]) for p in parts if p.get("pandas_type") == "categorical"}
        return table_from_frame(table.to_pandas(), declared)


def table_from_frame(frame: Any, declared: Collection[str] = ()) -> Table:
    """Columns from a pandas data frame; a named index is a column, an unnamed one is not.

    Parameters
    ----------
    frame : pandas.DataFrame
    declared : collection of str
        Columns that are categories, whatever type they have.
    """
    import pandas

    table = Table([])
    index = [name for name in frame.index.names if name is not None]
    if index:
        table.how.append(f"index made a column: {', '.join(map(shown, map(str, index)))}")
        frame = frame.reset_index(level=index)
    left_out = []
    for place, label in enumerate(frame.columns):
        name = str(label) if not isinstance(label, tuple) else " ".join(map(str, label))
        series = frame.iloc[:, place]
        column = _from_series(
            name, series.astype("category") if name in declared else series, pandas
        )
        table.columns.append(column) if column is not None else left_out.append(name)
    if left_out:
        table.how.append(f"no numbers, text or dates, left out: {', '.join(map(shown, left_out))}")
    return table


def _from_series(name: str, series: Any, pandas: Any) -> Column | None:
    types = pandas.api.types
    if isinstance(series.dtype, pandas.CategoricalDtype):
        return Column(
            name,
            CATEGORY,
            series.cat.codes.to_numpy(dtype=np.int32),
            tuple(str(level).strip() for level in series.cat.categories),
        )
    if types.is_bool_dtype(series.dtype):
        values = series.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        return Column(name, "boolean", values, ("False", "True"))
    if types.is_datetime64_any_dtype(series.dtype):
        if getattr(series.dt, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return Column(name, DATE, series.to_numpy().astype("datetime64[s]"))
    if types.is_timedelta64_dtype(series.dtype):
        return Column(name, NUMBER, series.dt.total_seconds().to_numpy(dtype=np.float64))
    if types.is_complex_dtype(series.dtype):
        return None
    if types.is_numeric_dtype(series.dtype):
        return Column(name, NUMBER, series.to_numpy(dtype=np.float64, na_value=np.nan))
    values = series.to_numpy(dtype=object)
    known = [v for v in values if v is not None and v == v and v is not pandas.NaT]
    if known and all(hasattr(v, "isoformat") for v in known):
        return Column(name, DATE, pandas.to_datetime(series).to_numpy().astype("datetime64[s]"))
    if known and all(_is_numeric(v) for v in known):
        numbers = [float(v) if v is not None and v == v else np.nan for v in values]
        return Column(name, NUMBER, np.array(numbers))
    if any(isinstance(v, list | dict | set | np.ndarray | bytes) for v in known):
        return None
    return None if not known else _coded(name, values)


def _is_numeric(value: Any) -> bool:
    from decimal import Decimal

    return isinstance(value, int | float | Decimal | np.number)


def _coded(name: str, values: np.ndarray) -> Column:
    """Texts as places in their list."""
    places: dict[str, int] = {}
    codes = np.array(
        [
            -1 if v is None or v != v else places.setdefault(str(v).strip(), len(places))
            for v in values
        ],
        dtype=np.int32,
    )
    return Column(name, TEXT, codes, tuple(places))
