"""From a file to a data set: its target, its inputs, and which rows are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...choices import TargetKind
from ...errors import ConfigError, DataError
from ..dataset import Dataset
from ..splits import part_size, split_groups, split_rows
from ..targets import check_task, encode_targets
from .arrays import load_arrays
from .columns import BOOLEAN, DATE, NUMBER, Column, Table, shown
from .content import form_of, read_content
from .encoder import TableEncoder
from .info import TableInfo
from .kinds import choose_inputs
from .reader import ReadOptions, file_stem, read_table
from .roles import Roles
from .summary import describe_left_out, summarize


def load_table(
    path: str | Path,
    *,
    target: str | int | None = None,
    drop: str | int | Sequence[str | int] = (),
    task: TargetKind | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    test: str | Path | None = None,
    group: str | int | None = None,
    time: str | int | None = None,
    ids: str | int | Sequence[str | int] = (),
    keep: str | int | Sequence[str | int] = (),
    category: str | int | Sequence[str | int] = (),
    rare: int | None = None,
    **read: Any,
) -> Dataset:
    """Read a table, understand its columns, and divide it into a training and a test part.

    The content decides what the file is: text in columns (comma, semicolon, tab, bar or blanks),
    Excel, Parquet, Feather, ARFF, JSON lines, svmlight, NPY or NPZ; packed with gzip, bz2, xz or
    zip, or not. NPZ files hold arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and
    ``y_test``; there only ``task``, ``test_fraction`` and ``seed`` have a meaning.

    Inputs are written as numbers by a :class:`~xpmlp.data.tables.TableEncoder` fitted on the
    training rows. Rows without a target are left out. What was understood is in
    ``dataset.table.summary``, and what could be meant otherwise in ``dataset.table.doubts``.

    Parameters
    ----------
    path : path
        ``-`` is standard input.
    target : str or int, optional
        Name or number of the target column (a name that is a number comes first; negative numbers
        count from the end). Default: the last that is not dropped.
    drop : column, or sequence of columns
        Columns to leave out, by name or number. ``a,b`` are two, unless a column has that name.
    task : "classification" or "regression", optional
        What to make of the target; :mod:`xpmlp.data.targets` has the rule for None.
    test_fraction : float
        Part of the rows to hold out for testing, stratified by class.
    seed : int
        Seed of the division: the same seed, the same rows.
    test : path, optional
        A file whose rows are the test part; then all rows of ``path`` are trained on.
    group : column, optional
        Rows with the same value stay in one part; it is no input.
    time : column, optional
        The test part is the latest rows by this column.
    ids : column, or sequence of columns
        Columns that only tell rows apart: no inputs, but carried into predictions.
    keep : column, or sequence of columns
        Inputs, even if they look like row numbers or ids.
    category : column, or sequence of columns
        Categories, whatever they hold.
    rare : int, optional
        Levels of a category with fewer training rows share one column.
    **read
        Fields of :class:`~xpmlp.data.tables.ReadOptions`: ``sep``, ``encoding``, ``decimal``,
        ``thousands``, ``header``, ``na``, ``default_na``.

    Returns
    -------
    Dataset
        ``x`` float64 ``(N, D)`` (NPZ: as stored); ``y`` int64 ``(N,)`` or floats.

    Raises
    ------
    DataError
        If the file is missing, empty, ragged or damaged, a column is unknown, or the target cannot
        be trained on. Rows are counted from 1, the first row under the header.
    MissingDependencyError
        If a library is needed and not installed.
    ConfigError
        If an option is out of range, or two contradict each other.
    """
    check_task(task)
    where = str(path)
    content = read_content(path)
    if form_of(content) == "npz" or Path(where).suffix.lower() == ".npz":
        _refuse_columns(where, target, drop)
        return load_arrays(Path(path), content, task, test_fraction, seed)
    options = ReadOptions(**{name: value for name, value in read.items() if value is not None})
    texts = [str(name) for name in ([category] if isinstance(category, str | int) else category)]
    table = read_table(path, options, as_text=texts, content=content)
    roles = Roles(table, where, target, drop, group, time, ids, keep, category)
    known = ~_target_column(table, roles, where).missing
    table = table.take(np.flatnonzero(known)) if not known.all() else table
    if len(table) == 0:
        raise DataError(
            f"`{where}`: expected a target in {shown(roles.target)}, got none in any row; "
            "name another with --target"
        )
    raw = _raw_target(table.column(roles.target), task, where)
    y, classes = encode_targets(raw, f"{where}: column {shown(roles.target)}", task)
    inputs = choose_inputs(
        [column for column in table.columns if column.name not in roles.no_inputs],
        keep=roles.keep,
        categories=roles.category,
    )
    if not inputs.columns:
        raise DataError(
            f"`{where}`: expected an input beside the target {shown(roles.target)}, got none "
            f"({describe_left_out(inputs.left_out) or 'no other column'}); check the separator "
            "(--sep), or keep a column with --keep"
        )
    timeless = [roles.time] if roles.time else []
    encoder = TableEncoder(rare=rare, timeless=timeless)
    info = TableInfo(
        encoder,
        roles.target,
        table.names,
        table.has_header,
        options.given(),
        roles.ids,
        digest=table.digest,
        rows=len(table),
    )
    if test is None:
        kept, held, split = _divide(table, roles, y, classes, test_fraction, seed, where)
        encoder.fit([column.take(kept) for column in inputs.columns])
        x = encoder.transform(inputs.columns, where)
        parts = (x[kept], y[kept], x[held], y[held])
        info.test_rows = held
    else:
        kept = np.arange(len(table))
        if roles.time:
            kept = np.argsort(_order(table.column(roles.time), where), kind="stable")
        encoder.fit(inputs.columns)
        x = encoder.transform(inputs.columns, where)
        from ..features import read_rows

        other = read_rows(test, info, classes)
        parts = (x[kept], y[kept], other.x, other.y)
        info.test_digest = other.digest
        split = f"{len(x)} rows to train on; {len(other.x)} of {test} to test on{other.words()}"
    info.ordered = roles.time is not None
    if roles.group:
        info.groups = _groups(table.column(roles.group))[kept]
    summarize(info, table, roles, known, raw, y, classes, task, inputs, split, where)
    return Dataset(file_stem(path), *parts, classes, encoder.names, where, info)


def _refuse_columns(where: str, target: Any, drop: Any) -> None:
    if target is not None or (isinstance(drop, str) or len(drop or ())):
        raise ConfigError(
            f"`{where}`: expected no target or drop for an NPZ file, whose targets are in the "
            f"array y; got target={target!r}, drop={drop!r}; leave them out"
        )


def _target_column(table: Table, roles: Roles, where: str) -> Column:
    column = table.column(roles.target)
    if column.kind == DATE:
        raise DataError(
            f"`{where}`: expected a target of classes or numbers, got dates in "
            f"{shown(roles.target)}; name another with --target"
        )
    if roles.target in roles.category and column.kind == NUMBER:
        column = replace(column, kind=NUMBER)
    return column


def _raw_target(column: Column, task: TargetKind | None, where: str) -> np.ndarray:
    """The target as text, whole numbers or floats, none missing."""
    if column.kind == NUMBER or (column.kind == BOOLEAN and task == "regression"):
        values = column.values
        whole = bool(np.all(values == np.floor(values))) and float(np.abs(values).max()) < 2**62
        return values.astype(np.int64) if whole else values
    if column.kind == BOOLEAN:
        return column.texts()
    distinct = column.distinct()
    if task is None and distinct > 10 and distinct > 0.5 * len(column):
        raise DataError(
            f"`{where}`: expected classes with several rows each in the target "
            f"{shown(column.name)}, got {distinct} different texts in {len(column)} rows; name "
            "another with --target, or give --task classification if they are classes"
        )
    return column.texts()


def _groups(column: Column) -> np.ndarray:
    """A number for each value; missing ones are a group of their own."""
    texts = ["" if text is None else f"={text}" for text in column.texts()]
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    return np.array([places[text] for text in texts])


def _order(column: Column, where: str) -> np.ndarray:
    if column.kind not in (NUMBER, DATE) or bool(column.missing.any()):
        raise DataError(
            f"`{where}`: expected a date or number in every row of the time column "
            f"{shown(column.name)}, got {column.kind} with {int(column.missing.sum())} missing"
        )
    return column.values.astype(np.float64) if column.kind == NUMBER else column.values


def _divide(
    table: Table,
    roles: Roles,
    y: np.ndarray,
    classes: tuple[str, ...] | None,
    test_fraction: float,
    seed: int,
    where: str,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Rows to train on, rows held out, and how in words."""
    held = part_size(test_fraction, len(table), "test_fraction")
    if roles.time:
        order = np.argsort(_order(table.column(roles.time), where), kind="stable")
        kept, test = order[: len(order) - held], order[len(order) - held :]
        how = f"the latest by {shown(roles.time)}"
    elif roles.group:
        kept, test = split_groups(_groups(table.column(roles.group)), held, seed=seed)
        how = f"whole groups of {shown(roles.group)}"
    else:
        kept, test = split_rows(len(table), held, seed=seed, labels=None if classes is None else y)
        how = "at random" + ("" if classes is None else ", of each class its share")
    return kept, test, f"{len(kept)} to train on, {len(test)} to test on ({how})"
