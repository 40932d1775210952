"""The fully connected map of NumPy arrays and its gradients, each one compiled call.

Forward, bias and rectifier are the end of the product itself, and tanh and sigmoid act on a block
of rows as soon as it is done. Backward, ``dz = dy f′`` is made once, and all three products read
it: the bias's gradient is one too, of a row of ones with dz, and rounds no worse than the others.

Threads divide the members of a population, each of which then goes through all its steps while its
numbers are in a core's cache; or else every product, by rows or by columns. No way of dividing
changes how a sum is added up, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from . import gemm
from .elementary import sigmoid, tanh
from .simd import address
from .tape import share, vector
from .threads import enter_parallel, leave_parallel, parallel_threads
from .twins import twins

# In multiply-adds: with less work, a second thread comes too late; what a tanh and a call of the
# product take as long as.
_PARALLEL_WORK = 300_000
_TANH_WORK, _CALL_WORK = 60, 1000
_BLOCK_BYTES = 262_144  # of y, to be read again while they are in a second-level cache
_TALL, _WIDE = 12, 32  # products are cut where that cuts no tile
_LEAST_ROWS, _LEAST_COLUMNS = 24, 64  # of a product for each thread

_NONE, _RELU, _TANH, _SIGMOID = range(4)
_KINDS = {None: _NONE, "relu": _RELU, "tanh": _TANH, "sigmoid": _SIGMOID}
# Of the backward; between two, threads wait for each other. By members, all is one stage but for
# the gradient of an x that they share.
_MAKE_SLOPES, _MULTIPLY, _ADD_MEMBERS = range(3)
# Without Python's error on dividing by zero, which LLVM makes no vectors of.
_OPTIONS = {"nogil": True, "error_model": "numpy"}


def linear(x, W, b, activation):
    """The kernel, with the signature and the results of the op's reference."""
    dtype, columns = x.dtype, W.shape[-1]
    lead = x.shape[:-2]
    if W.ndim == 3:
        lead = (max(W.shape[0], *lead),) if lead else W.shape[:1]
    y = np.empty((*lead, x.shape[-2], columns), dtype)
    kind = _KINDS[activation]
    x, members, sizes, operands = _operands(x, W)
    bias = _ONE[dtype] if b is None else _start(np.ascontiguousarray(b))
    work = y.size * (sizes[2] + (_TANH_WORK if kind >= _TANH else 0)) + members * _CALL_WORK
    _run(
        _forward, work, members,
        gemm.program(dtype), kind, members, *sizes, *operands, bias, b is not None, y.reshape(-1),
    )  # fmt: skip
    return y


def linear_backward(dy, x, W, y, activation, input_grad):
    """The kernel, with the signature and the results of the op's reference."""
    dtype = x.dtype
    dW, db = np.empty(W.shape, dtype), np.empty((*W.shape[:-2], W.shape[-1]), dtype)
    dx = np.empty(x.shape, dtype) if input_grad else None
    x, members, sizes, operands = _operands(x, W)
    dy = dy.ravel()  # of a strided one, a copy
    y = dy if activation is None else y.ravel()
    stage = -1
    if input_grad:  # where members share x, its gradient is a sum over all of them
        stage = _ADD_MEMBERS if members > 1 and (x.ndim == 2 or len(x) == 1) else _MULTIPLY
    room = _room(dy, members, activation, stage)
    products = 2 if input_grad else 1
    work = products * dy.size * sizes[2] + (products + 1) * members * _CALL_WORK
    _run(
        _backward, work, members,
        gemm.program(dtype), _KINDS[activation], members, *sizes, _start(dy), _start(y), *operands,
        _ONE[dtype], room, dW.reshape(-1), db.reshape(-1),
        (dW if dx is None else dx).reshape(-1), stage,
    )  # fmt: skip
    return dx, dW, db


