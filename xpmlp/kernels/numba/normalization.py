"""Batch, layer and RMS normalization for NumPy arrays, forward and backward.

Each is written as serial functions over a range of columns or rows, first … last−1, which other
compiled code calls too, for a share of the work. They take flat arrays that begin where one problem
begins: row r is from ``r·columns`` to ``(r + 1)·columns``. Sizes and ranges are unsigned
(``np.uintp``); eps is of the arrays' type. Results go into given arrays.

No sum crosses a border: batch statistics and parameter gradients are split by columns, statistics
of rows by rows. So results are the same bits however the work is split, by threads or otherwise.

A batch's statistics take one read of it. Mean and squared deviations of eight rows, as two passes
over them give them, are joined to those of all rows before (Chan, Golub and LeVeque 1979). All of
it counts from a value in their midst, so that a large mean costs no digits.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .row_sums import centred_sums, slope_sums
from .simd import address
from .threads import enter_parallel, leave_parallel, parallel_threads
from .twins import twins

_PARALLEL_ELEMENTS = 100_000
_LINE = 16  # float32 in a cache line

# Without Python's error on dividing by zero, which LLVM makes no vectors of.
_OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy"}


def batch_norm(x, gamma, beta, eps):
    """The kernel, with the signature and the results of the op's reference."""
    shape, dtype = gamma.shape, x.dtype
    y, mean, var = np.empty(x.shape, dtype), np.empty(shape, dtype), np.empty(shape, dtype)
    _run(_batch_norm, (x, gamma, beta), (y, mean, var), x.shape[-1], eps)
    return y, mean, var


def batch_norm_backward(dy, x, gamma, mean, var, eps):
    """The kernel, with the signature and the results of the op's reference."""
    shape, dtype = gamma.shape, x.dtype
    dx, dgamma, dbeta = np.empty(x.shape, dtype), np.empty(shape, dtype), np.empty(shape, dtype)
    arrays = dy, x, gamma, mean, var
    _run(_batch_norm_backward, arrays, (dx, dgamma, dbeta), x.shape[-1], eps)
    return dx, dgamma, dbeta


def layer_norm(x, gamma, beta, eps):
    """The kernel, with the signature and the results of the op's reference."""
    shape, dtype = (*x.shape[:-1], 1), x.dtype
    y, mean, inv_std = np.empty(x.shape, dtype), np.empty(shape, dtype), np.empty(shape, dtype)
    _run(_layer_norm, (x, gamma, beta), (y, mean, inv_std), x.shape[-1], eps)
    return y, mean, inv_std


def layer_norm_backward(dy, x, gamma, mean, inv_std):
    """The kernel, with the signature and the results of the op's reference."""
    shape, dtype = gamma.shape, x.dtype
    dx, dgamma, dbeta = np.empty(x.shape, dtype), np.empty(shape, dtype), np.empty(shape, dtype)
    arrays = dy, x, gamma, mean, inv_std
    _run(_layer_norm_backward, arrays, (dx, dgamma, dbeta), x.shape[-1], 0.0)
    return dx, dgamma, dbeta


def _run(ways, arrays, results, columns, eps):
    """All arrays flat, on several threads where that pays and they are free."""
    flat = [a.ravel() for a in arrays + results]  # of a strided input, a copy
    serial, parallel = ways
    if arrays[0].size > _PARALLEL_ELEMENTS and enter_parallel():
        try:
            parallel(*flat, columns, eps, parallel_threads())
        finally:
            leave_parallel()
    else:
        serial(*flat, columns, eps, 1)


# --- Batch norm, by columns -----------------------------------------------------------------------

# The loops over eight rows unroll; what is left is one vector loop over columns, which reads eight
# rows for each access to the sums. These are in double precision: so few additions cost little, and
# rounding errors no longer grow with the number of rows.
_EIGHT = np.uintp(8)


@njit(inline="always")
def _median(a, b, c):
    """The one in between. All sums count from it: an outlier would cost the others their digits."""
    low, high = (a, b) if a < b else (b, a)
    return low if c < low else (high if c > high else c)


