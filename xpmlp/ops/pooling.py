"""Pooling: the largest number of each window, or the mean."""

from __future__ import annotations

from typing import Any

import array_api_compat

from ..backend import Array, Namespace, array_namespace
from ..errors import ConfigError
from .recordable import stack
from .shapes import check_same_shape, mean_wide, summing_dtype
from .windows import Windows, check_images, parts_of, sum_of_parts, windows_of


def max_pool2d(x: Array, *, size: Any, stride: Any = None, padding: Any = 0) -> Array:
    """``y[h, w] = max_{i,j} x[s h + i − p, s w + j − p]``.

    Parameters
    ----------
    x : array, shape (…, H, W)
        What lies outside of an image is −∞.
    size : int or (int, int)
        kH, kW.
    stride : int or (int, int), optional
        s; by default the size, so that windows do not overlap.
    padding : int or (int, int)
        p, at most half the size, so that no window is all outside.

    Returns
    -------
    array, shape (…, Ho, Wo)
        NaN where a window has one.

    Raises
    ------
    ShapeError, ConfigError
        If an image is smaller than a window, or for options out of range.
    """
    xp, windows = _windows("max_pool2d", x, size, stride, padding)
    return xp.max(stack(xp, parts_of(xp, x, windows, -float("inf"))), axis=0)


def max_pool2d_backward(
    dy: Array, x: Array, *, size: Any, stride: Any = None, padding: Any = 0
) -> Array:
    """dx of :func:`max_pool2d`: each dy goes to its window's largest number, the first of equals.

    First counts row by row inside the window, as PyTorch does.
    """
    where = "max_pool2d_backward"
    xp, windows = _windows(where, x, size, stride, padding)
    _check_slopes(where, dy, x, windows)
    parts = stack(xp, parts_of(xp, x, windows, -float("inf")))
    first = xp.argmax(parts, axis=0)
    zero = xp.zeros_like(dy)
    chosen = [xp.where(first == place, dy, zero) for place in range(parts.shape[0])]
    return sum_of_parts(xp, chosen, windows, (x.shape[-2], x.shape[-1]))


def avg_pool2d(
    x: Array, *, size: Any, stride: Any = None, padding: Any = 0, count_padding: bool = True
) -> Array:
    """``y[h, w] = Σ_{i,j} x[s h + i − p, s w + j − p] / n``.

    Parameters
    ----------
    x : array, shape (…, H, W)
    size, stride, padding
        As in :func:`max_pool2d`, but what lies outside is 0.
    count_padding : bool
        Whether n is the window's size (torch's ``count_include_pad=True``), or how many of its
        places are inside of the image.

    Returns
    -------
    array, shape (…, Ho, Wo)
    """
    xp, windows = _windows("avg_pool2d", x, size, stride, padding)
    total = xp.sum(stack(xp, parts_of(xp, x, windows, 0.0)), axis=0, dtype=summing_dtype(xp, x))
    return xp.astype(total / _counts(xp, x, windows, count_padding), x.dtype, copy=False)


def avg_pool2d_backward(
    dy: Array,
    x: Array,
    *,
    size: Any,
    stride: Any = None,
    padding: Any = 0,
    count_padding: bool = True,
) -> Array:
    """dx of :func:`avg_pool2d`: ``dy / n`` to each place of the window. Of x, the shape counts."""
    where = "avg_pool2d_backward"
    xp, windows = _windows(where, x, size, stride, padding)
    _check_slopes(where, dy, x, windows)
    each = xp.astype(dy / _counts(xp, x, windows, count_padding), dy.dtype, copy=False)
    places = windows.size[0] * windows.size[1]
    return sum_of_parts(xp, [each] * places, windows, (x.shape[-2], x.shape[-1]))


def global_avg_pool2d(x: Array) -> Array:
    """The mean of each image: x (…, H, W) to (…, 1, 1)."""
    check_images("global_avg_pool2d", "x", x)
    return mean_wide(array_namespace(x), x, (x.ndim - 2, x.ndim - 1))


def global_avg_pool2d_backward(dy: Array, x: Array) -> Array:
    """dx of :func:`global_avg_pool2d`: ``dy / (H W)`` to each pixel. Of x, the shape counts."""
    where = "global_avg_pool2d_backward"
    check_images(where, "x", x)
    check_same_shape(where, "dy", dy, (*x.shape[:-2], 1, 1))
    xp = array_namespace(dy, x)
    return xp.broadcast_to(dy / (x.shape[-2] * x.shape[-1]), x.shape)


def _windows(
    where: str, x: Array, size: Any, stride: Any, padding: Any
) -> tuple[Namespace, Windows]:
    check_images(where, "x", x)
    windows = windows_of(where, size, size if stride is None else stride, padding)
    if any(2 * p > k for p, k in zip(windows.padding, windows.size, strict=True)):
        raise ConfigError(
            f"`{where}`: expected padding of at most half the size {windows.size}, got "
            f"{windows.padding}; a window would be all outside of the image"
        )
    windows.count(where, *x.shape[-2:])
    return array_namespace(x), windows


def _check_slopes(where: str, dy: Array, x: Array, windows: Windows) -> None:
    expected = (*x.shape[:-2], *windows.count(where, *x.shape[-2:]))
    check_same_shape(where, "dy", dy, expected)


def _counts(xp: Namespace, x: Array, windows: Windows, count_padding: bool) -> Any:
    """n of each window."""
    if count_padding or windows.padding == (0, 0):
        return windows.size[0] * windows.size[1]
    ones = xp.ones(tuple(x.shape[-2:]), dtype=x.dtype, device=array_api_compat.device(x))
    return xp.sum(stack(xp, parts_of(xp, ones, windows, 0.0)), axis=0)
