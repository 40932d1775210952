"""Batch, layer and RMS normalization with their backward passes.

All three are ``y = γ ⊙ x̂ + β`` with a standardised x̂; they differ in the axes of the mean.
Sources: Ioffe and Szegedy 2015; Ba, Kiros and Hinton 2016; Zhang and Sennrich 2019.
"""

from __future__ import annotations

import math

from ..backend import Array, Namespace, array_namespace, on_host, to_numpy
from ..errors import DataError, ShapeError
from .dispatch import choose
from .shapes import (
    check_floating,
    check_same_shape,
    check_shapes,
    mean_wide,
    per_feature,
    sum_to_shape,
    working_dtype,
)


def batch_norm(
    x: Array, gamma: Array, beta: Array, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """``y = γ (x − μ)/√(σ² + ε) + β`` with μ, σ² over the batch.

    Parameters
    ----------
    x : array, shape (…, N, D), or (P, N, D) for parameters with a population axis
    gamma, beta : array, shape (D,) or (P, D)
    eps : float
        ε.

    Returns
    -------
    y : array of x's shape
    mean, var : array of gamma's shape
        μ and the biased variance σ² (divided by the number of rows) of this batch, in x's dtype;
        float32 for half-precision x, where the backward pass could not work with less.

    Raises
    ------
    ShapeError
        If x's last axis (and population axis) differ from gamma's, or the batch is empty.
    """
    run = choose("batch_norm", batch_norm_reference, x, gamma, beta)
    if run is batch_norm_reference:  # a kernel has looked at the shapes itself
        _check(x, gamma, "batch_norm")
        check_same_shape("batch_norm", "beta", beta, tuple(gamma.shape))
    return run(x, gamma, beta, eps)


def batch_norm_reference(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The definition; the variance in a second pass, so that a large mean does no harm."""
    xp = array_namespace(x, gamma, beta)
    axes = _batch_axes(x, gamma)
    wide = xp.astype(x, working_dtype(xp, x), copy=False)
    mean, _, var = _moments(xp, wide, axes)
    mean, var = xp.reshape(mean, gamma.shape), xp.reshape(var, gamma.shape)
    return _normalized(x, gamma, beta, mean, var, eps), mean, var


def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float = 1e-5
) -> Array:
    """``y = γ (x − μ)/√(σ² + ε) + β`` with given statistics; shapes as in :func:`batch_norm`."""
    _check_features(x, gamma, "batch_norm_inference")
    check_shapes("batch_norm_inference", tuple(gamma.shape), beta=beta, mean=mean, var=var)
    _check_variance("batch_norm_inference", var)
    return _normalized(x, gamma, beta, mean, var, eps)


def _normalized(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    xp = array_namespace(x, gamma, beta, mean, var)
    x, dtype = _widened(xp, x), x.dtype
    scale = _widened(xp, gamma) / xp.sqrt(var + eps)
    # x − μ first: with a large mean, x · scale + (β − μ · scale) would cancel.
    y = (x - per_feature(xp, mean)) * per_feature(xp, scale) + per_feature(xp, beta)
    return xp.astype(y, dtype, copy=False)


def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradients of :func:`batch_norm`, through the statistics.

    ``dβ = Σ dy``, ``dγ = Σ dy ⊙ x̂``, ``dx = γ/√(σ² + ε) · (dy − dβ/N − x̂ dγ/N)``.

    Parameters
    ----------
    dy, x : array, shape (…, N, D)
    gamma, mean, var : array, shape (D,) or (P, D)
        mean and var as :func:`batch_norm` returned them.

    Returns
    -------
    dx : array of x's shape
    dgamma, dbeta : array of gamma's shape

    Raises
    ------
    ShapeError
        If the shapes are not those of one forward.
    """
    arrays = dy, x, gamma, mean, var
    run = choose("batch_norm_backward", batch_norm_backward_reference, *arrays)
    if run is batch_norm_backward_reference:  # a kernel has looked at the shapes itself
        _check_backward("batch_norm_backward", dy, x, gamma)
        check_shapes("batch_norm_backward", tuple(gamma.shape), mean=mean, var=var)
    return run(*arrays, eps)


def batch_norm_backward_reference(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The definition, in the closed form."""
    xp = array_namespace(dy, x, gamma, mean, var)
    dtype, dy, x = x.dtype, _widened(xp, dy), _widened(xp, x)
    inv_std = 1.0 / xp.sqrt(var + eps)
    x_hat = (x - per_feature(xp, mean)) * per_feature(xp, inv_std)
    dgamma, dbeta = _parameter_sums(xp, dy, x_hat, gamma)
    rows = math.prod(x.shape[axis] for axis in _batch_axes(x, gamma))
    dx = per_feature(xp, _widened(xp, gamma) * inv_std) * (
        dy - per_feature(xp, dbeta / rows) - x_hat * per_feature(xp, dgamma / rows)
    )
    return xp.astype(dx, dtype, copy=False), *_narrowed(xp, gamma, dgamma, dbeta)


def batch_norm_inference_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradients of :func:`batch_norm_inference`: the statistics are constants."""
    _check_backward("batch_norm_inference_backward", dy, x, gamma)
    check_shapes("batch_norm_inference_backward", tuple(gamma.shape), mean=mean, var=var)
    _check_variance("batch_norm_inference_backward", var)
    xp = array_namespace(dy, x, gamma, mean, var)
    dtype, dy, x = x.dtype, _widened(xp, dy), _widened(xp, x)
    inv_std = 1.0 / xp.sqrt(var + eps)
    x_hat = (x - per_feature(xp, mean)) * per_feature(xp, inv_std)
    dgamma, dbeta = _parameter_sums(xp, dy, x_hat, gamma)
    dx = dy * per_feature(xp, _widened(xp, gamma) * inv_std)
    return xp.astype(dx, dtype, copy=False), *_narrowed(xp, gamma, dgamma, dbeta)


def layer_norm(
    x: Array, gamma: Array, beta: Array, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """``y = γ (x − μ)/√(σ² + ε) + β`` with μ, σ² over each row's features.

    Parameters
    ----------
    x : array, shape (…, D), or (P, N, D) for parameters with a population axis
    gamma, beta : array, shape (D,) or (P, D)
    eps : float
        ε.

    Returns
    -------
    y : array of x's shape
    mean, inv_std : array, shape (…, 1)
        μ and ``1/√(σ² + ε)``, for the backward pass; float32 for half-precision x.
    """
    run = choose("layer_norm", layer_norm_reference, x, gamma, beta)
    if run is layer_norm_reference:  # a kernel has looked at the shapes itself
        _check(x, gamma, "layer_norm")
        check_same_shape("layer_norm", "beta", beta, tuple(gamma.shape))
    return run(x, gamma, beta, eps)


def layer_norm_reference(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The definition."""
    xp = array_namespace(x, gamma, beta)
    wide = xp.astype(x, working_dtype(xp, x), copy=False)
    mean, centred, var = _moments(xp, wide, (-1,))
    inv_std = 1.0 / xp.sqrt(var + eps)
    y = centred * inv_std * per_feature(xp, gamma) + per_feature(xp, beta)
    return xp.astype(y, x.dtype, copy=False), mean, inv_std


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
) -> tuple[Array, Array, Array]:
    """Gradients of :func:`layer_norm`.

    With ``g = γ ⊙ dy`` and means over a row: ``dx = (g − mean(g) − x̂ mean(g ⊙ x̂)) · inv_std``.

    Returns
    -------
    dx : array of x's shape
    dgamma, dbeta : array of gamma's shape

    Raises
    ------
    ShapeError
        If the shapes are not those of one forward.
    """
    arrays = dy, x, gamma, mean, inv_std
    run = choose("layer_norm_backward", layer_norm_backward_reference, *arrays)
    if run is layer_norm_backward_reference:  # a kernel has looked at the shapes itself
        _check_backward("layer_norm_backward", dy, x, gamma)
        each_row = (*x.shape[:-1], 1)
        check_shapes("layer_norm_backward", each_row, mean=mean, inv_std=inv_std)
    return run(*arrays)


def layer_norm_backward_reference(
    dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
) -> tuple[Array, Array, Array]:
    """The definition."""
    xp = array_namespace(dy, x, gamma, mean, inv_std)
    dtype, dy, x = x.dtype, _widened(xp, dy), _widened(xp, x)
    x_hat = (x - mean) * inv_std
    g = dy * per_feature(xp, gamma)
    along = xp.mean(g * x_hat, axis=-1, keepdims=True)
    dx = (g - xp.mean(g, axis=-1, keepdims=True) - x_hat * along) * inv_std
    dgamma, dbeta = _parameter_sums(xp, dy, x_hat, gamma)
    return xp.astype(dx, dtype, copy=False), *_narrowed(xp, gamma, dgamma, dbeta)


def rms_norm(x: Array, gamma: Array, eps: float = 1e-6) -> tuple[Array, Array]:
    """``y = γ x / √(mean(x²) + ε)`` over each row's features.

    Parameters
    ----------
    x : array, shape (…, D), or (P, N, D) for parameters with a population axis
    gamma : array, shape (D,) or (P, D)
    eps : float
        ε.

    Returns
    -------
    y : array of x's shape
    inv_rms : array, shape (…, 1)
        ``1/√(mean(x²) + ε)``, for the backward pass; float32 for half-precision x.
    """
    _check(x, gamma, "rms_norm")
    xp = array_namespace(x, gamma)
    wide = xp.astype(x, working_dtype(xp, x), copy=False)
    inv_rms = 1.0 / xp.sqrt(xp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    y = wide * inv_rms * per_feature(xp, gamma)
    return xp.astype(y, x.dtype, copy=False), inv_rms


def rms_norm_backward(dy: Array, x: Array, gamma: Array, inv_rms: Array) -> tuple[Array, Array]:
    """Gradients of :func:`rms_norm`: ``dx = (g − x̂ mean(g ⊙ x̂)) · inv_rms`` with ``g = γ ⊙ dy``.

    Returns
    -------
    dx : array of x's shape
    dgamma : array of gamma's shape
    """
    _check_backward("rms_norm_backward", dy, x, gamma)
    check_same_shape("rms_norm_backward", "inv_rms", inv_rms, (*x.shape[:-1], 1))
    xp = array_namespace(dy, x, gamma, inv_rms)
    dtype, dy, x = x.dtype, _widened(xp, dy), _widened(xp, x)
    x_hat = x * inv_rms
    g = dy * per_feature(xp, gamma)
    dx = (g - x_hat * xp.mean(g * x_hat, axis=-1, keepdims=True)) * inv_rms
    dgamma, _ = _parameter_sums(xp, dy, x_hat, gamma)
    return xp.astype(dx, dtype, copy=False), *_narrowed(xp, gamma, dgamma)


def _moments(xp: Namespace, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Mean, ``x − mean`` and variance, with axes of size 1."""
    mean = mean_wide(xp, x, axes)
    centred = x - mean
    # A mean of 10⁶ is rounded to hundredths in float32: what is missing does not belong to the
    # variance.
    missing = mean_wide(xp, centred, axes)
    return mean, centred, mean_wide(xp, (centred - missing) ** 2, axes)


def _widened(xp: Namespace, x: Array) -> Array:
    """x in the dtype to compute in."""
    return xp.astype(x, working_dtype(xp, x), copy=False)


def _check_variance(where: str, var: Array) -> None:
    """Raise DataError for a negative variance, in host memory."""
    if on_host(var) and 0 not in var.shape and (least := to_numpy(var).min()) < 0:
        raise DataError(f"`{where}`: expected var ≥ 0, got {least} as its least number")


def _check(x: Array, gamma: Array, where: str) -> None:
    _check_features(x, gamma, where, least=1)


def _check_features(x: Array, gamma: Array, where: str, least: int = 0) -> None:
    """Raise ShapeError unless x has gamma's features, and so many rows."""
    for name, array in (("x", x), ("gamma", gamma)):
        check_floating(where, name, array)
    fits = x.ndim > gamma.ndim > 0 and x.shape[-1] == gamma.shape[-1]
    fits = fits and tuple(x.shape[-1 - gamma.ndim : -2]) == tuple(gamma.shape[:-1])
    if not fits or (least and 0 in x.shape):
        of_gamma = tuple(gamma.shape) or ("D",)
        lead = "".join(f"{size}, " for size in of_gamma[:-1])
        raise ShapeError(
            f"`{where}`: expected x of shape (…, {lead}N, {of_gamma[-1]}) with N ≥ {least} for "
            f"parameters of shape {tuple(gamma.shape)}, got {tuple(x.shape)}"
        )


def _check_backward(where: str, dy: Array, x: Array, gamma: Array) -> None:
    _check(x, gamma, where)
    check_same_shape(where, "dy", dy, tuple(x.shape))


def _batch_axes(x: Array, gamma: Array) -> tuple[int, ...]:
    """The axes that gamma does not have: all but the last, and but the population's."""
    kept = {x.ndim - 1} | {x.ndim - 1 - gamma.ndim + i for i in range(gamma.ndim - 1)}
    return tuple(axis for axis in range(x.ndim) if axis not in kept)


def _parameter_sums(xp: Namespace, dy: Array, x_hat: Array, gamma: Array) -> tuple[Array, Array]:
    """dγ and dβ in dy's dtype."""
    shape = tuple(per_feature(xp, gamma).shape)
    dgamma = xp.reshape(sum_to_shape(xp, dy * x_hat, shape), gamma.shape)
    return dgamma, xp.reshape(sum_to_shape(xp, dy, shape), gamma.shape)


def _narrowed(xp: Namespace, gamma: Array, *sums: Array) -> tuple[Array, ...]:
    """Gradients in gamma's dtype."""
    return tuple(xp.astype(a, gamma.dtype, copy=False) for a in sums)
