"""Pooling of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import ops
from ..backend import Array
from ..errors import ConfigError
from ..ops.windows import Windows, check_images, pair
from ..options import Flag
from .base import Layer, check_array
from .convolution import in_short


class _Pool2D(Layer):
    """Windows of each channel by itself; x (…, C, H, W) to (…, C, Ho, Wo)."""

    def __init__(
        self,
        size: int | Sequence[int],
        stride: int | Sequence[int] | None,
        padding: int | Sequence[int],
    ):
        super().__init__()
        where = type(self).__name__
        self.size = pair(where, "size", size, 1)
        self.stride = self.size if stride is None else pair(where, "stride", stride, 1)
        self.padding = pair(where, "padding", padding, 0)
        if any(2 * p > k for p, k in zip(self.padding, self.size, strict=True)):
            raise ConfigError(
                f"`{where}`: expected padding of at most half the size {self.size}, got "
                f"{self.padding}; a window would be all outside of the image"
            )

    @property
    def options(self) -> dict[str, Any]:
        """What the op takes."""
        return {"size": self.size, "stride": self.stride, "padding": self.padding}

    def describe(self) -> str:
        said = [str(in_short(self.size))]
        if self.stride != self.size:
            said.append(f"stride={in_short(self.stride)}")
        if self.padding != (0, 0):
            said.append(f"padding={in_short(self.padding)}")
        return ", ".join(said)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        windows = Windows(self.size, self.stride, self.padding)
        return (*shape[:-2], *windows.count(type(self).__name__, *shape[-2:]))

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, C, H, W) to (…, C, Ho, Wo)."""
        where = f"{type(self).__name__}.forward"
        check_array(where, "x", x)
        check_images(where, "x", x)
        y = self._pool(x)
        self._saved = x
        return y

    def _pool(self, x: Array) -> Array:
        raise NotImplementedError


class MaxPool2D(_Pool2D):
    """The largest number of each window: ``y[h, w] = max_{i,j} x[s h + i − p, s w + j − p]``.

    Parameters
    ----------
    size : int or (int, int)
        Of a window: for both axes, or height and width.
    stride : int or (int, int), optional
        s; by default the size, so that windows do not overlap.
    padding : int or (int, int)
        p, at most half the size; what lies outside is −∞, and is never taken.

    Raises
    ------
    ConfigError
        For options out of range.

    Notes
    -----
    Of equal largest numbers the first gets the gradient, row by row inside the window, as in
    PyTorch. A last row or column that no whole window covers is left out.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
    ):
        super().__init__(size, stride, padding)

    def _pool(self, x: Array) -> Array:
        return ops.max_pool2d(x, **self.options)

    def backward(self, dy: Array) -> Array:
        """dx: dy at each window's largest number, 0 elsewhere; sums where windows overlap."""
        return ops.max_pool2d_backward(dy, self._recall(), **self.options)


class AvgPool2D(_Pool2D):
    """The mean of each window.

    Parameters
    ----------
    size, stride, padding
        As in :class:`MaxPool2D`; but what lies outside is 0.
    count_padding : bool
        Whether places outside of the image count (torch's ``count_include_pad=True``, and its
        default), or the mean is over those inside alone.

    Raises
    ------
    ConfigError
        For options out of range.
    """

    count_padding: Any = Flag()

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        count_padding: bool = True,
    ):
        super().__init__(size, stride, padding)
        self.count_padding = count_padding

    @property
    def options(self) -> dict[str, Any]:
        """What the op takes."""
        return super().options | {"count_padding": self.count_padding}

    def describe(self) -> str:
        return super().describe() + ("" if self.count_padding else ", count_padding=False")

    def _pool(self, x: Array) -> Array:
        return ops.avg_pool2d(x, **self.options)

    def backward(self, dy: Array) -> Array:
        """dx: dy divided among each window's places."""
        return ops.avg_pool2d_backward(dy, self._recall(), **self.options)


class GlobalAvgPool2D(Layer):
    """The mean of each channel of an image: x (…, C, H, W) to (…, C, 1, 1).

    Notes
    -----
    A :class:`Linear` or a :class:`Flatten` after it joins the three axes. Source: Lin, Chen and Yan
    2013, "Network in network".
    """

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-2], 1, 1)

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, C, H, W) to (…, C, 1, 1)."""
        check_array("GlobalAvgPool2D.forward", "x", x)
        check_images("GlobalAvgPool2D.forward", "x", x)
        y = ops.global_avg_pool2d(x)
        self._saved = x
        return y

    def backward(self, dy: Array) -> Array:
        """dx: ``dy / (H W)`` at each pixel."""
        return ops.global_avg_pool2d_backward(dy, self._recall())
