"""Batch, layer and RMS normalization for NumPy arrays: instructions, and the ops that launch them.

Arrays are flat, row r of a member from ``r·columns`` to ``(r + 1)·columns``. Members of a
population may differ in width: how many of their features they have. The others are 0 and stay so.

No sum crosses a border: batch statistics and parameter gradients are cut by columns, statistics of
rows by rows. So results are the same bits however the work is cut, among threads or otherwise.

A batch's statistics take one read of it. Mean and squared deviations of eight rows, as two passes
over them give them, are joined to those of all rows before (Chan, Golub and LeVeque 1979). All of
it counts from a value in their midst, so that a large mean costs no digits.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .launching import launch
from .records import COUNT, EACH_ROW, FEATURES, NUMBER, ROWS, by_columns, by_rows, formula, record
from .row_sums import centred_sums, slope_sums
from .simd import address
from .tape import release, scratch

_LARGE = 100_000  # elements; with fewer, waking a second thread takes longer than it saves
_FAST = {"contract"}

# --- The ops --------------------------------------------------------------------------------------


def batch_norm(x, gamma, beta, eps):
    """The kernel, with the signature and the results of the op's reference."""
    shape, dtype, sizes = gamma.shape, x.dtype, _sizes(x, gamma)
    y, mean, var = np.empty(x.shape, dtype), np.empty(shape, dtype), np.empty(shape, dtype)
    given = BatchNorm.plain(*sizes, x, gamma, beta, float(eps), mean, var, y)
    steps = batch_statistics(dtype), batch_norm_rows(dtype)
    launch(steps, given, worth_it=x.size > _LARGE)
    return y, mean, var


def batch_norm_backward(dy, x, gamma, mean, var, eps):
    """The kernel, with the signature and the results of the op's reference."""
    results, dtype = _gradients(x, gamma), x.dtype
    inputs = dy, x, gamma, mean, var, float(eps)
    given = BatchNormBackward.plain(*_sizes(x, gamma), *inputs, *results)
    steps = batch_norm_slopes(dtype), batch_norm_backward_rows(dtype)
    launch(steps, given, worth_it=x.size > _LARGE)
    return results


def layer_norm(x, gamma, beta, eps):
    """The kernel, with the signature and the results of the op's reference."""
    shape, dtype, sizes = (*x.shape[:-1], 1), x.dtype, _sizes(x, gamma)
    y, mean, inverse = np.empty(x.shape, dtype), np.empty(shape, dtype), np.empty(shape, dtype)
    given = RowNorm.plain(*sizes, x, gamma, beta, float(eps), y, mean, inverse)
    launch(layer_norm_rows(dtype), given, worth_it=x.size > _LARGE)
    return y, mean, inverse


def layer_norm_backward(dy, x, gamma, mean, inv_std):
    """The kernel, with the signature and the results of the op's reference."""
    results, dtype = _gradients(x, gamma), x.dtype
    given = RowNormBackward.plain(*_sizes(x, gamma), dy, x, gamma, mean, inv_std, *results)
    steps = layer_norm_slopes(dtype), layer_norm_backward_rows(dtype)
    launch(steps, given, worth_it=x.size > _LARGE)
    return results


def _sizes(x, gamma):
    """How many problems there are parameters for, and each one's rows and columns."""
    columns, size = x.shape[-1], gamma.size
    return size // columns, x.size // size, columns


def _gradients(x, gamma):
    """Room for dx, dγ and dβ."""
    shape, dtype = gamma.shape, x.dtype
    return np.empty(x.shape, dtype), np.empty(shape, dtype), np.empty(shape, dtype)


# --- Records --------------------------------------------------------------------------------------

Running = record(
    "Running", value=FEATURES, keep=NUMBER, move=NUMBER, correction=NUMBER, running=FEATURES
)
BatchNorm = record(
    "BatchNorm", x=ROWS, gamma=FEATURES, beta=FEATURES, eps=NUMBER, mean=FEATURES, var=FEATURES,
    y=ROWS,
)  # fmt: skip
BatchNormBackward = record(
    "BatchNormBackward", dy=ROWS, x=ROWS, gamma=FEATURES, mean=FEATURES, var=FEATURES, eps=NUMBER,
    dx=ROWS, dgamma=FEATURES, dbeta=FEATURES,
)  # fmt: skip
RowNorm = record(
    "RowNorm", x=ROWS, gamma=FEATURES, beta=FEATURES, eps=NUMBER, y=ROWS, mean=EACH_ROW,
    inverse=EACH_ROW,
)  # fmt: skip
RowNormBackward = record(
    "RowNormBackward", dy=ROWS, x=ROWS, gamma=FEATURES, mean=EACH_ROW, inverse=EACH_ROW, dx=ROWS,
    dgamma=FEATURES, dbeta=FEATURES,
)  # fmt: skip
NarrowNorm = record(
    "NarrowNorm", x=ROWS, width=COUNT, gamma=FEATURES, beta=FEATURES, eps=NUMBER, y=ROWS,
    mean=EACH_ROW, inverse=EACH_ROW,
)  # fmt: skip
RMSNorm = record(
    "RMSNorm", x=ROWS, width=COUNT, gamma=FEATURES, eps=NUMBER, y=ROWS, inverse=EACH_ROW
)
NarrowBackward = record(
    "NarrowBackward", dy=ROWS, x=ROWS, width=COUNT, gamma=FEATURES, mean=EACH_ROW,
    inverse=EACH_ROW, dx=ROWS,
)  # fmt: skip

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


