"""Matrix products of NumPy arrays over leading axes, without copying either operand whole.

A call is a list of *runs*, each a batch of products at equal distances in memory: one run for
ordinary batches, more where broadcasting leaves no single distance. Threads divide the runs, or the
batch in each, or the rows or columns of each product, whichever is long enough. No way of dividing
changes how an element's sum is added up, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from . import gemm
from .tape import address_of, instruction, integers, launch, launch_in_parts, share, vector
from .threads import enter_parallel, leave_parallel, parallel_threads

_PARALLEL_WORK = 300_000  # multiply-adds; with fewer, a second thread comes too late
_RUNS, _BATCH, _ROWS, _COLUMNS = range(4)  # what the threads divide
_LEAST = (1, 1, 24, 64)  # of that for each
_ONE_RUN = np.zeros((1, 2), np.int64)
_AT_ONE_RUN = address_of(_ONE_RUN)  # asked for once: it takes a microsecond


def matmul(a, b):
    """The kernel, with the signature and the results of the op's reference."""
    dtype, a_shape, b_shape = a.dtype, a.shape, b.shape
    size = dtype.itemsize
    if len(a_shape) == len(b_shape) == 3 and a_shape[0] == b_shape[0]:
        # The usual case, without a detour: at small sizes every microsecond counts.
        count, rows, depth = a_shape
        columns = b_shape[2]
        a_batch, a_row, a_col = a.strides
        b_batch, b_row, b_col = b.strides
        c = np.empty((count, rows, columns), dtype)
        runs = _ONE_RUN
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
        runs = _offsets(axes) if axes else _ONE_RUN
    work = c.size * depth
    if work == 0:
        c.fill(0)
        return c
    a_row, a_col, b_row, b_col = a_row // size, a_col // size, b_row // size, b_col // size
    square = rows == columns == depth and gemm.are_dense(dtype, rows, a_row, a_col, b_row, b_col)
    arguments = (
        _RUNS, _AT_ONE_RUN if runs is _ONE_RUN else address_of(runs), len(runs),
        gemm.program(dtype, square), count, rows, columns, depth,
        address_of(a), a_batch // size, a_row, a_col,
        address_of(b), b_batch // size, b_row, b_col, address_of(c),
    )  # fmt: skip
    if work >= _PARALLEL_WORK:
        threads = parallel_threads()
        for axis, length in enumerate((len(runs), count, rows, columns)):
            if length >= threads * _LEAST[axis]:
                if enter_parallel():
                    arguments = (axis, *arguments[1:])
                    try:
                        launch_in_parts((_products(dtype),), arguments, threads)
                    finally:
                        leave_parallel()
                    return c
                break
    launch((_products(dtype),), arguments)
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
    starts = _ONE_RUN
    for n, *steps in axes:
        moved = np.arange(n, dtype=np.int64)[:, None] * np.array(steps, np.int64)
        starts = (starts[:, None] + moved).reshape(-1, 2)
    return starts


@instruction
def _products(real):
    """Runs of products, cut along ``axis``."""

    def run(arguments, part, parts):
        (
            axis, runs_at, runs, program, count, rows, columns, depth,
            a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c,
        ) = integers(arguments, 17)  # fmt: skip
        size = gemm.constants(real(0))[1]
        starts = vector(runs_at, 2 * runs, np.int64(0))
        c_batch, c_row = rows * columns, columns
        c_run = count * c_batch
        first_run, last_run = 0, runs
        # Borders that cut no tile: a multiple of the tile's rows, or of a panel's columns.
        if axis == _RUNS:
            first_run, last_run = share(runs, part, parts, 1)
        elif axis == _BATCH:
            first, last = share(count, part, parts, 1)
            count = last - first
            a += first * a_batch * size
            b += first * b_batch * size
            c += first * c_batch * size
        elif axis == _ROWS:
            first, last = share(rows, part, parts, 12)
            rows = last - first
            a += first * a_row * size
            c += first * c_row * size
        else:
            first, last = share(columns, part, parts, 32)
            columns = last - first
            b += first * b_col * size
            c += first * size
        for run in range(first_run, last_run):
            gemm.product(
                program, count, rows, columns, depth,
                a + starts[2 * run], a_batch, a_row, a_col,
                b + starts[2 * run + 1], b_batch, b_row, b_col,
                c + run * c_run * size, c_batch, c_row, 0, 0, 0, 0,
            )  # fmt: skip
        return 0

    return run
