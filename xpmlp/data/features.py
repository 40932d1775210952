"""Inputs without targets, from a file: what a trained network is asked to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import check_finite
from .tables import ENDINGS, numbers, read_frame


def load_features(
    path: str | Path, features: Sequence[str] | None = None, inputs: int | None = None
) -> np.ndarray:
    """Read the inputs of a table or of an NPZ file's array ``x``.

    Parameters
    ----------
    path : path
        A file ending in .csv, .tsv, .parquet or .npz.
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
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"`{path}`: expected a file ending in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise DataError(f"`{path}`: expected a file, found none; check the path")
    if path.suffix.lower() == ".npz":
        x, names = _load_npz_inputs(path), None
    else:
        frame = read_frame(path)
        names = tuple(str(name) for name in frame.columns) if features is None else tuple(features)
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise DataError(
                f"`{path}`: expected the columns the network was trained on, got none named "
                f"{', '.join(map(repr, missing))}; it has {', '.join(map(repr, frame.columns))}"
            )
        x = np.column_stack([numbers(path, frame[name]) for name in names])
    length = int(np.prod(x.shape[1:]))
    if inputs is not None and length != inputs:
        raise DataError(
            f"`{path}`: expected {inputs} numbers in a row, as in training, got {length}; "
            "leave out columns that are no inputs, such as the target"
        )
    check_finite(x, str(path), names, first_row=1)
    return x


def _load_npz_inputs(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if "x" not in file.files:
                raise DataError(
                    f"`{path}`: expected an array named x, got {', '.join(file.files) or 'none'}"
                )
            x = file["x"]
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise DataError(
            f"`{path}`: expected an NPZ archive of plain arrays ({error}); "
            "write it again with numpy.savez"
        ) from error
    if x.ndim < 2 or len(x) == 0 or x.dtype.kind not in "buif":
        raise DataError(f"`{path}`: expected numbers of shape (N, …) in x, got {x.dtype} {x.shape}")
    return x