def _batch_statistics(a, first, last):
    """Mean and biased variance of some columns."""
    x, rows, columns = a.x, a.rows, a.columns
    real, wide = x.dtype.type, np.float64
    width = last - first
    start = scratch(width, real(0))
    middles, squared = scratch(width, 0.0), scratch(width, 0.0)  # of deviations' squares, the sum
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
        a.mean[first + j] = real(middles[j] + wide(start[j]))
        a.var[first + j] = real(squared[j] / wide(rows))
    release(start, middles, squared)


def _running(a, first, last):
    """A running statistic moves towards the batch's."""
    for j in range(first, last):
        a.running[j] = a.keep * a.running[j] + a.move * (a.value[j] * a.correction)


def _batch_norm_rows(a, first, last):
    """``y = γ (x − μ)/√(σ² + ε) + β`` for some rows and given statistics of the columns."""
    scale = scratch(a.columns, a.x.dtype.type(0))
    for j in range(a.columns):
        scale[j] = a.gamma[j] / np.sqrt(np.float64(a.var[j]) + a.eps)
    for row in range(first, last):
        begin = row * a.columns
        for j in range(a.columns):
            a.y[begin + j] = (a.x[begin + j] - a.mean[j]) * scale[j] + a.beta[j]
    release(scale)


def _batch_norm_backward_rows(a, first, last):
    """dx of batch norm for some rows, from the parameters' gradients, which are sums over all."""
    real = a.x.dtype.type
    share = real(1) / real(a.rows)
    scale, tilt = scratch(a.columns, real(0)), scratch(a.columns, real(0))
    level = scratch(a.columns, real(0))
    for j in range(a.columns):
        inverse = real(1) / np.sqrt(a.var[j] + a.eps)
        scale[j] = a.gamma[j] * inverse
        tilt[j] = a.dgamma[j] * share * inverse
        level[j] = a.dbeta[j] * share
    for row in range(first, last):
        begin = row * a.columns
        for j in range(a.columns):
            away = a.x[begin + j] - a.mean[j]
            a.dx[begin + j] = ((a.dy[begin + j] - level[j]) - away * tilt[j]) * scale[j]
    release(scale, tilt, level)


batch_statistics = by_columns(BatchNorm, _batch_statistics, fastmath=_FAST)
running = by_columns(Running, _running)
batch_norm_rows = by_rows(BatchNorm, _batch_norm_rows, fastmath=_FAST)
batch_norm_backward_rows = by_rows(BatchNormBackward, _batch_norm_backward_rows, fastmath=_FAST)


# --- Layer norm, by rows; its parameter gradients, by columns -------------------------------------


@njit(inline="always")
def _norm_of_rows(a, width, first, last):
    """Layer norm of the first features of some rows: y, and each row's mean and 1/√(σ² + ε)."""
    real = a.x.dtype.type
    count = real(width)
    for row in range(first, last):
        begin = row * a.columns
        start = address(a.x) + begin * a.x.itemsize
        middle = centred_sums(real(0), start, width)[0] / count
        left, squares = centred_sums(middle, start, width)
        missed = left / count  # by which rounding errors put the mean wrong
        middle = middle + missed
        inverse = real(1) / np.sqrt(squares / count - missed * missed + a.eps)
        for j in range(width):
            a.y[begin + j] = (a.x[begin + j] - middle) * inverse * a.gamma[j] + a.beta[j]
        a.mean[row] = middle
        a.inverse[row] = inverse


@njit(inline="always")
def _backward_of_rows(a, width, first, last):
    """dx of layer norm for the first features of some rows."""
    real = a.x.dtype.type
    share, size = real(1) / real(width), a.x.itemsize
    for row in range(first, last):
        begin = row * a.columns
        middle, inverse, at = a.mean[row], a.inverse[row], begin * size
        total, product = slope_sums(
            middle, address(a.dy) + at, address(a.gamma), address(a.x) + at, width
        )
        level, tilt = total * share, product * share * inverse * inverse
        for j in range(width):
            away = a.x[begin + j] - middle
            a.dx[begin + j] = ((a.dy[begin + j] * a.gamma[j] - level) - away * tilt) * inverse


def _layer_norm_rows(a, first, last):
    """Layer norm of each row; mean and inverse deviation are kept for the backward."""
    _norm_of_rows(a, a.columns, first, last)


def _layer_norm_backward_rows(a, first, last):
    """dx of layer norm."""
    _backward_of_rows(a, a.columns, first, last)


layer_norm_rows = by_rows(RowNorm, _layer_norm_rows, fastmath=_FAST)
layer_norm_backward_rows = by_rows(RowNormBackward, _layer_norm_backward_rows, fastmath=_FAST)


