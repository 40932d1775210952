"""Group normalization of images and its backward pass. Source: Wu and He 2018."""

from __future__ import annotations

from typing import Any

from ..backend import Array, Namespace, array_namespace
from ..errors import ConfigError, ShapeError
from .shapes import check_same_shape, mean_wide, sum_to_shape, working_dtype
from .windows import check_images


def group_norm(
    x: Array, gamma: Array, beta: Array, groups: int, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """``y = γ (x − μ)/√(σ² + ε) + β`` with μ, σ² over the pixels of a group of channels.

    Parameters
    ----------
    x : array, shape (…, C, H, W), or (P, N, C, H, W) for parameters with a population axis
    gamma, beta : array, shape (C,) or (P, C)
        A number for each channel.
    groups : int
        G, which divides C: 1 takes each image as a whole, C each of its channels.
    eps : float
        ε.

    Returns
    -------
    y : array of x's shape
    mean, inv_std : array, shape (…, G, 1)
        μ and ``1/√(σ² + ε)``, for the backward pass; float32 for half-precision x.

    Raises
    ------
    ShapeError
        If x's channels (and population axis) differ from gamma's.
    ConfigError
        If groups do not divide the channels.
    """
    _check("group_norm", x, gamma, groups)
    check_same_shape("group_norm", "beta", beta, tuple(gamma.shape))
    xp = array_namespace(x, gamma, beta)
    wide = _grouped(xp, x, groups)
    mean = mean_wide(xp, wide, (wide.ndim - 1,))
    # The mean of float32 is rounded: what it missed is the mean of the differences.
    centred = wide - mean
    missed = mean_wide(xp, centred, (wide.ndim - 1,))
    mean, centred = mean + missed, centred - missed
    inv_std = 1.0 / xp.sqrt(mean_wide(xp, centred * centred, (wide.ndim - 1,)) + eps)
    x_hat = xp.reshape(centred * inv_std, x.shape)
    y = x_hat * _each_channel(xp, gamma) + _each_channel(xp, beta)
    return xp.astype(y, x.dtype, copy=False), mean, inv_std


def group_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
) -> tuple[Array, Array, Array]:
    """Gradients of :func:`group_norm`, through the statistics.

    With ``g = γ dy``: ``dx = (g − mean(g) − x̂ mean(g x̂))/√(σ² + ε)``, means over a group;
    ``dγ = Σ dy x̂``, ``dβ = Σ dy``.

    Parameters
    ----------
    dy, x : array, shape (…, C, H, W)
    gamma, mean, inv_std : array
        mean and inv_std as :func:`group_norm` returned them.

    Returns
    -------
    dx : array of x's shape
    dgamma, dbeta : array of gamma's shape

    Raises
    ------
    ShapeError
        If the shapes are not those of one forward.
    """
    where = "group_norm_backward"
    groups = mean.shape[-2] if mean.ndim > 1 else 0
    _check(where, x, gamma, groups)
    check_same_shape(where, "dy", dy, tuple(x.shape))
    for name, array in (("mean", mean), ("inv_std", inv_std)):
        check_same_shape(where, name, array, (*x.shape[:-3], groups, 1))
    xp = array_namespace(dy, x, gamma, mean, inv_std)
    x_hat = (_grouped(xp, x, groups) - mean) * inv_std
    slopes = xp.astype(dy, x_hat.dtype, copy=False)
    g, along = _grouped(xp, slopes * _each_channel(xp, gamma), groups), (x_hat.ndim - 1,)
    dx = (g - mean_wide(xp, g, along) - x_hat * mean_wide(xp, g * x_hat, along)) * inv_std
    shape = tuple(_each_channel(xp, gamma).shape)
    dgamma = sum_to_shape(xp, slopes * xp.reshape(x_hat, x.shape), shape)
    sums = dgamma, sum_to_shape(xp, slopes, shape)
    of_parameters = (
        xp.astype(xp.reshape(each, gamma.shape), gamma.dtype, copy=False) for each in sums
    )
    return xp.astype(xp.reshape(dx, x.shape), x.dtype, copy=False), *of_parameters


def _check(where: str, x: Array, gamma: Array, groups: Any) -> None:
    check_images(where, "x", x, gamma.shape[-1])
    if gamma.ndim == 2 and (x.ndim < 5 or x.shape[-5] != gamma.shape[0]):
        raise ShapeError(
            f"`{where}`: expected x of shape ({gamma.shape[0]}, N, C, H, W) for a population, got "
            f"{tuple(x.shape)}"
        )
    if not isinstance(groups, int) or groups < 1 or gamma.shape[-1] % groups:
        raise ConfigError(
            f"`{where}`: expected groups to divide the {gamma.shape[-1]} channels, got "
            f"{groups!r:.80}"
        )


def _grouped(xp: Namespace, x: Array, groups: int) -> Array:
    """(…, C, H, W) as (…, G, C/G · H · W), in the dtype to compute in."""
    C, H, W = x.shape[-3:]
    wide = xp.astype(x, working_dtype(xp, x), copy=False)
    return xp.reshape(wide, (*x.shape[:-3], groups, C // groups * H * W))


def _each_channel(xp: Namespace, p: Array) -> Array:
    """(C,) as (C, 1, 1), (P, C) as (P, 1, C, 1, 1)."""
    p = xp.astype(p, working_dtype(xp, p), copy=False)
    return xp.reshape(p, (*p.shape[:-1], *((1,) if p.ndim > 1 else ()), p.shape[-1], 1, 1))
