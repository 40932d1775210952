"""Minibatch gather: the chosen rows of a data set, converted and normalized in one go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import Array, array_namespace, dtype_name, dtype_of, on_host
from ..errors import ConfigError, DataError, DTypeError
from .dispatch import choose
from .shapes import check_same_shape
from .targets import check_classes


def gather_rows(
    x: Array,
    index: Array,
    mean: Any = None,
    std: Any = None,
    *,
    dtype: str,
    out: Array | None = None,
) -> Array:
    """``y[…, n] = (x[index[…, n]] − mean) / std``, as floats.

    Parameters
    ----------
    x : array of integers or floats, shape (rows, …)
        The data set; its rows may have any shape, such as (D,).
    index : array of ints, shape (N,) or (P, N)
        Row numbers in 0…rows−1, in any order and with repetitions; (P, N) for a population whose
        members see batches of their own.
    mean, std : float, or array of a row's shape in ``dtype``, optional
        Both or neither. ``std`` is positive.
    dtype : str
        Name of the result's float type. The subtraction and the division are done in it.
    out : array of the result's shape and dtype, C-contiguous, optional
        Memory for the result, where the library's arrays can be written to and a kernel does so;
        else it is left alone. Use what is returned.

    Returns
    -------
    array of ``dtype``, shape (N, …) or (P, N, …)

    Raises
    ------
    DTypeError
        If ``index`` does not hold integers.
    DataError
        For a row number outside of x, in host memory.
    """
    if (mean is None) != (std is None):
        raise ConfigError(
            f"`gather_rows`: expected mean and std both or neither, got mean={mean!r:.80} and "
            f"std={std!r:.80}"
        )
    options = {"dtype": dtype, "out": out}
    run = choose("gather_rows", reference, x, index, mean, std, **options)
    if run is reference:  # a kernel has looked at the shapes itself
        for name, value in (("mean", mean), ("std", std)):
            if getattr(value, "shape", ()) != ():
                check_same_shape("gather_rows", name, value, tuple(x.shape[1:]))
        if on_host(index) and "int" in dtype_name(index.dtype):
            check_classes("gather_rows", index, x.shape[0], name="row numbers")
    return run(x, index, mean, std, **options)


def implementation(x: Array, index: Array, mean: Any, std: Any, *, dtype: str) -> Callable:
    """What ``gather_rows`` would run, to choose once for an epoch of small batches.

    It is called with the same arguments, row numbers like ``index`` (any N), and an ``out`` that
    an earlier call returned, or its first rows.
    """
    return choose("gather_rows", reference, x, index, mean, std, dtype=dtype)


def reference(x: Array, index: Array, mean: Any, std: Any, *, dtype: str, out: Any = None) -> Array:
    """The definition."""
    xp = array_namespace(x, index)
    if not xp.isdtype(index.dtype, "integral"):
        raise DTypeError(f"`gather_rows`: expected row numbers as integers, got {index.dtype}")
    try:
        rows = xp.take(x, xp.reshape(index, (-1,)), axis=0)
    except IndexError as error:
        raise DataError(
            f"`gather_rows`: expected row numbers in 0…{x.shape[0] - 1}, got others ({error})"
        ) from None
    rows = xp.astype(rows, dtype_of(xp, dtype), copy=False)
    if mean is not None:
        rows = (rows - mean) / std
    return rows if index.ndim == 1 else xp.reshape(rows, (*index.shape, *x.shape[1:]))
