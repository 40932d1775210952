"""Sums of functions of one number each: linear, linear between knots, or a value for each level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat

from ..backend import Array, Namespace, array_namespace
from ..errors import ConfigError, ShapeError
from .dispatch import choose
from .linear import linear, linear_backward
from .recordable import clip, concat
from .shapes import check_same_shape, leading_shape

LINEAR, BINS, LEVELS = "linear", "bins", "levels"
KINDS = (LINEAR, BINS, LEVELS)

Columns = tuple[tuple[str, int], ...]
"""What each column of x is, and how many rows of W it has: see :func:`check_columns`."""


def check_columns(where: str, columns: Any) -> Columns:
    """Columns as a tuple of (kind, count).

    Parameters
    ----------
    where : str
        What refuses them, for the message.
    columns : sequence of (str, int)
        ``("linear", 1)``, ``("bins", K)`` or ``("levels", K)`` for each column of x.

    Raises
    ------
    ConfigError
        If they are not, or there are none.
    """
    found = []
    for column in columns if isinstance(columns, Sequence) else ():
        pair = tuple(column) if isinstance(column, Sequence) and len(column) == 2 else (None, 0)
        kind, count = pair
        whole = isinstance(count, int) and 1 <= count < 2**40 and not isinstance(count, bool)
        if kind not in KINDS or not whole or (kind == LINEAR and count != 1):
            raise ConfigError(
                f"`{where}`: expected columns of ('linear', 1), ('bins', K) and ('levels', K) "
                f"with K ≥ 1, got {column!r:.80}"
            )
        found.append((kind, count))
    if not found:
        raise ConfigError(f"`{where}`: expected at least one column, got {columns!r:.80}")
    return tuple(found)


def count_codes(columns: Columns) -> int:
    """J, how many codes the columns have together."""
    return sum(count for _, count in columns)


def codes(x: Array, columns: Columns) -> Array:
    """The codes (…, J) of x (…, D), one column's after the other's.

    - linear: x itself.
    - bins: ``clip(x − k, 0, 1)`` for k = 0 … K − 1. x is a position among K bins: its whole part
      is the bin that it is in, its fraction how far inside. Codes are 1 for the bins below, the
      fraction for its own, 0 for those above.
    - levels: 1 for ``x = k``, else 0, for k = 0 … K − 1. A number that is no level has none.
    """
    xp = array_namespace(x)
    parts = []
    for place, (kind, count) in enumerate(columns):
        own = x[..., place : place + 1]
        if kind != LINEAR:
            away = own - _numbers(xp, x, count)
            own = clip(away, 0.0, 1.0) if kind == BINS else xp.astype(away == 0.0, x.dtype)
        parts.append(own)
    return concat(xp, parts, axis=-1)


def piecewise_linear(x: Array, W: Array, b: Array | None = None, *, columns: Columns) -> Array:
    """``y = codes(x) W + b``: see :func:`codes`.

    Parameters
    ----------
    x : array, shape (…, N, D)
        With population weights, either (P, N, D), one batch a member, or (N, D), shared by all.
    W : array, shape (J, M) or (P, J, M)
        A row for each code: the rise of y across a bin, or its value at a level.
    b : array, shape (M,) or (P, M), optional
    columns : tuple of D pairs
        Kind and number of codes of each column.

    Returns
    -------
    array, shape (…, N, M)

    Raises
    ------
    ShapeError
        If the shapes do not fit together.

    Notes
    -----
    Source: Gorishniy, Rubachev and Babenko 2022, "On embeddings for numerical features in tabular
    deep learning" (piecewise-linear encoding).
    """
    _check_operands("piecewise_linear", x, W, columns)
    if b is not None:
        check_same_shape("piecewise_linear", "b", b, (*W.shape[:-2], W.shape[-1]))
    leading_shape("piecewise_linear", x, W)
    run = choose("piecewise_linear", reference, x, W, b, columns=columns)
    return run(x, W, b, columns=columns)


def reference(x: Array, W: Array, b: Array | None, *, columns: Columns) -> Array:
    """The definition."""
    return linear(codes(x, columns), W, b)


def piecewise_linear_backward(
    dy: Array, x: Array, W: Array, *, columns: Columns, input_grad: bool = True
) -> tuple[Array | None, Array, Array]:
    """Gradients of :func:`piecewise_linear`: those of a linear map of the codes, and from them dx.

    With ``dc = dy Wᵀ``, dx is dc for a linear column, dc of the bin that x is in for one of bins
    (0 outside of all), and 0 for levels.

    Parameters
    ----------
    dy : array, shape (…, N, M)
    x : array, shape (…, N, D)
    W : array, shape (J, M) or (P, J, M)
    columns : tuple of D pairs
    input_grad : bool
        Whether dx is wanted.

    Returns
    -------
    dx : array of x's shape, or None
    dW : array of W's shape
    db : array, shape (M,) or (P, M)

    Raises
    ------
    ShapeError
        If the shapes do not fit together.
    """
    where = "piecewise_linear_backward"
    _check_operands(where, x, W, columns)
    expected = (*leading_shape(where, x, W), *x.shape[-2:-1], W.shape[-1])
    check_same_shape(where, "dy", dy, expected)
    dc, dW, db = linear_backward(dy, codes(x, columns), W, input_grad=input_grad)
    return (None if dc is None else _input_gradient(dc, x, columns)), dW, db


def _input_gradient(dc: Array, x: Array, columns: Columns) -> Array:
    xp = array_namespace(dc, x)
    parts, start = [], 0
    for place, (kind, count) in enumerate(columns):
        own, slopes = x[..., place : place + 1], dc[..., start : start + count]
        start += count
        if kind == BINS:
            away = own - _numbers(xp, x, count)
            inside = xp.astype((away >= 0.0) & (away < 1.0), x.dtype)
            slopes = xp.sum(slopes * inside, axis=-1, keepdims=True, dtype=x.dtype)
        elif kind == LEVELS:
            slopes = xp.zeros_like(own)
        parts.append(slopes)
    return concat(xp, parts, axis=-1)


def _numbers(xp: Namespace, x: Array, count: int) -> Array:
    """0 … count − 1, of x's dtype and where x is."""
    return xp.astype(xp.arange(count, device=array_api_compat.device(x)), x.dtype)


def _check_operands(where: str, x: Array, W: Array, columns: Columns) -> None:
    if x.ndim < 2 or x.shape[-1] != len(columns):
        raise ShapeError(
            f"`{where}`: expected x of shape (…, N, {len(columns)}), a number for each column, "
            f"got {tuple(x.shape)}"
        )
    J = count_codes(columns)
    if W.ndim < 2 or W.shape[-2] != J:
        raise ShapeError(
            f"`{where}`: expected W with {J} rows, one for each code, got shape {tuple(W.shape)}"
        )
