"""Matrix products of CuPy arrays: cuBLAS with true transposition flags, and a kernel of our own for
batches of small matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import cublas, geometry, launch, products

OURS = {"threads": (32, 64), "tensor cores": (32, 64)}
"""Which batches our kernels multiply rather than cuBLAS: up to which size, of all three, and from
how many products on. Chosen from bytes and instructions, not yet from measurements."""


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """The kernel, with the signature and the results of the op's reference.

    Parameters
    ----------
    a, b : array, shapes (…, I, K) and (…, K, J)
    out : array, shape (…, I, J), optional
        Dense, in C order.
    """
    key = (
        *(a.dtype, a.shape, a.strides, b.shape, b.strides),
        *(launch.device_number(), cublas.uses_tensor_float_32()),
    )
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _REMEMBERED:
            _plans.clear()
        plan = _plans[key] = _plan(a, b)
    c = launch.empty(plan.shape, a.dtype) if out is None else out
    plan.run(a, b, c)
    return c


@dataclass(frozen=True)
class _Plan:
    """What makes the product of arrays of certain shapes, strides and types, thought out once."""

    shape: tuple[int, ...]
    run: Callable[[Any, Any, Any], Any]


_FLOAT32 = "f32"
_plans: dict[tuple, _Plan] = {}
_REMEMBERED = 1024


def _plan(a: Any, b: Any) -> _Plan:
    suffix = launch.suffix_of(a)
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*lead, rows, columns)
    if 0 in shape:
        return _Plan(shape, lambda a, b, c: None)
    if depth == 0:
        return _Plan(shape, lambda a, b, c: c.fill(0))
    a_steps, b_steps = _steps(a), _steps(b)
    if a_steps is None or b_steps is None:
        dense = launch.library().ascontiguousarray
        copies = a_steps is None, b_steps is None
        rest = _product(suffix, lead, a.shape, a_steps or _dense(a), b.shape, b_steps or _dense(b))
        return _Plan(
            shape,
            lambda a, b, c: rest(dense(a) if copies[0] else a, dense(b) if copies[1] else b, c),
        )
    return _Plan(shape, _product(suffix, lead, a.shape, a_steps, b.shape, b_steps))


def _product(
    suffix: str,
    lead: tuple[int, ...],
    a_shape: tuple[int, ...],
    a_steps: tuple[int, ...],
    b_shape: tuple[int, ...],
    b_steps: tuple[int, ...],
) -> Callable[[Any, Any, Any], None]:
    rows, depth, columns = *a_shape[-2:], b_shape[-1]
    axes = products.batch(lead, a_shape[:-2], a_steps[:-2], b_shape[:-2], b_steps[:-2])
    tensor = _by_tensor_cores(suffix)
    most, least = OURS["tensor cores" if tensor else "threads"]
    if max(rows, depth, columns) <= most and axes.count >= least and len(axes.starts) == 1:
        plan = geometry.batched_matmul(axes.count, rows, depth, columns, suffix, tensor)
        of_a, of_b = (axes.a_step, *a_steps[-2:]), (axes.b_step, *b_steps[-2:])
        sizes = tuple(np.int32(n) for n in (axes.count, rows, depth, columns))
        of_c = (rows * columns, columns, *sizes)

        def ours(a: Any, b: Any, c: Any) -> None:
            launch.run("batched_matmul", suffix, plan, a, *of_a, b, *of_b, c, *of_c)

        return ours
    calls = list(products.calls(lead, rows, depth, columns, a_shape, a_steps, b_shape, b_steps))

    def by_cublas(a: Any, b: Any, c: Any) -> None:
        if cublas.is_missing():
            _by_cupy(a, b, c)
            return
        multiply = cublas.handle().multiply
        addresses = launch.address(a), launch.address(b), launch.address(c)
        for call in calls:
            multiply(call, suffix, *addresses)

    return by_cublas


def _by_tensor_cores(suffix: str) -> bool:
    """Whether they may be used for this type, as cuBLAS would."""
    narrow = suffix in ("f16", "bf16") or (suffix == _FLOAT32 and cublas.uses_tensor_float_32())
    return narrow and launch.device().capability >= geometry.TENSOR_CORES_FROM


def _by_cupy(a: Any, b: Any, c: Any) -> None:
    """The same, slower. CuPy multiplies no bfloat16, and float16 with sums in float32."""
    narrow = a.dtype.itemsize == 2
    if narrow:
        a, b = a.astype(np.float32), b.astype(np.float32)
    c[...] = launch.library().matmul(a, b).astype(c.dtype, copy=False)


def _steps(x: Any) -> tuple[int, ...] | None:
    """An array's strides in elements; None if cuBLAS could not read its matrices."""
    size = x.dtype.itemsize
    if any(step < 0 or step % size for step in x.strides):
        return None
    steps = tuple(step // size for step in x.strides)
    return None if products.layout(*x.shape[-2:], *steps[-2:]) is None else steps


def _dense(x: Any) -> tuple[int, ...]:
    """The steps of an array that lies in C order."""
    return tuple(math.prod(x.shape[axis + 1 :]) for axis in range(x.ndim))
