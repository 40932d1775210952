"""Shape and dtype helpers that the ops share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, Namespace, adds_in_turn, dtype_name
from ..errors import ConfigError, DTypeError, ShapeError


def transpose(xp: Namespace, a: Array) -> Array:
    """Swap the last two axes: a view wherever the library has views."""
    return xp.matrix_transpose(a)


def sum_to_shape(xp: Namespace, a: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which an array of ``shape`` was broadcast to ``a.shape``.

    The backward of broadcasting: ``a`` of shape (…, *shape*) becomes exactly ``shape``.
    """
    if a.shape == shape:
        return a
    extra = a.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + i for i, size in enumerate(shape) if size == 1 and a.shape[extra + i] != 1
    )
    return xp.reshape(sum_wide(xp, a, axes, keepdims=True), shape) if axes else a


def sum_wide(
    xp: Namespace, a: Array, axis: int | tuple[int, ...], *, keepdims: bool = False
) -> Array:
    """A sum in a's own dtype that is accumulated in :func:`summing_dtype`."""
    total = xp.sum(a, axis=axis, keepdims=keepdims, dtype=summing_dtype(xp, a))
    return xp.astype(total, a.dtype, copy=False)


def mean_wide(xp: Namespace, a: Array, axes: tuple[int, ...]) -> Array:
    """A mean in a's own dtype, with axes of size 1, that is accumulated as :func:`sum_wide`'s."""
    total = xp.sum(a, axis=axes, keepdims=True, dtype=summing_dtype(xp, a))
    return xp.astype(total / math.prod(a.shape[axis] for axis in axes), a.dtype, copy=False)


def leading_shape(where: str, a: Array, b: Array) -> tuple[int, ...]:
    """The axes before the last two, broadcast; ShapeError if they do not fit together."""
    first, second = tuple(a.shape[:-2]), tuple(b.shape[:-2])
    if first == second or not second:
        return first
    try:
        return np.broadcast_shapes(first, second)
    except ValueError:
        raise ShapeError(
            f"`{where}`: expected leading axes that broadcast, got shapes {tuple(a.shape)} and "
            f"{tuple(b.shape)}; a population of P takes (P, N, D), or (N, D) for all of them"
        ) from None


def per_feature(xp: Namespace, p: Array) -> Array:
    """Make a parameter (…, D) broadcast over the batch axis of x (…, N, D)."""
    return p if p.ndim == 1 else xp.expand_dims(p, axis=-2)


def per_member(value: Any, ndim: int) -> Any:
    """Make a hyperparameter broadcast over an array of ``ndim`` axes.

    A number stays as it is; an array of shape (P,) becomes (P, 1, …, 1).
    """
    shape = getattr(value, "shape", ())
    return value if shape == () else value[(..., *([None] * (ndim - len(shape))))]


def working_dtype(xp: Namespace, x: Array) -> Any:
    """The dtype to accumulate in: float32 for half precision, else the array's own."""
    return xp.float32 if dtype_name(x.dtype) in ("float16", "bfloat16") else x.dtype


def summing_dtype(xp: Namespace, x: Array) -> Any:
    """The dtype to add rows in: :func:`working_dtype`, or float64 where they are added in turn."""
    return xp.float64 if adds_in_turn(xp) else working_dtype(xp, x)


def check_floating(where: str, name: str, x: Array) -> None:
    """Raise DTypeError unless x is a floating-point array."""
    if "float" not in dtype_name(x.dtype):
        raise DTypeError(
            f"`{where}`: expected {name} of a floating dtype, got {dtype_name(x.dtype)}; "
            "convert it, for example with xpmlp.asarray(x, dtype='float32')"
        )


def check_ndim(where: str, name: str, x: Array, least: int, layout: str) -> None:
    """Raise ShapeError unless x has at least ``least`` axes."""
    if x.ndim < least:
        raise ShapeError(
            f"`{where}`: expected {name} of shape {layout}, got {tuple(x.shape)}; "
            "a single sample needs a batch axis: x[None, :]"
        )


def check_same_shape(where: str, name: str, x: Array, shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless x has exactly ``shape``."""
    if tuple(x.shape) != tuple(shape):
        raise ShapeError(f"`{where}`: expected {name} of shape {shape}, got {tuple(x.shape)}")


def check_shapes(where: str, shape: tuple[int, ...], **arrays: Array) -> None:
    """:func:`check_same_shape` for several arrays, by their names."""
    for name, array in arrays.items():
        check_same_shape(where, name, array, shape)


def check_choice(where: str, name: str, value: Any, choices: tuple[str | None, ...]) -> None:
    """Raise ConfigError, listing what is allowed, unless value is one of the choices."""
    if not isinstance(value, str | None) or value not in choices:
        raise ConfigError(
            f"`{where}`: expected {name} to be one of {', '.join(map(str, choices))}, got "
            f"{value!r:.200}"
        )
