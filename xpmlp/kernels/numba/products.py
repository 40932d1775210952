"""Matrix products of NumPy arrays: the fully connected map, its gradients, and ``matmul``.

The ops launch :func:`xpmlp.kernels.numba.gemm.product`, as a training step does; forward, bias and
rectifier are the end of the product itself. Backward, ``dz = dy f′`` is made once, and all three
products read it: the bias's gradient is one too, of a row of ones with dz, and rounds no worse than
the others. Neither operand is copied whole, whatever its strides.

Threads divide the problems of a batch or the members of a population, or the rows or columns of
each product, whichever is long enough. No way of dividing changes how a sum is added up, so results
do not depend on the number of threads.

The instructions here are what a step needs besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import gemm
from .elementwise import SLOPES, VALUES, FromOutput, InPlace
from .gemm import ANY, TALL, WHOLE, Bias, Matrix, Product
from .launching import launch
from .records import (
    ADDRESS,
    FEATURES,
    Of,
    by_columns,
    by_elements,
    fields,
    fields_only,
    formula,
    record,
)
from .records import ROWS as EACH
from .simd import constants
from .tape import call, instruction, release, scratch, share, stored, vector

# In multiply-adds: with less work, a second thread comes too late; what a tanh and a call of the
# product take as long as.
_PARALLEL_WORK = 300_000
_TANH_WORK, _CALL_WORK = 60, 1000
_NO_BIAS = 0, 0


# --- The fully connected map ----------------------------------------------------------------------


def linear(x, W, b, activation):
    """The kernel, with the signature and the results of the op's reference."""
    dtype, columns = x.dtype, W.shape[-1]
    lead = x.shape[:-2]
    if W.ndim == 3:
        lead = (max(W.shape[0], *lead),) if lead else W.shape[:1]
    y = np.empty((*lead, x.shape[-2], columns), dtype)
    x, members, (rows, depth), left, right = _operands(x, W)
    of_y = y, rows * columns, columns, 1
    bias = _NO_BIAS if b is None else (b, columns)
    work = y.size * depth + members * _CALL_WORK
    flags, worth_it = gemm.RELU if activation == "relu" else 0, work >= _PARALLEL_WORK
    made = Product.plain(ANY, members, rows, columns, depth, left, right, of_y, bias, 0, flags)
    if activation in VALUES:
        worth_it = work + _TANH_WORK * y.size >= _PARALLEL_WORK
        values = VALUES[activation](dtype), InPlace.plain(1, 1, y.size, y)
        launch(gemm.product(dtype), made, *values, worth_it=worth_it)
    else:
        launch(gemm.product(dtype), made, worth_it=worth_it)
    return y


def linear_backward(dy, x, W, y, activation, input_grad):
    """The kernel, with the signature and the results of the op's reference."""
    dtype, (depth, columns), x_shape = x.dtype, W.shape[-2:], x.shape
    dW, db = np.empty(W.shape, dtype), np.empty((*W.shape[:-2], columns), dtype)
    x, members, (rows, _), of_x, of_W = _operands(x, W)
    dz = dy
    work = (2 if input_grad else 1) * dy.size * depth + 3 * members * _CALL_WORK
    worth_it, dx, flags = work >= _PARALLEL_WORK, 0, 0
    if input_grad and members > 1 and (x.ndim == 2 or len(x) == 1):
        # Where members share x, its gradient is a sum over all of them.
        dx, flags = np.zeros(x_shape, dtype), gemm.ACCUMULATE
    elif input_grad:
        dx = np.empty(x_shape, dtype)
    if activation is not None:
        dz = np.empty(dy.shape, dtype)
    given = Gradients.plain(
        gemm.product(dtype), members, rows, columns, depth, of_x, of_W, dz, _ONE[dtype],
        dW, db, dx, flags,
    )  # fmt: skip
    if activation is None:
        launch(gradients(dtype), given, worth_it=worth_it)
    else:
        slopes = FromOutput.plain(1, 1, dy.size, dy, y, dz)
        launch(SLOPES[activation](dtype), slopes, gradients(dtype), given, worth_it=worth_it)
    return (dx if input_grad else None), dW, db


def _operands(x, W):
    """x without axes that are only more rows; P; (N, D); both as matrices."""
    size, depth = x.dtype.itemsize, W.shape[-2]
    members = W.shape[0] if W.ndim == 3 else 1
    if members == 1 and x.ndim > 2:
        x = x.reshape(-1, depth)  # a copy, if there is no one distance between rows
    x_row, x_col = x.strides[-2:]
    W_row, W_col = W.strides[-2:]
    x_batch = x.strides[0] if x.ndim == 3 and x.shape[0] > 1 else 0
    W_batch = W.strides[0] if W.ndim == 3 else 0
    left = _start(x), x_batch // size, x_row // size, x_col // size
    right = _start(W), W_batch // size, W_row // size, W_col // size
    return x, members, (x.shape[-2], depth), left, right