@njit(nogil=True, **_OPTIONS)
def batch_statistics(x, rows, columns, first, last, mean, var):
    """Mean and biased variance of some columns."""
    real, wide = x.dtype.type, np.float64
    width = last - first
    start = np.empty(width, x.dtype)
    middles, squared = np.zeros(width), np.zeros(width)  # squared: the sum of deviations' squares
    half, end = rows // np.uintp(2) * columns, (rows - np.uintp(1)) * columns
    for j in range(width):
        start[j] = _median(x[first + j], x[half + first + j], x[end + first + j])
    whole = rows - rows % _EIGHT
    for row in range(np.uintp(0), whole, _EIGHT):
        after = wide(row + _EIGHT)
        weight, apart_weight = wide(8) / after, wide(8) * wide(row) / after
        begin = row * columns + first
        for j in range(width):
            total, squares = real(0), real(0)
            for k in range(_EIGHT):
                total += x[begin + k * columns + j] - start[j]
            middle = total * real(0.125)
            for k in range(_EIGHT):
                away = (x[begin + k * columns + j] - start[j]) - middle
                squares += away * away
            apart = wide(middle) - middles[j]
            middles[j] += apart * weight
            squared[j] += wide(squares) + apart * apart * apart_weight
    for row in range(whole, rows):
        weight = wide(1) / wide(row + np.uintp(1))
        begin = row * columns + first
        for j in range(width):
            value = wide(x[begin + j] - start[j])
            apart = value - middles[j]
            middles[j] += apart * weight
            squared[j] += apart * (value - middles[j])
    for j in range(width):
        mean[first + j] = real(middles[j] + wide(start[j]))
        var[first + j] = real(squared[j] / wide(rows))


@njit(nogil=True, **_OPTIONS)
def normalize_rows(x, gamma, beta, mean, var, eps, columns, first, last, y):
    """``y = γ (x − μ)/√(σ² + ε) + β`` for some rows and given statistics of the columns."""
    scale = np.empty(columns, x.dtype)
    for j in range(columns):
        scale[j] = gamma[j] / np.sqrt(np.float64(var[j]) + eps)
    for row in range(first, last):
        begin = row * columns
        for j in range(columns):
            y[begin + j] = (x[begin + j] - mean[j]) * scale[j] + beta[j]


@njit(nogil=True, **_OPTIONS)
def batch_norm_parameter_columns(dy, x, mean, var, eps, rows, columns, first, last, dgamma, dbeta):
    """``dγ = Σ dy x̂`` and ``dβ = Σ dy`` of batch norm, for some columns."""
    real, wide = x.dtype.type, np.float64
    width = last - first
    sums, products = np.zeros(width), np.zeros(width)
    whole = rows - rows % _EIGHT
    for row in range(np.uintp(0), whole, _EIGHT):
        begin = row * columns + first
        for j in range(width):
            total, product = real(0), real(0)
            for k in range(_EIGHT):
                slope = dy[begin + k * columns + j]
                total += slope
                product += slope * (x[begin + k * columns + j] - mean[first + j])
            sums[j] += wide(total)
            products[j] += wide(product)
    for row in range(whole, rows):
        begin = row * columns + first
        for j in range(width):
            slope = dy[begin + j]
            sums[j] += wide(slope)
            products[j] += wide(slope * (x[begin + j] - mean[first + j]))
    for j in range(width):
        dbeta[first + j] = real(sums[j])
        dgamma[first + j] = real(products[j] / np.sqrt(wide(var[first + j]) + eps))


