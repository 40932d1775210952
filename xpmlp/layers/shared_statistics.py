"""Batch normalization of a batch whose rows are divided among several processes."""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..backend import Array, array_namespace, asarray_like
from ..communication import Share
from ..ops.shapes import per_feature, working_dtype


def batch_norm(
    x: Array, gamma: Array, beta: Array, eps: float, share: Share
) -> tuple[Array, tuple[Any, ...], Array, Array]:
    """:func:`xpmlp.ops.batch_norm` by the statistics of all rows, or of this rank's alone.

    Returns
    -------
    y : array of x's shape
    saved : tuple
        Mean and variance that y was made with, and the function that is its backward.
    mean, var : array of gamma's shape
        What running statistics move towards, the same on all ranks.
    """
    y, mean, var = ops.batch_norm(x, gamma, beta, eps)
    if share.ranks.statistics == "rank":
        both = share.average(mean, var)
        return y, (mean, var, ops.batch_norm_backward), *(_like(a, mean) for a in both)
    both = share.statistics(mean, var)
    mean, var = (_like(values, mean) for values in both)
    y = ops.batch_norm_inference(x, gamma, beta, mean, var, eps)

    def backward(
        dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        return batch_norm_backward(dy, x, gamma, mean, var, eps, share)

    return y, (mean, var, backward), mean, var


def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float, share: Share
) -> tuple[Array, Array, Array]:
    """:func:`xpmlp.ops.batch_norm_backward` through statistics of all rows.

    dγ and dβ are this rank's part of them.
    """
    dx, dgamma, dbeta = ops.batch_norm_inference_backward(dy, x, gamma, mean, var, eps)
    xp = array_namespace(x)
    wide = working_dtype(xp, x)
    rows = share.of_all(math.prod(x.shape[:-1]) // math.prod(gamma.shape[:-1]))
    sums = share.sum(share.wide(dgamma, dbeta))
    tilt, level = (per_feature(xp, _like(values / rows, var)) for values in sums)
    inverse = 1.0 / xp.sqrt(var + eps)
    x_hat = (xp.astype(x, wide, copy=False) - per_feature(xp, mean)) * per_feature(xp, inverse)
    scale = per_feature(xp, xp.astype(gamma, wide, copy=False) * inverse)
    dx = xp.astype(dx, wide, copy=False) - scale * (level + x_hat * tilt)
    return xp.astype(dx, x.dtype, copy=False), dgamma, dbeta


def _like(values: Any, array: Array) -> Array:
    """Sums back where the arrays are; those that were made there stay, which can be recorded."""
    if type(values) is type(array):
        return array_namespace(array).astype(values, array.dtype, copy=False)
    return asarray_like(values, array)