def _start(array):
    """An array that begins where an operand does, and whose elements lie in order."""
    return array if array.flags.c_contiguous else array[(0,) * (array.ndim - 1) + _FIRST]


_FIRST = (slice(1),)
_ONE = {dtype: np.ones(1, dtype) for dtype in map(np.dtype, ("float32", "float64"))}


# --- Products over leading axes -------------------------------------------------------------------

# A call is a list of runs, each a batch of products at equal distances in memory: one run for
# ordinary batches, more where broadcasting leaves no single distance.


def matmul(a, b):
    """The kernel, with the signature and the results of the op's reference."""
    dtype, a_shape, b_shape = a.dtype, a.shape, b.shape
    size, runs = dtype.itemsize, None
    if len(a_shape) == len(b_shape) == 3 and a_shape[0] == b_shape[0]:
        # The usual case, without a detour: at small sizes every microsecond counts.
        count, rows, depth = a_shape
        columns = b_shape[2]
        a_batch, a_row, a_col = a.strides
        b_batch, b_row, b_col = b.strides
        c = np.empty((count, rows, columns), dtype)
    else:
        (rows, depth), columns = a_shape[-2:], b_shape[-1]
        a_row, a_col = a.strides[-2:]
        b_row, b_col = b.strides[-2:]
        shape = np.broadcast_shapes(a_shape[:-2], b_shape[:-2])
        c = np.empty((*shape, rows, columns), dtype)
        axes = _merged(shape, _spread(a, shape), _spread(b, shape))
        count, a_batch, b_batch = axes.pop() if axes else (1, 0, 0)
        if count > 1 and b_batch == 0 and a_batch == rows * a_row:
            rows, count = rows * count, 1  # one tall product
        runs = _offsets(axes) if axes else None
    work = c.size * depth
    if work == 0:
        c.fill(0)
        return c
    of_a = _start(a), a_batch // size, a_row // size, a_col // size
    of_b = _start(b), b_batch // size, b_row // size, b_col // size
    of_c, worth_it = (c, rows * columns, columns, 1), work >= _PARALLEL_WORK
    problem = Product.plain(ANY, count, rows, columns, depth, of_a, of_b, of_c, _NO_BIAS, 0, 0)
    square = rows == columns == depth and gemm.are_dense(dtype, rows, *of_a[2:], *of_b[2:])
    product = (gemm.square_product if square else gemm.product)(dtype)
    if runs is None:
        launch(product, problem, worth_it=worth_it)
    else:
        of_runs = Runs.plain(product, len(runs), runs, problem)
        launch(products(dtype), of_runs, worth_it=worth_it)
    return c


