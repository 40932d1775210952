"""Launches ``bias_activation.cu``: ``dropout(f(x + b))`` and its backward with the bias's gradient.

x is (…, N, M); a bias of shape (P, M) makes its leading axis the population, else there is one
member, whose batch is everything before the last axis.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import dropout, geometry, launch
from .sums import Sum

_OP = "bias_activation"
_FEW_ROWS = 4096  # may be added up at once, without partial sums


def forward(
    x: Any, b: Any, activation: str | None, drop: tuple | None = None, *, in_place: bool = False
) -> Any:
    """``y = dropout(f(x + b))``.

    Parameters
    ----------
    x : array, shape (…, N, M)
    b : array, shape (M,) or (P, M), or None
    activation : {None, "relu", "tanh", "sigmoid"}
    drop : (rates, generator, step), optional
    in_place : bool
        Whether x may be overwritten.
    """
    suffix = launch.suffix_of(x)
    x = launch.contiguous(x)
    y = x if in_place else launch.empty(tuple(x.shape), x.dtype)
    batch, features, members = _sizes(x, b, drop)
    bias = None if b is None else launch.contiguous(b)
    plan = geometry.elementwise(_OP, batch * features, members, suffix, launch.device())
    launch.run(
        _OP,
        suffix,
        plan,
        *(x, bias, y, batch, np.int32(features), np.int32(members)),
        np.int32(geometry.ACTIVATIONS[activation]),
        *_mask(drop, members, suffix),
    )
    return y


def backward(
    dy: Any,
    y: Any,
    activation: str | None,
    drop: tuple | None = None,
    *,
    want_bias: tuple[int, ...] | None,
    sums: list[Sum] | None = None,
) -> tuple[Any, Any]:
    """``dz = f′(y) ⊙ dropout(dy)`` and ``db = Σₙ dz``.

    Parameters
    ----------
    dy, y : array, shape (…, N, M)
        y as :func:`forward` gave it, after the dropout.
    want_bias : tuple of int or None
        The bias's shape, or None: then db is None.
    sums : list of Sum, optional
        Where to note what is left to be added up, instead of doing it here; db is then in the
        accumulator's type.

    Returns
    -------
    dz : array of dy's shape
        dy itself where nothing but its sum was asked for.
    db : array or None
    """
    suffix = launch.suffix_of(dy)
    real = launch.accumulator(suffix)
    dy, y = launch.contiguous(dy), launch.contiguous(y)
    changes = activation is not None or drop is not None
    dz = launch.empty(tuple(dy.shape), dy.dtype) if changes else None
    shape = want_bias or ()
    batch, features, members = _sizes(dy, None, drop, shape)
    columns = members * features
    if sums is not None and dz is None and members == 1 and batch <= _FEW_ROWS:
        db = launch.empty(shape, real)
        sums.append(Sum(dy.reshape(batch, features), shape, db))
        return dy, db
    device = launch.device()
    chunks = geometry.column_chunks(batch, features, members, device)
    partial = None if want_bias is None else launch.empty((chunks, columns), real)
    plan = geometry.columns(_OP + "_backward", batch, features, members, suffix, device)
    launch.run(
        _OP,
        suffix,
        plan,
        *(dy, y, dz, partial, batch, np.int32(features), np.int32(members)),
        np.int32(geometry.ACTIVATIONS[activation]),
        *_mask(drop, members, suffix),
    )
    dz = dy if dz is None else dz
    if want_bias is None:
        return dz, None
    if sums is not None:
        db = launch.empty(shape, real)
        sums.append(Sum(partial, shape, db))
        return dz, db
    db = launch.empty(shape, dy.dtype)
    finish = geometry.finish("column_sums_finish", columns, suffix)
    launch.run(_OP, suffix, finish, partial, np.int32(chunks), columns, db)
    return dz, db


def _sizes(
    x: Any, b: Any, drop: tuple | None, bias_shape: tuple[int, ...] = ()
) -> tuple[int, int, int]:
    """N, M and P: the population is the bias's, or the one that the masks are drawn for."""
    bias_shape = tuple(b.shape) if b is not None else bias_shape
    members = bias_shape[0] if len(bias_shape) == 2 else 1
    if drop is not None and len(drop[1].seeds) > 1:
        members = len(drop[1].seeds)
    features = x.shape[-1] if x.ndim else 1
    return math.prod(x.shape) // (features * members or 1), features, members


def _mask(drop: tuple | None, members: int, suffix: str) -> tuple:
    if drop is None:
        return dropout.NO_DROPOUT
    rates, generator, step = drop
    return dropout.arguments(rates, generator, step, members, suffix)
