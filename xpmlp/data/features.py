"""Rows of another file for a trained network: to predict, or to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .dataset import check_finite
from .tables.arrays import read_arrays
from .tables.columns import CATEGORY, NUMBER, Column, Table, shown
from .tables.content import form_of, read_content
from .tables.encoder import TableEncoder
from .tables.formats import array_column
from .tables.info import TableInfo
from .tables.options import ReadOptions
from .tables.reader import digest_of, read_table


def load_features(
    path: str | Path, features: Sequence[str] | None = None, inputs: int | None = None
) -> np.ndarray:
    """Read the inputs of a table of numbers or of an NPZ file's array ``x``.

    Parameters
    ----------
    path : path
        Any file that :func:`~xpmlp.data.load_table` reads.
    features : sequence of str, optional
        The columns to take, in this order; others (such as a target) are passed over. Default: all
        columns, in the file's order.
    inputs : int, optional
        How many numbers a row must have.

    Returns
    -------
    ndarray, shape (N, D), or (N, …) from NPZ

    Raises
    ------
    DataError
        If the file is missing or damaged, a column is missing, a value is not a finite number, or
        the rows have another length than ``inputs``.
    """
    content = read_content(path)
    where = str(path)
    if form_of(content) == "npz" or Path(path).suffix.lower() == ".npz":
        x, names = _array_inputs(where, content), None
    else:
        table = read_table(path, expected=features or (), content=content)
        names = tuple(table.names) if features is None else tuple(features)
        x = TableEncoder.of_numbers(names).transform(table.columns, where)
    length = int(np.prod(x.shape[1:]))
    if inputs is not None and length != inputs:
        raise DataError(
            f"`{where}`: expected {inputs} numbers in a row, as in training, got {length}; "
            "leave out columns that are no inputs, such as the target"
        )
    check_finite(x, where, names, first_row=1)
    return x


def read_array_rows(path: str | Path, content: bytes, classes: tuple[str, ...] | None) -> Rows:
    """All rows of an NPZ file's ``x`` and ``y``, or of its test part where it has one.

    Raises
    ------
    DataError
        If it is no such file, or its targets are of another kind than those of the training.
    """
    where = str(path)
    arrays = read_arrays(where, content)
    part = "_test" if "x_test" in arrays else ""
    x, y = arrays[f"x{part}"], arrays[f"y{part}"]
    if len(x) != len(y) or len(x) == 0 or x.ndim < 2 or x.dtype.kind not in "buif":
        raise DataError(f"`{where}`: expected numbers in x, a row for each of y, got {x.shape}")
    check_finite(x, f"{where}: x")
    if classes is None:
        if y.dtype.kind not in "buif":
            raise DataError(f"`{where}`: expected numbers in y, as in the training, got {y.dtype}")
        check_finite(y, f"{where}: y")
        return Rows(x, y.astype(np.float64), {}, {}, digest=digest_of(content))
    if y.ndim != 1:
        raise DataError(f"`{where}`: expected a class for each row in y, got {y.shape}")
    column = array_column("y", y.astype(str) if y.dtype.kind in "bO" else y, where)
    coded, kept, gone, unknown = _targets(column, classes, where)
    if not len(kept):
        raise DataError(f"`{where}`: expected classes of the training in y, got others only")
    return Rows(x[kept], coded, {}, {}, gone, unknown, digest_of(content))


def _array_inputs(where: str, content: bytes) -> np.ndarray:
    x = read_arrays(where, content, inputs_only=True)["x"]
    if x.ndim < 2 or len(x) == 0 or x.dtype.kind not in "buif":
        raise DataError(
            f"`{where}`: expected numbers of shape (N, …) in x, got {x.dtype} {x.shape}"
        )
    return x


@dataclass
class Rows:
    """Rows of a file as a trained network takes them.

    Attributes
    ----------
    x : ndarray, shape (N, D)
    y : ndarray
        Class numbers or numbers; empty where targets were not asked for.
    ids : dict of str to list
        Columns to carry into predictions.
    filled : dict of str to int
        Missing values that were filled in, by column.
    no_target : int
        Rows left out since their target is missing.
    unknown : dict of str to int
        Rows left out since their class was not among those of the training, by class.
    digest : str
        SHA-256 of the file's content.
    """

    x: np.ndarray
    y: np.ndarray
    ids: dict[str, list[Any]]
    filled: dict[str, int]
    no_target: int = 0
    unknown: dict[str, int] | None = None
    digest: str = ""

    def words(self) -> str:
        """What was left out, to go behind a number of rows."""
        parts = []
        if self.no_target:
            parts.append(f"{self.no_target} without a target left out")
        if self.unknown:
            total = sum(self.unknown.values())
            names = ", ".join(map(shown, list(self.unknown)[:5]))
            parts.append(f"{total} of classes that were not in the training left out ({names})")
        return f"; {'; '.join(parts)}" if parts else ""


def read_rows(
    path: str | Path,
    info: TableInfo,
    classes: tuple[str, ...] | None = None,
    *,
    with_target: bool = True,
    ids: Sequence[str] = (),
    content: bytes | None = None,
) -> Rows:
    """Read a file in the way of the table that was trained on.

    Parameters
    ----------
    path : path
    info : TableInfo
        Of the training.
    classes : tuple of str, optional
        None: the targets are numbers.
    with_target : bool
        Whether targets are wanted.
    ids : sequence of str
        Columns to carry along, beside those of the training.
    content : bytes, optional
        What the file holds, where it has been read already.

    Raises
    ------
    DataError
        If columns are missing, or hold what they did not hold in training.
    """
    where = str(path)
    encoder = info.encoder
    content = read_content(path) if content is None else content
    table = _like(path, info, with_target, ids, content)
    wanted_ids = [
        *[table.find(where, "id", name) for name in ids],
        *[name for name in info.ids if name in table.names],
    ]
    y, kept, no_target, unknown = np.empty(0), np.arange(len(table)), 0, {}
    if with_target:
        if info.target not in table.names:
            raise DataError(
                f"`{where}`: expected the target {shown(info.target)} to score against, got "
                "none of that name; xpmlp predict needs no target"
            )
        y, kept, no_target, unknown = _targets(table.column(info.target), classes, where)
        table = table.take(kept)
    if not len(kept):
        raise DataError(
            f"`{where}`: expected rows with a target that the training knew, got {no_target} "
            f"without one and {sum(unknown.values())} of other classes"
        )
    return Rows(
        encoder.transform(table.columns, where),
        y,
        {name: list(table.column(name).texts()) for name in dict.fromkeys(wanted_ids)},
        encoder.filled(table.columns),
        no_target,
        unknown,
        table.digest,
    )


def _like(
    path: str | Path, info: TableInfo, with_target: bool, ids: Sequence[str], content: bytes
) -> Table:
    """The file as a table whose columns have the names and kinds of the training."""
    texts = [code.name for code in info.encoder.codes if code.kind == CATEGORY]
    needed = [*info.encoder.inputs, *([info.target] if with_target else [])]

    def read(options: ReadOptions) -> Table:
        if not info.has_header:
            options = replace(options, header=False)
        texts_wanted = [*texts, *info.ids, *ids]
        return read_table(path, options, expected=needed, as_text=texts_wanted, content=content)

    table = None
    if "sep" in info.read or "encoding" in info.read:  # this file may be written in another way
        try:
            table = read(ReadOptions(**info.read))
        except DataError:
            table = None
    if table is None or not set(needed) <= set(table.names):
        free = {name: v for name, v in info.read.items() if name not in ("sep", "encoding")}
        table = read(ReadOptions(**{**free, "header": None}))
    if not info.has_header and not table.has_header:
        without = [name for name in info.names if name != info.target]
        if len(table.columns) == len(without) and not with_target:
            # Without a header columns are known by their place, and the target's is missing.
            table.columns = [
                replace(column, name=name)
                for column, name in zip(table.columns, without, strict=True)
            ]
    return table


def _targets(
    column: Column, classes: tuple[str, ...] | None, where: str
) -> tuple[np.ndarray, np.ndarray, int, dict[str, int]]:
    missing = column.missing
    kept = np.flatnonzero(~missing)
    gone = int(missing.sum())
    if classes is None:
        if column.kind != NUMBER:
            raise DataError(
                f"`{where}`: expected numbers in the target {shown(column.name)}, as in the "
                f"training, got {column.kind}"
            )
        return column.values[kept].astype(np.float64), kept, gone, {}
    places = {name: place for place, name in enumerate(classes)}
    texts = column.texts()
    y = np.array([places.get(text, -1) for text in texts[kept]], dtype=np.int64)
    unknown: dict[str, int] = {}
    for text in texts[kept][y < 0]:
        unknown[text] = unknown.get(text, 0) + 1
    return y[y >= 0], kept[y >= 0], gone, unknown


def info_from_dict(values: dict[str, Any]) -> TableInfo:
    """What :meth:`TableInfo.to_dict` wrote, from a model file."""
    try:
        return TableInfo(
            TableEncoder.from_dict(values["encoder"]),
            values["target"],
            list(values["names"]),
            bool(values["has_header"]),
            dict(values["read"]),
            list(values["ids"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"expected what a training of a table wrote into its model, but {error} is missing"
        ) from error