# --- Gradients of γ and β, by columns -------------------------------------------------------------

_FOUR = np.uintp(4)


def _slopes(record, name, deviation, of_gamma):
    """``dβ = Σ dy`` and ``dγ = Σ dy x̂`` for some columns.

    Of ``deviation(a, x, row, column)``, x̂ or what is x̂ but for a factor of the column, and
    ``of_gamma(a, sum, column)``, the sum with that factor.
    """

    def slopes(a, first, last):
        dy, x, rows, columns = a.dy, a.x, a.rows, a.columns
        real, wide = x.dtype.type, np.float64
        width = last - first
        sums, products = scratch(width, 0.0), scratch(width, 0.0)
        few_sums, few_products = scratch(width, real(0)), scratch(width, real(0))
        whole = rows - rows % _EIGHT
        for top in range(np.uintp(0), whole, _EIGHT):
            # Four rows of both arrays at a time: of eight that lie 4 kB apart, the first-level
            # cache, which has twelve places or less for addresses so alike, would lose some.
            for row in range(top, top + _EIGHT, _FOUR):
                begin, starts = row * columns + first, row == top
                for j in range(width):
                    total = real(0) if starts else few_sums[j]
                    product = real(0) if starts else few_products[j]
                    for k in range(_FOUR):
                        slope, value = dy[begin + k * columns + j], x[begin + k * columns + j]
                        total += slope
                        product += slope * deviation(a, value, row + k, first + j)
                    few_sums[j], few_products[j] = total, product
            for j in range(width):
                sums[j] += wide(few_sums[j])
                products[j] += wide(few_products[j])
        for row in range(whole, rows):
            begin = row * columns + first
            for j in range(width):
                slope = dy[begin + j]
                sums[j] += wide(slope)
                products[j] += wide(slope * deviation(a, x[begin + j], row, first + j))
        for j in range(width):
            a.dbeta[first + j] = real(sums[j])
            a.dgamma[first + j] = real(of_gamma(a, products[j], first + j))
        release(sums, products, few_sums, few_products)

    return by_columns(record, slopes, fastmath=_FAST, name=name)


@formula
def _from_column(a, x, row, column):
    return x - a.mean[column]


@formula
def _by_column(a, total, column):
    return total / np.sqrt(np.float64(a.var[column]) + a.eps)


@formula
def _from_row(a, x, row, column):
    return (x - a.mean[row]) * a.inverse[row]


@formula
def _as_it_is(a, total, column):
    return total


batch_norm_slopes = _slopes(BatchNormBackward, "batch norm slopes", _from_column, _by_column)
layer_norm_slopes = _slopes(RowNormBackward, "layer norm slopes", _from_row, _as_it_is)


# --- RMS norm, and norms of members of different widths -------------------------------------------


def _masked_layer_norm(a, first, last):
    """Layer norm of each row's first features; the others give β."""
    width = np.uintp(a.width)
    _norm_of_rows(a, width, first, last)
    for row in range(first, last):
        for j in range(width, a.columns):
            a.y[row * a.columns + j] = a.beta[j]


def _masked_layer_norm_backward(a, first, last):
    """dx of :func:`masked_layer_norm`, 0 outside of the width."""
    width = np.uintp(a.width)
    _backward_of_rows(a, width, first, last)
    for row in range(first, last):
        for j in range(width, a.columns):
            a.dx[row * a.columns + j] = 0


def _rms_norm(a, first, last):
    """``y = γ x / √(Σ x² / width + ε)`` for each row; the inverse root is kept."""
    real = a.x.dtype.type
    for row in range(first, last):
        begin = row * a.columns
        start = address(a.x) + begin * a.x.itemsize
        squares = centred_sums(real(0), start, a.columns)[1]
        inverse = real(1) / np.sqrt(squares / real(a.width) + a.eps)
        for j in range(a.columns):
            a.y[begin + j] = a.x[begin + j] * inverse * a.gamma[j]
        a.inverse[row] = inverse


def _rms_norm_backward(a, first, last):
    """``dx = (g − x̂ Σ g x̂ / width) / rms`` for each row, with ``g = γ dy`` inside the width."""
    real, width = a.x.dtype.type, np.uintp(a.width)
    for row in range(first, last):
        begin, inverse = row * a.columns, a.inverse[row]
        dy, x = address(a.dy) + begin * a.x.itemsize, address(a.x) + begin * a.x.itemsize
        along = slope_sums(real(0), dy, address(a.gamma), x, width)[1]
        tilt = along / real(a.width) * inverse * inverse
        for j in range(width):
            g = a.dy[begin + j] * a.gamma[j]
            a.dx[begin + j] = (g - a.x[begin + j] * tilt) * inverse
        for j in range(width, a.columns):
            a.dx[begin + j] = 0


masked_layer_norm = by_rows(NarrowNorm, _masked_layer_norm, fastmath=_FAST)
masked_layer_norm_backward = by_rows(NarrowBackward, _masked_layer_norm_backward, fastmath=_FAST)
rms_norm = by_rows(RMSNorm, _rms_norm)
rms_norm_backward = by_rows(NarrowBackward, _rms_norm_backward)