@njit(nogil=True, **_OPTIONS)
def batch_norm_backward_rows(
    dy, x, gamma, mean, var, eps, dgamma, dbeta, rows, columns, first, last, dx
):
    """dx of batch norm for some rows, from the parameters' gradients, which are sums over all."""
    real = x.dtype.type
    share = real(1) / real(rows)
    scale, tilt, level = (
        np.empty(columns, x.dtype),
        np.empty(columns, x.dtype),
        np.empty(columns, x.dtype),
    )
    for j in range(columns):
        inv_std = real(1) / np.sqrt(var[j] + eps)
        scale[j] = gamma[j] * inv_std
        tilt[j] = dgamma[j] * share * inv_std
        level[j] = dbeta[j] * share
    for row in range(first, last):
        begin = row * columns
        for j in range(columns):
            away = x[begin + j] - mean[j]
            dx[begin + j] = ((dy[begin + j] - level[j]) - away * tilt[j]) * scale[j]


# --- Layer norm, by rows; its parameter gradients, by columns -------------------------------------


@njit(nogil=True, **_OPTIONS)
def layer_norm_rows(x, gamma, beta, eps, columns, first, last, y, mean, inv_std):
    """Layer norm of some rows: y, and each row's mean and 1/√(σ² + ε)."""
    real = x.dtype.type
    count = real(columns)
    for row in range(first, last):
        begin = row * columns
        start = address(x) + begin * x.itemsize
        middle = centred_sums(real(0), start, columns)[0] / count
        left, squares = centred_sums(middle, start, columns)
        missed = left / count  # by which rounding errors put the mean wrong
        middle = middle + missed
        inverse = real(1) / np.sqrt(squares / count - missed * missed + eps)
        for j in range(columns):
            y[begin + j] = (x[begin + j] - middle) * inverse * gamma[j] + beta[j]
        mean[row] = middle
        inv_std[row] = inverse


@njit(nogil=True, **_OPTIONS)
def layer_norm_backward_rows(dy, x, gamma, mean, inv_std, columns, first, last, dx):
    """dx of layer norm for some rows; dx may be dy, if the parameters' gradients are done."""
    real = x.dtype.type
    share, size = real(1) / real(columns), x.itemsize
    for row in range(first, last):
        begin = row * columns
        middle, inverse = mean[row], inv_std[row]
        total, product = slope_sums(
            middle, address(dy) + begin * size, address(gamma), address(x) + begin * size, columns
        )
        level, tilt = total * share, product * share * inverse * inverse
        for j in range(columns):
            away = x[begin + j] - middle
            dx[begin + j] = ((dy[begin + j] * gamma[j] - level) - away * tilt) * inverse


@njit(nogil=True, **_OPTIONS)
def layer_norm_parameter_columns(dy, x, mean, inv_std, rows, columns, first, last, dgamma, dbeta):
    """``dγ = Σ dy x̂`` and ``dβ = Σ dy`` of layer norm, for some columns."""
    real, wide = x.dtype.type, np.float64
    width = last - first
    sums, products = np.zeros(width), np.zeros(width)
    whole = rows - rows % _EIGHT
    for row in range(np.uintp(0), whole, _EIGHT):
        begin = row * columns + first
        for j in range(width):
            total, product = real(0), real(0)
            for k in range(_EIGHT):
                slope = dy[begin + k * columns + j]
                total += slope
                product += slope * ((x[begin + k * columns + j] - mean[row + k]) * inv_std[row + k])
            sums[j] += wide(total)
            products[j] += wide(product)
    for row in range(whole, rows):
        begin = row * columns + first
        for j in range(width):
            slope = dy[begin + j]
            sums[j] += wide(slope)
            products[j] += wide(slope * ((x[begin + j] - mean[row]) * inv_std[row]))
    for j in range(width):
        dbeta[first + j] = real(sums[j])
        dgamma[first + j] = real(products[j])


# --- The ops: each twice, serial and parallel -----------------------------------------------------

# Problems follow one another, and each is cut into pieces: one for each thread.