def _room(dy, members, activation, dx_stage):
    """Memory for dz of all members, or of those that threads are at.

    Not asked for by compiled code, which would give it back as soon as it has its address.
    """
    if activation is None:
        return np.empty(0, dy.dtype)  # dy is it
    threads = parallel_threads()
    if members < threads or dx_stage == _ADD_MEMBERS:
        return np.empty(dy.size, dy.dtype)
    return np.empty(dy.size // members * threads, dy.dtype)


def _operands(x, W):
    """x without axes that are only more rows; P; (N, M, D); first elements and steps of both."""
    size = x.dtype.itemsize
    depth, columns = W.shape[-2:]
    members = W.shape[0] if W.ndim == 3 else 1
    if members == 1 and x.ndim > 2:
        x = x.reshape(-1, depth)  # a copy, if there is no one distance between rows
    x_row, x_col = x.strides[-2:]
    W_row, W_col = W.strides[-2:]
    x_batch = x.strides[0] if x.ndim == 3 and x.shape[0] > 1 else 0
    W_batch = W.strides[0] if W.ndim == 3 else 0
    operands = (
        *(_start(x), x_batch // size, x_row // size, x_col // size),
        *(_start(W), W_batch // size, W_row // size, W_col // size),
    )
    return x, members, (x.shape[-2], columns, depth), operands


_FIRST = {1: slice(1), 2: (0, slice(1)), 3: (0, 0, slice(1))}


def _start(array):
    """An array's first element, in the one type that all arrays are handed over in: read-only.

    Code is compiled once then; and to ask NumPy for an address takes three times as long.
    """
    first = array[_FIRST[array.ndim]]
    first.setflags(write=False)
    return first


_ONE = {dtype: _start(np.ones(1, dtype)) for dtype in map(np.dtype, ("float32", "float64"))}


def _run(ways, work, members, *arguments):
    serial, parallel = ways
    if work >= _PARALLEL_WORK and enter_parallel():
        try:
            threads = parallel_threads()
            parallel(threads, members >= threads, *arguments)
        finally:
            leave_parallel()
    else:
        serial(1, True, *arguments)


@njit(inline="always")
def _cut(rows, columns, part, parts):
    """A part of a matrix: top, bottom, left, right."""
    top, bottom, left, right = 0, rows, 0, columns
    if rows >= parts * _LEAST_ROWS:
        top, bottom = share(rows, part, parts, _TALL)
    elif columns >= parts * _LEAST_COLUMNS:
        left, right = share(columns, part, parts, _WIDE)
    elif part > 0:
        bottom = 0
    return top, bottom, left, right


# --- Forward --------------------------------------------------------------------------------------


@njit(inline="always")
def _activate(kind, values):
    """tanh or sigmoid, in place."""
    if kind == _TANH:
        for i in range(np.uintp(values.size)):
            values[i] = tanh(values[i])
    else:
        for i in range(np.uintp(values.size)):
            values[i] = sigmoid(values[i])


@njit(**_OPTIONS)
def _forward_part(
    zero, part, parts, by_members, program, kind, members, rows, columns, depth,
    x, x_batch, x_row, x_col, W, W_batch, W_row, W_col, b, y,
):  # fmt: skip
    """Some members' y, or a part of each member's."""
    size = gemm.constants(zero)[1]
    b_batch, y_batch = columns if b != 0 else 0, rows * columns
    first, last = 0, members
    top, bottom, left, right = 0, rows, 0, columns
    if by_members:
        first, last = share(members, part, parts, 1)
    else:
        top, bottom, left, right = _cut(rows, columns, part, parts)
    width = right - left
    x += first * x_batch * size
    W += (first * W_batch + left * W_col) * size
    b += (first * columns + left) * size if b != 0 else 0
    y += (first * y_batch + left) * size
    if kind < _TANH:
        gemm.product(
            program, last - first, bottom - top, width, depth,
            x + top * x_row * size, x_batch, x_row, x_col, W, W_batch, W_row, W_col,
            y + top * columns * size, y_batch, columns,
            b, b_batch, 0, gemm.RELU if kind == _RELU else 0,
        )  # fmt: skip
        return
    # As many rows as make it worth copying W's columns for them, at least.
    most = max(8 * _TALL, _BLOCK_BYTES // (columns * size) // _TALL * _TALL)
    for _ in range(first, last):
        for row in range(top, bottom, most):
            high, block = min(most, bottom - row), y + row * columns * size
            gemm.product(
                program, 1, high, width, depth, x + row * x_row * size, 0, x_row, x_col,
                W, 0, W_row, W_col, block, 0, columns, b, 0, 0, 0,
            )  # fmt: skip
            if width == columns:
                _activate(kind, vector(block, high * width, zero))
            else:
                for line in range(high):
                    _activate(kind, vector(block + line * columns * size, width, zero))
        x += x_batch * size
        W += W_batch * size
        b += b_batch * size
        y += y_batch * size


def _forward_body(
    threads, by_members, program, kind, members, rows, columns, depth,
    x, x_batch, x_row, x_col, W, W_batch, W_row, W_col, b, has_bias, y,
):  # fmt: skip
    zero = y.dtype.type(0)
    x, W, b, y = address(x), address(W), address(b) if has_bias else 0, address(y)
    for part in prange(threads):
        _forward_part(
            zero, np.intp(part), threads, by_members, program, kind, members, rows, columns, depth,
            x, x_batch, x_row, x_col, W, W_batch, W_row, W_col, b, y,
        )  # fmt: skip


# --- Backward -------------------------------------------------------------------------------------


@njit(inline="always")
def _slopes(zero, kind, dy, y, dz, first, last):
    """``dz = dy f′`` for elements first … last−1; f′ from y."""
    size, count, one = gemm.constants(zero)[1], last - first, zero + type(zero)(1)
    dy = vector(dy + first * size, count, zero)
    y = vector(y + first * size, count, zero)
    dz = vector(dz + first * size, count, zero)
    if kind == _RELU:
        for i in range(np.uintp(count)):
            dz[i] = dy[i] if y[i] > zero else zero
    elif kind == _TANH:
        for i in range(np.uintp(count)):
            dz[i] = dy[i] * ((one - y[i]) * (one + y[i]))
    else:
        for i in range(np.uintp(count)):
            dz[i] = dy[i] * y[i] * (one - y[i])


@njit(inline="always")
def _weight_gradients(
    size, program, part, parts, rows, columns, depth, x, x_row, x_col, dz, one, dW, db
):
    """A part of ``dW = xᵀ dz`` and of ``db = 1ᵀ dz``."""
    top, bottom, left, right = _cut(depth, columns, part, parts)
    gemm.product(
        program, 1, bottom - top, right - left, rows, x + top * x_col * size, 0, x_col, x_row,
        dz + left * size, 0, columns, 1, dW + (top * columns + left) * size, 0, columns, 0, 0, 0, 0,
    )  # fmt: skip
    left, right = share(columns, part, parts, _WIDE)
    gemm.product(
        program, 1, 1, right - left, rows, one, 0, 0, 0, dz + left * size, 0, columns, 1,
        db + left * size, 0, columns, 0, 0, 0, 0,
    )  # fmt: skip


@njit(inline="always")
def _input_gradient(
    size, program, part, parts, rows, columns, depth, dz, W, W_row, W_col, dx, flags
):
    """A part of ``dx = dz Wᵀ``."""
    top, bottom, left, right = _cut(rows, depth, part, parts)
    gemm.product(
        program, 1, bottom - top, right - left, columns, dz + top * columns * size, 0, columns, 1,
        W + left * W_row * size, 0, W_col, W_row, dx + (top * depth + left) * size, 0, depth,
        0, 0, 0, flags,
    )  # fmt: skip


@njit(**_OPTIONS)
def _backward_part(
    zero, stage, part, parts, by_members, program, kind, members, rows, columns, depth, dy, y,
    x, x_batch, x_row, x_col, W, W_batch, W_row, W_col, one, dz, keep, dW, db, dx, dx_stage,
):  # fmt: skip
    """A part of a stage. ``keep``: there is room for all members' dz, not only a thread's."""
    size, elements = gemm.constants(zero)[1], rows * columns
    if stage == _MAKE_SLOPES:
        begin, end = share(members * elements, part, parts, 256)
        _slopes(zero, kind, dy, y, dz, begin, end)
        return
    first, last, place = 0, members, part
    if by_members and stage == _MULTIPLY:
        first, last = share(members, part, parts, 1)
        part, parts = 0, 1
    for member in range(first, last):
        at = member * elements * size
        dz_here = dz + (at if keep else place * elements * size)
        if stage == _MULTIPLY:
            if by_members and kind != _NONE:
                _slopes(zero, kind, dy + at, y + at, dz_here, 0, elements)
            _weight_gradients(
                size, program, part, parts, rows, columns, depth,
                x + member * x_batch * size, x_row, x_col, dz_here, one,
                dW + member * depth * columns * size, db + member * columns * size,
            )  # fmt: skip
        if stage == dx_stage:
            add = stage == _ADD_MEMBERS
            _input_gradient(
                size, program, part, parts, rows, columns, depth, dz_here,
                W + member * W_batch * size, W_row, W_col,
                dx + (0 if add else member * rows * depth * size),
                gemm.ACCUMULATE if add and member > 0 else 0,
            )  # fmt: skip


def _backward_body(
    threads, by_members, program, kind, members, rows, columns, depth, dy, y,
    x, x_batch, x_row, x_col, W, W_batch, W_row, W_col, one, room, dW, db, dx, dx_stage,
):  # fmt: skip
    zero = dW.dtype.type(0)
    keep = kind == _NONE or room.size == members * rows * columns
    dy, y, x, W, one = address(dy), address(y), address(x), address(W), address(one)
    dW, db, dx = address(dW), address(db), address(dx)
    dz = dy if kind == _NONE else address(room)
    begin = _MULTIPLY if by_members or kind == _NONE else _MAKE_SLOPES
    for stage in range(begin, max(_MULTIPLY, dx_stage) + 1):
        for part in prange(threads):
            _backward_part(
                zero, stage, np.intp(part), threads, by_members, program, kind,
                members, rows, columns, depth, dy, y,
                x, x_batch, x_row, x_col, W, W_batch, W_row, W_col, one,
                dz, keep, dW, db, dx, dx_stage,
            )  # fmt: skip


_forward = twins(_forward_body, error_model="numpy")
_backward = twins(_backward_body, error_model="numpy")
