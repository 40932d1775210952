"""Every path of the product driver against float64, for the vectors that this process compiles for.

Imported by the tests; run as a program, it does the same in a process of its own, which may be told
to use narrower vectors (``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES``).
"""

from __future__ import annotations

import sys
from itertools import product as product_of

import numpy as np

from xpmlp.kernels.numba import gemm, launching, simd

ODD_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 24, 31, 33, 48, 49, 65)


def product(a, b, c, bias=None, gate=None, flags=0, kind=None):
    """``gemm.product``, or another kind, on three-dimensional arrays of equal batches."""

    def matrix(x):
        return x.ctypes.data, *(step // x.itemsize for step in x.strides)

    assert c.strides[-1] == c.itemsize
    _, rows, depth = a.shape
    sizes = len(a), rows, b.shape[2], depth
    of_bias, of_gate = (0 if x is None else x.ctypes.data for x in (bias, gate))
    square = c.flags.c_contiguous and not (of_bias or of_gate or flags or kind)
    if square and len(set(sizes[1:])) == 1:
        square = gemm.are_dense(a.dtype, rows, *matrix(a)[2:], *matrix(b)[2:])
    else:
        square = False
    operands = matrix(a), matrix(b), matrix(c), (of_bias, b.shape[2])
    given = gemm.Product.plain(gemm.WHOLE, *sizes, *operands, of_gate, flags)
    kind = kind or (gemm.square_product if square else gemm.product)
    launching.launch(kind(a.dtype), given)


def laid_out(values, how):
    """The same numbers: plain, transposed in memory, every other one, backwards, or padded."""
    batch, rows, columns = values.shape
    if how == "transposed":
        return np.ascontiguousarray(values.swapaxes(1, 2)).swapaxes(1, 2)
    if how == "stepped":
        wide = np.full((batch, 2 * rows, 2 * columns), np.nan, values.dtype)
        wide[:, ::2, ::2] = values
        return wide[:, ::2, ::2]
    if how == "reversed":
        return np.ascontiguousarray(values[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    if how == "padded":
        wide = np.full((batch, rows + 1, columns + 3), np.nan, values.dtype)
        wide[:, :-1, :-3] = values
        return wide[:, :-1, :-3]
    return values


LAYOUTS = ("plain", "transposed", "stepped", "reversed", "padded")
ENDINGS = ("plain", "accumulate", "bias", "bias relu", "gate", "all")


def check(dtype, batch, rows, depth, columns, layouts, ending, rng):
    """One product into the middle of a larger array, of which nothing else may change."""

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    a, b = draw(batch, rows, depth), draw(batch, depth, columns)
    around = np.full((batch, rows + 1, columns + 5), 7, dtype)
    c = around[:, :rows, :columns]
    expected = a.astype(np.float64) @ b.astype(np.float64)
    bound = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64) + 8
    bias = gate = None
    flags = 0
    if ending in ("bias", "bias relu", "all"):
        bias = draw(batch, 1, columns)
        expected = expected + bias
    if ending in ("accumulate", "all"):
        c[...] = draw(*c.shape)
        expected = expected + c
        flags |= gemm.ACCUMULATE
    if ending in ("bias relu", "all"):
        expected = np.maximum(expected, 0)
        flags |= gemm.RELU
    if ending in ("gate", "all"):
        gates = draw(*around.shape)  # its strides are those of c
        gate = gates[:, :rows, :columns]
        expected = np.where(gate > 0, expected, 0)
    a, b = laid_out(a, layouts[0]), laid_out(b, layouts[1])
    product(a, b, c, bias, gate, flags)
    case = f"{dtype} {batch} {rows}x{depth}x{columns} {layouts} {ending}"
    assert (around[:, rows:] == 7).all() and (around[:, :, columns:] == 7).all(), case
    if c.size:
        error = np.abs(c - expected) / (bound * np.finfo(dtype).eps)
        # Rounding errors of a sum of n terms grow with √n at most n; tiles sum at most 256 in turn.
        assert error.max() < 1 + min(depth, 256) ** 0.5, (case, error.max())
    if ending == "plain" and c.size:  # squares have a program of their own
        dense = np.empty(c.shape, dtype)
        product(a, b, dense)
        assert np.array_equal(dense, c), case


def check_all(dtype) -> None:
    """Every tile, every way to pack and to end, and whatever else 250 random shapes reach."""
    rng = np.random.default_rng(0)
    lanes = simd.target().bits // (8 * np.dtype(dtype).itemsize)
    for rows in range(1, 27):
        for columns in (1, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes - 1, 5 * lanes):
            check(dtype, 2, rows, 5, columns, ("plain", "plain"), ENDINGS[rows % 6], rng)
    for n in (4, 8, 16):
        for first in ("plain", "transposed"):
            for second in ("plain", "transposed", "padded"):
                for batch in (1, 5):
                    check(dtype, batch, n, n, n, (first, second), "plain", rng)
    for rows, depth, columns in ((0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1)):
        for ending in ENDINGS:
            check(dtype, 1, rows, depth, columns, ("plain", "transposed"), ending, rng)
    # Blocks of A are packed; several of rows and of depth; tiles and panels that are not whole.
    sizes = (48, 48, 768), (61, 129, 800), (500, 1030, 785), (2000, 70, 769), (97, 300, 1003)
    for number, layouts in enumerate(product_of(LAYOUTS, LAYOUTS)):
        check(dtype, 1, *sizes[number % 5], layouts, ENDINGS[number % 6], rng)
    for number in range(250):
        rows, depth, columns = (int(n) for n in rng.choice(ODD_SIZES, 3))
        if number % 25 == 0:
            depth = 300  # more than one block of depth
        if number % 50 == 0:
            rows = 500  # more than one block of rows
            columns = 700
        layouts = tuple(str(name) for name in rng.choice(LAYOUTS, 2))
        check(dtype, 1 + number % 3, rows, depth, columns, layouts, ENDINGS[number % 6], rng)


if __name__ == "__main__":
    assert str(simd.target().bits) == sys.argv[1], simd.target()
    for name in sys.argv[2:]:
        check_all(name)
    print("done")
