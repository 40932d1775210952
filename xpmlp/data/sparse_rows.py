"""Inputs most of which are 0: rows of a sparse matrix, made dense a batch at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError, DTypeError
from .normalization import Normalization


def is_sparse(x: Any) -> bool:
    """Whether it is a matrix or an array of SciPy's that holds only what is not 0."""
    return hasattr(x, "tocsr") and hasattr(x, "nnz")


class SparseRows:
    """A sparse matrix (N, D) as :class:`~xpmlp.data.Batches` keeps it; never dense as a whole.

    Parameters
    ----------
    x : scipy.sparse matrix or array, shape (N, D)
        Of any format; kept by rows (CSR), its numbers in ``dtype``.
    dtype : {"float32", "float64"}
    normalization : Normalization, optional
        Applied to rows once they are dense.

    Raises
    ------
    DataError
        If a number is NaN or infinite.
    DTypeError
        If they are no real numbers, or ``dtype`` is not one of NumPy's floats.
    """

    ndim = 2

    def __init__(self, x: Any, dtype: str, normalization: Normalization | None = None):
        if x.dtype.kind not in "biuf" or dtype not in ("float32", "float64"):
            raise DTypeError(
                f"`x`: expected sparse rows of real numbers, for float32 or float64, got {x.dtype} "
                f"for {dtype}"
            )
        self.shape: tuple[int, int] = tuple(x.shape)
        self.dtype = np.dtype(dtype)
        with np.errstate(over="ignore"):  # which is looked for
            self._rows = x.tocsr().astype(self.dtype)
        if not np.isfinite(self._rows.data).all():
            raise DataError(
                f"`x`: expected finite numbers that {dtype} can hold, got others in a sparse matrix"
            )
        self._mean: Any = None
        self._std: Any = None
        if normalization is not None:
            like = np.empty((1, self.shape[1]), self.dtype)
            self._mean, self._std = normalization.arrays_for(like, dtype)

    def dense(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The rows of these numbers, (…) of them as an array (…, D), normalized.

        ``out`` may be memory for them.
        """
        flat = np.ravel(rows)
        made = np.empty((flat.size, self.shape[1]), self.dtype) if out is None else out
        self._rows[flat].toarray(out=made)
        if self._mean is not None:
            np.subtract(made, self._mean, out=made)
            np.divide(made, self._std, out=made)
        return made.reshape(*np.shape(rows), self.shape[1])
