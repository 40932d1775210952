"""Normalization of images, with a scale and a shift for each channel."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..backend import Array, array_namespace
from ..choices import FloatName
from ..errors import ConfigError
from ..ops.shapes import check_floating
from ..ops.windows import check_images
from ..options import Number
from .base import Parameter, check_array
from .normalization import BatchNorm, _Scaled


class BatchNorm2D(BatchNorm):
    """Standardise every channel over all pixels of the batch ("spatial" batch normalization).

    Parameters
    ----------
    features : int
        C.
    convention, keep, eps, population, dtype
        As in :class:`BatchNorm`.

    Notes
    -----
    x (…, N, C, H, W), or (P, N, C, H, W) for a population. It is :class:`BatchNorm` with each pixel
    as a row.
    """

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, N, C, H, W) to the same shape.

        Raises
        ------
        ShapeError
            If x has another shape, or in training only one pixel: that has no variance.
        """
        where = "BatchNorm2D.forward"
        check_array(where, "x", x)
        check_images(where, "x", x, self.features)
        return rows_as_images(super().forward(pixels_as_rows(x), training), x)

    def backward(self, dy: Array) -> Array:
        """dx, through the batch's statistics if the forward was one of training."""
        self._recall()
        check_images("BatchNorm2D.backward", "dy", dy, self.features)
        return rows_as_images(super().backward(pixels_as_rows(dy)), dy)


class GroupNorm(_Scaled):
    """Standardise every image over the pixels of each group of channels, then scale by γ, add β.

    Parameters
    ----------
    groups : int
        G, which divides C. 1 takes all of an image together, C each channel by itself ("instance
        normalization").
    features : int
        C: γ and β have a number for each channel.
    eps : float
    population : int, optional
        P: parameters (P, C) for x (P, N, C, H, W).
    dtype : str

    Raises
    ------
    ConfigError
        For options out of range, or groups that do not divide C.

    Notes
    -----
    x (…, C, H, W). Training and evaluation are the same. Source: Wu and He 2018.
    """

    beta = Parameter()
    groups: Any = Number("[1, inf)", whole=True)

    def __init__(
        self,
        groups: int,
        features: int,
        *,
        eps: float = 1e-5,
        population: int | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__(features, population, dtype)
        self.groups, self.eps = groups, eps
        if self.features % self.groups:
            raise ConfigError(
                f"`GroupNorm`: expected groups to divide the {features} channels, got {groups}"
            )
        self.beta = self._filled(0.0)

    def describe(self) -> str:
        return f"{self.groups}, {self.features}"

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, C, H, W) to the same shape."""
        check_array("GroupNorm.forward", "x", x)
        check_floating("GroupNorm.forward", "x", x)
        y, mean, inv_std = ops.group_norm(x, self.gamma, self.beta, self.groups, self.eps)
        self._saved = x, mean, inv_std
        return y

    def backward(self, dy: Array) -> Array:
        """dx, in x's shape."""
        x, mean, inv_std = self._recall()
        dx, dgamma, dbeta = ops.group_norm_backward(dy, x, self.gamma, mean, inv_std)
        self.grads = {"gamma": dgamma, "beta": dbeta}
        return dx


def pixels_as_rows(x: Array) -> Array:
    """(…, N, C, H, W) as (…, N · H · W, C)."""
    xp, (C, H, W) = array_namespace(x), x.shape[-3:]
    lead, count = x.shape[:-4], x.shape[-4] if x.ndim > 3 else 1
    return xp.reshape(xp.moveaxis(x, -3, -1), (*lead, count * H * W, C))


def rows_as_images(rows: Array, x: Array) -> Array:
    """The way back, to x's shape."""
    xp, (C, H, W) = array_namespace(rows), x.shape[-3:]
    return xp.moveaxis(xp.reshape(rows, (*x.shape[:-3], H, W, C)), -1, -3)
