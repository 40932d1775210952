"""What a table's estimator is given, a data frame or an array, as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from ..data.tables import Column
from ..data.tables.columns import NUMBER, listed
from ..data.tables.formats import table_from_frame
from ..errors import DataError


def columns_of(estimator: Any, X: Any, *, reset: bool) -> list[Column]:
    """The columns of X, under their names or ``x0, x1, …``.

    Parameters
    ----------
    estimator : BaseTable
        Which takes names and number of the columns from X, or compares them.
    X : data frame or array_like, shape (N, D)
    reset : bool
        Whether X is to be trained on.

    Raises
    ------
    DataError
        For infinite numbers, or columns that hold neither numbers nor text nor dates.
    """
    if not _is_frame(X):
        X = validate_data(
            estimator,
            X,
            reset=reset,
            dtype=None,
            ensure_all_finite="allow-nan" if _is_numeric(X) else False,
            ensure_min_samples=2 if reset else 1,
        )
        if X.dtype.kind in "buif":
            numbers = X.astype(np.float64)
            return [Column(_name(place), NUMBER, numbers[:, place]) for place in range(X.shape[1])]
        import pandas  # ty: text beside numbers is what a frame is for

        frame = pandas.DataFrame(X).infer_objects()
        frame.columns = [_name(place) for place in range(X.shape[1])]
    else:
        frame = X.to_pandas() if hasattr(X, "to_pandas") else X
        validate_data(estimator, frame, reset=reset, skip_check_array=True)
        least = 2 if reset else 1
        if len(frame) < least or frame.shape[1] < 1:
            raise DataError(
                f"`{type(estimator).__name__}`: expected at least {least} rows and a column, got "
                f"shape {tuple(frame.shape)}; n_samples={len(frame)}"
            )
        frame = frame.reset_index(drop=True)
    names = [str(name) for name in frame.columns]
    found = table_from_frame(frame.set_axis(names, axis="columns")).columns
    if len(set(names)) < len(names):
        raise DataError(
            f"`{type(estimator).__name__}`: expected a different name for each column, got "
            f"{listed(sorted({name for name in names if names.count(name) > 1}))} more than once"
        )
    columns = {column.name: column for column in found}
    for name in names:
        if name not in columns:
            if bool(frame[name].isna().all()) if names.count(name) == 1 else False:
                columns[name] = Column(name, NUMBER, np.full(len(frame), np.nan))
                continue
            raise DataError(
                f"`{type(estimator).__name__}`: expected numbers, text, truth values or dates in "
                f"column {name!r}, got {frame[name].dtype}; convert it"
            )
        column = columns[name]
        if column.kind == NUMBER and bool(np.isinf(column.values).any()):
            raise DataError(
                f"`{type(estimator).__name__}`: expected finite or missing numbers in column "
                f"{name!r}, got infinity in row {int(np.argmax(np.isinf(column.values))) + 1}"
            )
    return [columns[name] for name in names]


def _is_frame(X: Any) -> bool:
    return hasattr(X, "columns") and (hasattr(X, "iloc") or hasattr(X, "to_pandas"))


def _is_numeric(X: Any) -> bool:
    return getattr(getattr(X, "dtype", None), "kind", "f") in "buifc"


def _name(place: int) -> str:
    return f"x{place}"