@njit(inline="always")
def _cut(count, pieces):
    """Columns or rows in a piece, in whole cache lines; pieces of a problem."""
    line, count = np.uintp(_LINE), np.uintp(count)
    width = (count // np.uintp(pieces) + line) // line * line
    each = (count + width - np.uintp(1)) // width
    return width, each


@njit(inline="always")
def _piece(task, each, count, width):
    """A task's problem, and where its piece begins and ends."""
    problem, number = np.uintp(task) // each, np.uintp(task) % each
    return problem, number * width, min(count, (number + np.uintp(1)) * width)


def _batch_norm_body(x, gamma, beta, y, mean, var, columns, eps, pieces):
    columns, rows = np.uintp(columns), np.uintp(x.size // gamma.size)
    problems, eps = np.uintp(gamma.size) // columns, x.dtype.type(eps)
    width, each = _cut(columns, pieces)
    for task in prange(problems * each):
        p, first, last = _piece(task, each, columns, width)
        a, c = p * rows * columns, p * columns
        batch_statistics(x[a:], rows, columns, first, last, mean[c:], var[c:])
    width, each = _cut(rows, pieces)
    for task in prange(problems * each):
        p, first, last = _piece(task, each, rows, width)
        a, c = p * rows * columns, p * columns
        normalize_rows(
            x[a:], gamma[c:], beta[c:], mean[c:], var[c:], eps, columns, first, last, y[a:]
        )


def _batch_norm_backward_body(dy, x, gamma, mean, var, dx, dgamma, dbeta, columns, eps, pieces):
    columns, rows = np.uintp(columns), np.uintp(x.size // gamma.size)
    problems, eps = np.uintp(gamma.size) // columns, x.dtype.type(eps)
    width, each = _cut(columns, pieces)
    for task in prange(problems * each):
        p, first, last = _piece(task, each, columns, width)
        a, c = p * rows * columns, p * columns
        batch_norm_parameter_columns(
            dy[a:], x[a:], mean[c:], var[c:], eps, rows, columns, first, last, dgamma[c:], dbeta[c:]
        )
    width, each = _cut(rows, pieces)
    for task in prange(problems * each):
        p, first, last = _piece(task, each, rows, width)
        a, c = p * rows * columns, p * columns
        batch_norm_backward_rows(
            dy[a:],
            x[a:],
            gamma[c:],
            mean[c:],
            var[c:],
            eps,
            dgamma[c:],
            dbeta[c:],
            rows,
            columns,
            first,
            last,
            dx[a:],
        )


def _layer_norm_body(x, gamma, beta, y, mean, inv_std, columns, eps, pieces):
    columns, rows = np.uintp(columns), np.uintp(x.size // gamma.size)
    problems, eps = np.uintp(gamma.size) // columns, x.dtype.type(eps)
    width, each = _cut(rows, pieces)
    for task in prange(problems * each):
        p, first, last = _piece(task, each, rows, width)
        a, c, r = p * rows * columns, p * columns, p * rows
        layer_norm_rows(
            x[a:], gamma[c:], beta[c:], eps, columns, first, last, y[a:], mean[r:], inv_std[r:]
        )


def _layer_norm_backward_body(dy, x, gamma, mean, inv_std, dx, dgamma, dbeta, columns, eps, pieces):
    columns, rows = np.uintp(columns), np.uintp(x.size // gamma.size)
    problems, eps = np.uintp(gamma.size) // columns, x.dtype.type(eps)
    width, each = _cut(columns, pieces)
    for task in prange(problems * each):
        p, first, last = _piece(task, each, columns, width)
        a, c, r = p * rows * columns, p * columns, p * rows
        layer_norm_parameter_columns(
            dy[a:], x[a:], mean[r:], inv_std[r:], rows, columns, first, last, dgamma[c:], dbeta[c:]
        )
    width, each = _cut(rows, pieces)
    for task in prange(problems * each):
        p, first, last = _piece(task, each, rows, width)
        a, c, r = p * rows * columns, p * columns, p * rows
        layer_norm_backward_rows(
            dy[a:], x[a:], gamma[c:], mean[r:], inv_std[r:], columns, first, last, dx[a:]
        )


_batch_norm = twins(_batch_norm_body, **_OPTIONS)
_batch_norm_backward = twins(_batch_norm_backward_body, **_OPTIONS)
_layer_norm = twins(_layer_norm_body, **_OPTIONS)
_layer_norm_backward = twins(_layer_norm_backward_body, **_OPTIONS)
