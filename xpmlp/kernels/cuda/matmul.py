"""Matrix products of CuPy arrays: cuBLAS with true transposition flags, and a kernel of our own for
batches of small matrices.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import cublas, geometry, launch, products

# Below this, all three sizes, and with at least so many products, ours is meant to be faster.
_SMALL, _MANY = 32, 64


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """The kernel, with the signature and the results of the op's reference.

    Parameters
    ----------
    a, b : array, shapes (…, I, K) and (…, K, J)
    out : array, shape (…, I, J), optional
        Dense, in C order.
    """
    suffix = launch.suffix_of(a)
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = launch.empty((*lead, rows, columns), a.dtype) if out is None else out
    if c.size == 0:
        return c
    if depth == 0:
        c.fill(0)
        return c
    a, a_steps = _strided(a)
    b, b_steps = _strided(b)
    axes = products.batch(lead, a.shape[:-2], a_steps[:-2], b.shape[:-2], b_steps[:-2])
    if max(rows, depth, columns) <= _SMALL and axes.count >= _MANY and len(axes.starts) == 1:
        plan = geometry.batched_matmul(axes.count, rows, depth, columns, suffix)
        launch.run(
            "batched_matmul",
            suffix,
            plan,
            *(a, axes.a_step, *a_steps[-2:], b, axes.b_step, *b_steps[-2:]),
            *(c, rows * columns, columns),
            *(np.int32(n) for n in (axes.count, rows, depth, columns)),
        )
        return c
    if cublas.is_missing():
        return _by_cupy(a, b, c)
    handle = cublas.handle()
    addresses = launch.address(a), launch.address(b), launch.address(c)
    sizes = (lead, rows, depth, columns)
    for call in products.calls(*sizes, a.shape, a_steps, b.shape, b_steps):
        handle.multiply(call, suffix, *addresses)
    return c


def _by_cupy(a: Any, b: Any, c: Any) -> Any:
    """The same, slower. CuPy multiplies no bfloat16, and float16 with sums in float32."""
    narrow = a.dtype.itemsize == 2
    if narrow:
        a, b = a.astype(np.float32), b.astype(np.float32)
    c[...] = launch.library().matmul(a, b).astype(c.dtype, copy=False)
    return c


def _strided(x: Any) -> tuple[Any, tuple[int, ...]]:
    """The array, copied only if cuBLAS could not read its matrices, and its steps in elements."""
    size = x.dtype.itemsize
    if all(step >= 0 and step % size == 0 for step in x.strides):
        steps = tuple(step // size for step in x.strides)
        if products.layout(*x.shape[-2:], *steps[-2:]) is not None:
            return x, steps
    x = launch.library().ascontiguousarray(x)
    return x, tuple(math.prod(x.shape[axis + 1 :]) for axis in range(x.ndim))