def _spread(array: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    """Distance in bytes along each of the broadcast leading axes."""
    own = array.shape[:-2]
    steps = [0 if n == 1 else step for n, step in zip(own, array.strides, strict=False)]
    return [0] * (len(shape) - len(own)) + steps


def _merged(shape, a_steps, b_steps) -> list[tuple[int, int, int]]:
    """Leading axes as (size, step of a, step of b), neighbours made one where steps allow."""
    axes: list[tuple[int, int, int]] = []
    for n, a, b in zip(shape, a_steps, b_steps, strict=True):
        if n == 1:
            continue
        if axes and axes[-1][1:] == (n * a, n * b):
            axes[-1] = (axes[-1][0] * n, a, b)
        else:
            axes.append((n, a, b))
    return axes


def _offsets(axes: list[tuple[int, int, int]]) -> np.ndarray:
    """Where in a and in b each run starts, in bytes."""
    starts = np.zeros((1, 2), np.int64)
    for n, *steps in axes:
        moved = np.arange(n, dtype=np.int64)[:, None] * np.array(steps, np.int64)
        starts = (starts[:, None] + moved).reshape(-1, 2)
    return starts


Gradients = fields_only(
    "Gradients", __name__, product=int, members=int, rows=int, columns=int, depth=int, x=Matrix,
    W=Matrix, dz=ADDRESS, one=ADDRESS, dW=ADDRESS, db=ADDRESS, dx=ADDRESS, flags=int,
)  # fmt: skip
Runs = fields_only("Runs", __name__, product=int, runs=int, starts=ADDRESS, problem=Product)


@instruction
def gradients(real):
    """``dW = xᵀ dz``, ``db = 1ᵀ dz`` and, if there is a place for it, ``dx = dz Wᵀ``."""

    def run(arguments, part, parts):
        g = fields(arguments, Gradients)
        members, rows, columns, depth, x, W = g.members, g.rows, g.columns, g.depth, g.x, g.W
        dz, nothing = Matrix(g.dz, rows * columns, columns, 1), Bias(0, 0)
        dW, db = Matrix(g.dW, depth * columns, columns, 1), Matrix(g.db, columns, columns, 1)
        turned, one = Matrix(x.start, x.batch, x.col, x.row), Matrix(g.one, 0, 0, 0)
        of_dW = Product(ANY, members, depth, columns, rows, turned, dz, dW, nothing, 0, 0)
        call(g.product, stored(of_dW), part, parts)
        of_db = Product(ANY, members, 1, columns, rows, one, dz, db, nothing, 0, 0)
        call(g.product, stored(of_db), part, parts)
        if g.dx != 0:
            dx = Matrix(g.dx, rows * depth if g.flags == 0 else 0, depth, 1)
            turned = Matrix(W.start, W.batch, W.col, W.row)
            of_dx = Product(ANY, members, rows, depth, columns, dz, turned, dx, nothing, 0, g.flags)
            call(g.product, stored(of_dx), part, parts)
        return 0

    return run


@instruction
def products(real):
    """Runs of products; shares are of the runs, or of each where there are few."""

    def run(arguments, part, parts):
        p = fields(arguments, Runs)
        starts, each, size = (
            vector(p.starts, 2 * p.runs, np.int64(0)),
            p.problem,
            constants(real(0))[1],
        )
        first, last = 0, p.runs
        if p.runs >= parts:
            first, last = share(p.runs, part, parts, 1)
            part, parts = 0, 1
        for i in range(first, last):
            a, b, c = each.a, each.b, each.c
            problem = Product(
                each.axis, each.count, each.rows, each.columns, each.depth,
                Matrix(a.start + starts[2 * i], a.batch, a.row, a.col),
                Matrix(b.start + starts[2 * i + 1], b.batch, b.row, b.col),
                Matrix(c.start + i * each.count * c.batch * size, c.batch, c.row, c.col),
                each.bias, each.gate, each.flags,
            )  # fmt: skip
            call(p.product, stored(problem), part, parts)
        return 0

    return run


# --- What a step needs besides --------------------------------------------------------------------

Halves = fields_only("Halves", __name__, product=int, problem=Product)
JoinedHalves = record("JoinedHalves", c=Of(2, "rows", "columns"), y=EACH, rectified=int)
ColumnSums = record("ColumnSums", x=EACH, out=FEATURES)
ScaleSlopes = record(
    "ScaleSlopes", dy=EACH, x=Of("rows", "columns", apart="apart"), apart=int, out=FEATURES
)
"""x is 0 apart where members share it."""


@instruction
def half_products(real):
    """``A B + bias`` in two terms, one for each half of the depth: ``c[0] + c[1]``.

    For a few rows by a large matrix. Cutting its rows would send all of B through every core's
    cache. This way a core meets the same half of it here, in its gradient and in its update.
    """

    def run(arguments, part, parts):
        given = fields(arguments, Halves)
        p, size = given.problem, constants(real(0))[1]
        for half in range(2):
            if parts > 1 and part % 2 != half:
                continue
            sharers = (parts + 1 - half) // 2 if parts > 1 else 1
            top, bottom = share(p.rows, part // 2, sharers, TALL)
            first, last = share(p.depth, half, 2, TALL)
            problem = Product(
                WHOLE, 1, bottom - top, p.columns, last - first,
                Matrix(p.a.start + (top * p.a.row + first) * size, 0, p.a.row, 1),
                Matrix(p.b.start + first * p.b.row * size, 0, p.b.row, 1),
                Matrix(p.c.start + (half * p.rows + top) * p.columns * size, 0, p.columns, 1),
                Bias(p.bias.start if half == 0 else 0, 0), 0, 0,
            )  # fmt: skip
            call(given.product, stored(problem), 0, 1)
        return 0

    return run


products.record, half_products.record = Runs, Halves


def _joined_halves(a, first, last):
    """``y = c[0] + c[1]``, rectified if asked for."""
    zero, half = a.y.dtype.type(0), a.rows * a.columns
    if a.rectified != 0:
        for i in range(first, last):
            value = a.c[i] + a.c[half + i]
            a.y[i] = zero if value < zero else value
    else:
        for i in range(first, last):
            a.y[i] = a.c[i] + a.c[half + i]


def _sums_of_columns(record: Any, term: Callable, **options: Any) -> Any:
    """``out = Σₙ term`` of some columns; a term is made of a record and an element's place."""

    def sums(a, first, last):
        # Sums of a few rows first: rounding errors grow with the length of a sum.
        few, block = scratch(last - first, a.out.dtype.type(0)), np.uintp(32)
        for j in range(first, last):
            a.out[j] = 0
        for top in range(np.uintp(0), a.rows, block):
            for j in range(last - first):
                few[j] = 0
            for row in range(top, min(a.rows, top + block)):
                begin = row * a.columns + first
                for j in range(last - first):
                    few[j] += term(a, begin + j)
            for j in range(last - first):
                a.out[first + j] += few[j]
        release(few)

    return by_columns(record, sums, name=term.__name__, **options)


@formula
def _element(a, i):
    return a.x[i]


@formula
def _slope(a, i):
    return a.dy[i] * a.x[i]


joined_halves = by_elements(JoinedHalves, _joined_halves)
column_sums = _sums_of_columns(ColumnSums, _element)
"""A bias's gradient."""
scale_slopes = _sums_of_columns(ScaleSlopes, _slope, fastmath={"contract"})
"""Of what columns are multiplied by."""
