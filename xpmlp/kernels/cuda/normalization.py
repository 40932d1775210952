"""Launches ``batch_norm.cu`` and ``layer_norm.cu``.

γ (P, D) makes x's leading axis the population; with γ (D,) there is one member, whose batch is
everything before the last axis.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import geometry, launch


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any]:
    """The kernel, with the signature and the results of the op's reference."""
    suffix = launch.suffix_of(x)
    real = launch.accumulator(suffix)
    x, gamma, beta = (launch.contiguous(a) for a in (x, gamma, beta))
    batch, features, members = _sizes(x, gamma)
    columns, device = members * features, launch.device()
    chunks = geometry.column_chunks(batch, features, members, device)
    sizes = batch, np.int32(features), np.int32(members)

    partial = launch.empty((chunks, 2, columns), real)
    plan = geometry.columns("batch_norm_partial", batch, features, members, suffix, device)
    launch.run("batch_norm", suffix, plan, x, partial, *sizes)
    mean, var = launch.empty(gamma.shape, real), launch.empty(gamma.shape, real)
    plan = geometry.finish("batch_norm_finish", columns, suffix)
    no_running = None, None, real(0.0), np.int32(0)
    counted = x, partial, np.int32(chunks), *sizes
    launch.run("batch_norm", suffix, plan, *counted, mean, var, *no_running)
    y = launch.empty(x.shape, x.dtype)
    plan = geometry.elementwise("batch_norm_apply", batch * features, members, suffix, device)
    launch.run("batch_norm", suffix, plan, x, gamma, beta, mean, var, real(eps), y, *sizes)
    return y, mean, var


def batch_norm_backward(
    dy: Any, x: Any, gamma: Any, mean: Any, var: Any, eps: float
) -> tuple[Any, Any, Any]:
    """The kernel, with the signature and the results of the op's reference."""
    suffix = launch.suffix_of(x)
    real = launch.accumulator(suffix)
    dy, x, gamma = (launch.contiguous(a) for a in (dy, x, gamma))
    mean, var = (launch.contiguous(a.astype(real, copy=False)) for a in (mean, var))
    batch, features, members = _sizes(x, gamma)
    columns, device = members * features, launch.device()
    chunks = geometry.column_chunks(batch, features, members, device)
    sizes = batch, np.int32(features), np.int32(members)

    partial = launch.empty((chunks, 2, columns), real)
    name = "batch_norm_backward_partial"
    plan = geometry.columns(name, batch, features, members, suffix, device)
    launch.run("batch_norm", suffix, plan, dy, x, mean, var, real(eps), partial, *sizes)
    sums = launch.empty((2, columns), real)
    dgamma, dbeta = (launch.empty(gamma.shape, gamma.dtype) for _ in range(2))
    plan = geometry.finish("batch_norm_backward_finish", columns, suffix)
    launch.run("batch_norm", suffix, plan, partial, np.int32(chunks), columns, sums, dgamma, dbeta)
    dx = launch.empty(x.shape, x.dtype)
    name = "batch_norm_backward_apply"
    plan = geometry.elementwise(name, batch * features, members, suffix, device)
    given = dy, x, gamma, mean, var, real(eps), sums
    launch.run("batch_norm", suffix, plan, *given, dx, *sizes)
    return dx, dgamma, dbeta


def layer_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any]:
    """The kernel, with the signature and the results of the op's reference."""
    suffix = launch.suffix_of(x)
    real = launch.accumulator(suffix)
    x, gamma, beta = (launch.contiguous(a) for a in (x, gamma, beta))
    batch, features, members = _sizes(x, gamma)
    rows = batch * members
    y = launch.empty(x.shape, x.dtype)
    mean, inv_std = (launch.empty((*x.shape[:-1], 1), real) for _ in range(2))
    plan = geometry.layer_norm("layer_norm", rows, features, suffix, launch.device())
    launch.run(
        "layer_norm",
        suffix,
        plan,
        *(x, gamma, beta, real(eps), np.int32(1), y, mean, inv_std),
        *(rows, np.int32(features), batch),
    )
    return y, mean, inv_std


def layer_norm_backward(
    dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any
) -> tuple[Any, Any, Any]:
    """The kernel, with the signature and the results of the op's reference."""
    suffix = launch.suffix_of(x)
    real = launch.accumulator(suffix)
    dy, x, gamma = (launch.contiguous(a) for a in (dy, x, gamma))
    mean, inv_std = (launch.contiguous(a.astype(real, copy=False)) for a in (mean, inv_std))
    batch, features, members = _sizes(x, gamma)
    columns, device = members * features, launch.device()
    dx = launch.empty(x.shape, x.dtype)
    plan = geometry.layer_norm("layer_norm_backward", batch * members, features, suffix, device)
    launch.run(
        "layer_norm",
        suffix,
        plan,
        *(dy, x, gamma, mean, inv_std, np.int32(1), dx),
        *(batch * members, np.int32(features), batch),
    )
    chunks = geometry.column_chunks(batch, features, members, device)
    partial = launch.empty((chunks, 2, columns), real)
    name = "layer_norm_parameters"
    plan = geometry.columns(name, batch, features, members, suffix, device)
    sizes = batch, np.int32(features), np.int32(members)
    launch.run("layer_norm", suffix, plan, dy, x, mean, inv_std, partial, *sizes)
    dgamma, dbeta = (launch.empty(gamma.shape, gamma.dtype) for _ in range(2))
    plan = geometry.finish("layer_norm_parameters_finish", columns, suffix)
    launch.run("layer_norm", suffix, plan, partial, np.int32(chunks), columns, dgamma, dbeta)
    return dx, dgamma, dbeta


def _sizes(x: Any, gamma: Any) -> tuple[int, int, int]:
    """N, D and P."""
    members = gamma.shape[0] if gamma.ndim == 2 else 1
    return math.prod(x.shape[:-1]) // members, x.shape[-1], members
