"""Which cuBLAS calls make a matrix product of strided, broadcast arrays: arithmetic, no GPU.

cuBLAS sees matrices column by column, so a row-major ``C = A B`` is asked for as ``Cᵀ = Bᵀ Aᵀ``:
the operands change places, and a row-major operand is exactly the transpose that is wanted. An
operand that is itself a transposed view then only needs its transposition flag set. Nothing is
copied unless neither of an operand's last two axes has unit steps.

Steps are distances in elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product as every_index

_LARGEST = 2**31 - 1  # sizes and leading dimensions are 32-bit


@dataclass(frozen=True)
class Call:
    """A batch of ``count`` products as cuBLAS takes them; offsets are into our own b, a and c.

    Attributes
    ----------
    first_transposed, second_transposed : bool
        Flags of cuBLAS's first operand, our b, and of its second, our a.
    m, n, k : int
        Columns of c, rows of c, and the inner size.
    first, first_ld, first_step, second, second_ld, second_step, c, c_ld, c_step : int
        Where each begins, its leading dimension, and the distance to the next of the batch.
    """

    first_transposed: bool
    second_transposed: bool
    m: int
    n: int
    k: int
    first: int
    first_ld: int
    first_step: int
    second: int
    second_ld: int
    second_step: int
    c: int
    c_ld: int
    c_step: int
    count: int


@dataclass(frozen=True)
class Batch:
    """Leading axes in which both operands move by equal steps, and where each such run begins.

    Attributes
    ----------
    count, a_step, b_step : int
    starts : tuple of (int, int)
        Of a and of b, one a run; c's runs follow each other.
    """

    count: int
    a_step: int
    b_step: int
    starts: tuple[tuple[int, int], ...]


def layout(rows: int, columns: int, row_step: int, column_step: int) -> tuple[bool, int] | None:
    """(whether it is stored column by column, its leading dimension); None: it must be copied."""
    if columns == 1 or column_step == 1:
        ld = columns if rows == 1 else row_step
        if columns <= ld <= _LARGEST:
            return False, ld
    if rows == 1 or row_step == 1:
        ld = rows if columns == 1 else column_step
        if rows <= ld <= _LARGEST:
            return True, ld
    return None


def batch(
    shape: Sequence[int],
    a_shape: Sequence[int],
    a_steps: Sequence[int],
    b_shape: Sequence[int],
    b_steps: Sequence[int],
) -> Batch:
    """The leading axes of both operands, broadcast to ``shape``."""
    axes: list[tuple[int, int, int]] = []
    a_all, b_all = _spread(a_shape, a_steps, len(shape)), _spread(b_shape, b_steps, len(shape))
    for size, a, b in zip(shape, a_all, b_all, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1:] == (size * a, size * b):
            axes[-1] = (axes[-1][0] * size, a, b)
        else:
            axes.append((size, a, b))
    count, a_step, b_step = axes.pop() if axes else (1, 0, 0)
    starts = tuple(
        (
            sum(i * a for i, (_, a, _) in zip(index, axes, strict=True)),
            sum(i * b for i, (_, _, b) in zip(index, axes, strict=True)),
        )
        for index in every_index(*(range(size) for size, _, _ in axes))
    )
    return Batch(count, a_step, b_step, starts)


def _spread(shape: Sequence[int], steps: Sequence[int], ndim: int) -> list[int]:
    """Steps along all broadcast axes: 0 where there is only one."""
    own = [0 if size == 1 else step for size, step in zip(shape, steps, strict=True)]
    return [0] * (ndim - len(shape)) + own


def calls(
    lead: Sequence[int],
    rows: int,
    depth: int,
    columns: int,
    a_shape: Sequence[int],
    a_steps: Sequence[int],
    b_shape: Sequence[int],
    b_steps: Sequence[int],
) -> Iterator[Call]:
    """The calls for ``c (*lead, rows, columns)``, dense in C order; every size is at least 1.

    ``a_steps`` and ``b_steps`` are those of all axes; the last two must have a :func:`layout`.
    """
    a_row, a_column = a_steps[-2:]
    b_row, b_column = b_steps[-2:]
    a_layout, b_layout = (
        layout(rows, depth, a_row, a_column),
        layout(depth, columns, b_row, b_column),
    )
    if a_layout is None or b_layout is None:
        raise ValueError("an operand must be copied first")
    axes = batch(lead, a_shape[:-2], a_steps[:-2], b_shape[:-2], b_steps[:-2])
    (a_by_columns, a_ld), (b_by_columns, b_ld) = a_layout, b_layout
    count, a_step, b_step = axes.count, axes.a_step, axes.b_step
    if count > 1 and b_step == 0 and not a_by_columns and rows * count <= _LARGEST:
        tall = rows * a_ld == a_step or rows == 1
        if tall and (rows > 1 or depth <= a_step <= _LARGEST):
            # A batch times one matrix is one tall product.
            a_ld = a_ld if rows > 1 else a_step
            rows, count, a_step = rows * count, 1, 0
    size = rows * columns
    for run, (a, b) in enumerate(axes.starts):
        yield Call(
            first_transposed=b_by_columns,
            second_transposed=a_by_columns,
            m=columns,
            n=rows,
            k=depth,
            first=b,
            first_ld=b_ld,
            first_step=b_step,
            second=a,
            second_ld=a_ld,
            second_step=a_step,
            c=run * count * size,
            c_ld=columns,
            c_step=size,
            count=count,
        )
