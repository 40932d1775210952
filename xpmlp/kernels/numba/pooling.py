"""Instructions of pooling, on images whose channels come last."""

from __future__ import annotations

import numpy as np
from numba import njit

from .records import ROWS as EACH
from .records import Of, by_rows, record

_SIZES = {
    **dict.fromkeys(("inside", "height", "width", "channels"), int),
    **dict.fromkeys(("kernel_height", "kernel_width", "stride_height", "stride_width"), int),
    **dict.fromkeys(("top", "left", "out_height", "out_width"), int),
}
_INSIDE = Of("rows", "inside")
Pooled = record(
    "Pooled", x=Of("rows", "inside", apart="apart"), apart=int, **_SIZES, y=EACH, places=EACH
)
"""``places`` says which of its window's numbers each of y is."""
PooledBackward = record("PooledBackward", **_SIZES, dy=EACH, places=EACH, dx=_INSIDE)
Averaged = record(
    "Averaged", x=Of("rows", "inside", apart="apart"), apart=int, **_SIZES, padded=int, y=EACH
)
"""``padded`` is 1 where what lies outside of an image counts."""
AveragedBackward = record("AveragedBackward", **_SIZES, padded=int, dy=EACH, dx=_INSIDE)


@njit(inline="always")
def _inside(output, stride, padding, size, length):
    """The first place of a window that is inside of the image, the last + 1, and where it lies."""
    start = np.intp(output * stride) - np.intp(padding)
    return max(0, -start), min(np.intp(size), np.intp(length) - start), start


@njit(inline="always")
def _window(a, n, row, column):
    """Rows and columns of a window that are inside; where its corner and its output lie."""
    top, bottom, y = _inside(row, a.stride_height, a.top, a.kernel_height, a.height)
    left, right, x = _inside(column, a.stride_width, a.left, a.kernel_width, a.width)
    corner = (np.intp(n * a.height) + y) * np.intp(a.width) + x
    to = ((n * a.out_height + row) * a.out_width + column) * a.channels
    return top, bottom, left, right, (corner, to)


def _pooled(a, first, last):
    """``y``: the largest number of each window, and its place there, the first of equals."""
    real = a.x.dtype.type
    for n in range(first, last):
        for row in range(a.out_height):
            for column in range(a.out_width):
                top, bottom, left, right, (corner, to) = _window(a, n, row, column)
                for c in range(a.channels):
                    a.y[to + c] = -np.inf
                    a.places[to + c] = real(top * np.intp(a.kernel_width) + left)
                for i in range(top, bottom):
                    for j in range(left, right):
                        place = real(i * np.intp(a.kernel_width) + j)
                        at = np.uintp(corner + i * np.intp(a.width) + j) * a.channels
                        for c in range(a.channels):
                            value, so_far = a.x[at + c], a.y[to + c]
                            larger = (value > so_far) | (value != value)
                            a.y[to + c] = value if larger else so_far
                            a.places[to + c] = place if larger else a.places[to + c]


def _pooled_backward(a, first, last):
    """``dx``: each dy at the place that its window's largest number has."""
    real = a.dx.dtype.type
    for n in range(first, last):
        a.dx[n * a.inside : (n + np.uintp(1)) * a.inside] = 0
        for row in range(a.out_height):
            for column in range(a.out_width):
                top, bottom, left, right, (corner, to) = _window(a, n, row, column)
                for i in range(top, bottom):
                    for j in range(left, right):
                        place = real(i * np.intp(a.kernel_width) + j)
                        at = np.uintp(corner + i * np.intp(a.width) + j) * a.channels
                        for c in range(a.channels):
                            own = a.places[to + c] == place
                            a.dx[at + c] += a.dy[to + c] if own else real(0)


@njit(inline="always")
def _weight(a, top, bottom, left, right):
    """One divided by how many numbers a mean is of."""
    if a.padded != 0:
        return 1.0 / np.float64(a.kernel_height * a.kernel_width)
    return 1.0 / np.float64((bottom - top) * (right - left))


def _averaged(a, first, last):
    """``y``: the mean of each window."""
    real = a.x.dtype.type
    for n in range(first, last):
        for row in range(a.out_height):
            for column in range(a.out_width):
                top, bottom, left, right, (corner, to) = _window(a, n, row, column)
                for c in range(a.channels):
                    a.y[to + c] = 0
                for i in range(top, bottom):
                    for j in range(left, right):
                        at = np.uintp(corner + i * np.intp(a.width) + j) * a.channels
                        for c in range(a.channels):
                            a.y[to + c] += a.x[at + c]
                weight = real(_weight(a, top, bottom, left, right))
                for c in range(a.channels):
                    a.y[to + c] *= weight


def _averaged_backward(a, first, last):
    """``dx``: dy divided among its window's numbers."""
    real = a.dx.dtype.type
    for n in range(first, last):
        a.dx[n * a.inside : (n + np.uintp(1)) * a.inside] = 0
        for row in range(a.out_height):
            for column in range(a.out_width):
                top, bottom, left, right, (corner, to) = _window(a, n, row, column)
                weight = real(_weight(a, top, bottom, left, right))
                for i in range(top, bottom):
                    for j in range(left, right):
                        at = np.uintp(corner + i * np.intp(a.width) + j) * a.channels
                        for c in range(a.channels):
                            a.dx[at + c] += a.dy[to + c] * weight


pooled, pooled_backward = by_rows(Pooled, _pooled), by_rows(PooledBackward, _pooled_backward)
averaged = by_rows(Averaged, _averaged)
averaged_backward = by_rows(AveragedBackward, _averaged_backward)
