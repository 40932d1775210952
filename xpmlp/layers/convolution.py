"""Convolution of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array, asarray
from ..choices import BiasInitializerName, FloatName, InitializerName
from ..errors import ConfigError, ShapeError
from ..initializers import (
    DEFAULT,
    Initializer,
    as_bias_initializer,
    as_initializer,
    default_bias,
    drawn,
    of_kernels,
)
from ..ops.windows import check_images, pair, windows_of
from ..options import FLAG, Number
from ..random import Generator, as_generator
from .base import FLOAT, Layer, Parameter
from .linear import in_dtype_of


class Conv2D(Layer):
    """``y[m, h, w] = b[m] + Σ_{c,i,j} W[m, c, i, j] · x[c, s h + d i − p, s w + d j − p]``.

    Parameters
    ----------
    channels, outputs : int
        C and M.
    size : int or (int, int)
        kH, kW, of the kernel.
    stride, padding, dilation : int or (int, int)
        s, p, d: for both axes, or for height and width. What lies outside of an image is 0;
        ``padding=size // 2`` keeps the image's size for an odd one and a stride of 1.
    groups : int
        G: the m-th part of the outputs sees the m-th part of the channels alone. With G = C each
        channel is by itself ("depthwise").
    bias : bool
    init : str, float or Initializer
        How W starts; see :class:`Linear`. The fan-in is ``C/G · kH · kW``, the fan-out
        ``M · kH · kW``.
    bias_init : str, float or Initializer, optional
        How b starts; by default as in :class:`Linear`.
    population : int, optional
        P: W and b with a leading axis.
    rng : Generator, int or P ints, optional
    dtype : str

    Attributes
    ----------
    W, b, dW, db : array
        Parameters (M, C/G, kH, kW), (M,), with a leading P in a population, and their gradients.

    Raises
    ------
    ConfigError
        For options out of range, or groups that do not divide C and M.

    Notes
    -----
    x (…, N, C, H, W), of any leading axes: channels come before height and width ("NCHW"). Strictly
    this is a cross-correlation: the kernel is not flipped, as in all frameworks. Source: LeCun et
    al. 1989; the arithmetic of options, Dumoulin and Visin 2016.

    Examples
    --------
    >>> layer = Conv2D(3, 16, 3, padding=1)
    >>> y = layer.forward(x)                       # x (N, 3, 32, 32) to (N, 16, 32, 32)
    """

    W = Parameter(weight=True)
    b = Parameter()

    def __init__(
        self,
        channels: int,
        outputs: int,
        size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        init: InitializerName | float | Initializer = DEFAULT,
        bias_init: BiasInitializerName | float | Initializer | None = None,
        population: int | None = None,
        rng: Generator | int | Sequence[int] | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__()
        where, counts = "Conv2D", Number("[1, inf)", whole=True)
        channels = counts.check(where, "channels", channels)
        outputs = counts.check(where, "outputs", outputs)
        self.groups = counts.check(where, "groups", groups)
        if channels % self.groups or outputs % self.groups:
            raise ConfigError(
                f"`{where}`: expected groups to divide the {channels} channels and the {outputs} "
                f"outputs, got {groups}"
            )
        P = Number("[1, inf)", whole=True, optional=True).check(where, "population", population)
        self.population = P
        kernel = pair(where, "size", size, 1)
        self.stride = pair(where, "stride", stride, 1)
        self.padding = pair(where, "padding", padding, 0)
        self.dilation = pair(where, "dilation", dilation, 1)
        dtype = FLOAT.check(where, "dtype", dtype)
        shape = (outputs, channels // self.groups, *kernel)
        places, fan_in = kernel[0] * kernel[1], int(np.prod(shape[1:]))
        of: Any = fan_in, outputs, as_generator(rng, P).spawn()
        weights = of_kernels(as_initializer(init), places)
        drawn_W = np.swapaxes(drawn(weights, *of, bias=False), -1, -2)
        self.W = asarray(drawn_W.reshape(*drawn_W.shape[:-2], *shape), dtype)
        if FLAG.check(where, "bias", bias):
            start = default_bias(init) if bias_init is None else bias_init
            biases = of_kernels(as_bias_initializer(start), places)
            self.b = asarray(drawn(biases, *of, bias=True), dtype)

    @property
    def options(self) -> dict[str, Any]:
        """Stride, padding, dilation and groups, as the op takes them."""
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    def describe(self) -> str:
        M, C = self.W.shape[-4:-2]
        usual = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        said = [f"{C * self.groups}, {M}, {in_short(tuple(self.W.shape[-2:]))}"]
        for name, value in self.options.items():
            if value != usual[name]:
                said.append(f"{name}={in_short(value)}")
        return ", ".join(said) + ("" if self.b is not None else ", bias=False")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        M, C = self.W.shape[-4:-2]
        if len(shape) < 3 or shape[-3] != C * self.groups:
            raise ShapeError(
                f"`Conv2D`: expected x of shape (…, {C * self.groups}, H, W), got {shape}"
            )
        windows = windows_of("Conv2D", self.W.shape[-2:], self.stride, self.padding, self.dilation)
        return (*shape[:-3], M, *windows.count("Conv2D", *shape[-2:]))

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, N, C, H, W) to (…, N, M, Ho, Wo)."""
        x = in_dtype_of("Conv2D.forward", x, self.W)
        check_images("Conv2D.forward", "x", x, self.W.shape[-3] * self.groups)
        y = ops.conv2d(x, self.W, self.b, **self.options)
        self._saved = x
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array:
        """dx, or None if ``input_grad`` is False; assigns ``dW`` and ``db``."""
        x = self._recall()
        options = self.options | {"input_grad": input_grad}
        dx, dW, db = ops.conv2d_backward(dy, x, self.W, **options)
        self.grads = {"W": dW} if self.b is None else {"W": dW, "b": db}
        return dx


def in_short(value: Any) -> Any:
    """A pair of equals as one number."""
    return value[0] if isinstance(value, tuple) and value[0] == value[1] else value
