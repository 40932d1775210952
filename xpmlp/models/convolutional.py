"""Convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..choices import ActivationName, FloatName, InitializerName, NormalizationName, Output
from ..errors import ConfigError
from ..initializers import DEFAULT, DEFAULT_OUTPUT, Initializer
from ..layers import BatchNorm2D, Conv2D, Dropout, Flatten, Layer, Linear, MaxPool2D, Unflatten
from ..layers.activations import ACTIVATIONS
from ..ops.dropout import RATE
from ..ops.shapes import check_choice
from ..options import Number
from ..random import as_generator
from .network import OUTPUTS, Network

_SIZE = Number("[1, inf)", whole=True)


class ConvNet(Network):
    """Conv2D – [normalization] – activation – MaxPool2D, repeated, and a last Linear.

    Parameters
    ----------
    sizes : sequence
        ``[(1, 28, 28), 32, 64, 10]``: an image (C, H, W), channels of each convolution, outputs.
        The image may be given as ``image=`` instead, and its count of numbers stand here.
    image : (int, int, int), optional
        C, H, W.
    size : int
        Of all kernels, odd. Padding keeps an image's size, and each pooling halves it.
    activation : str
        A name in ``xpmlp.layers.activations.ACTIVATIONS``.
    normalization : {None, "batchnorm"}
        Of each channel, after each convolution.
    dropout : float
        The probability to drop, before the last Linear.
    output : {"softmax", "sigmoid", "identity"}
        What the outputs mean; see :class:`FullyConnectedNet`.
    init : str, float or Initializer, optional
        How weights start; by default ``"glorot_uniform"``, and ``"fan_in_uniform"`` in the last
        layer.
    seed : int
        Of the initial weights and dropout masks.
    dtype : str

    Raises
    ------
    ConfigError
        For options out of range, or more poolings than an image can be halved.

    Notes
    -----
    x (N, C, H, W), or (N, …) with so many numbers, such as (N, 28, 28) of gray images.

    Examples
    --------
    >>> model = ConvNet([(3, 32, 32), 32, 64, 128, 10], normalization="batchnorm")
    >>> logits = model.forward(x)                  # x (N, 3, 32, 32)
    """

    def __init__(
        self,
        sizes: Sequence[Any],
        *,
        image: Sequence[int] | None = None,
        size: int = 3,
        activation: ActivationName = "relu",
        normalization: NormalizationName | None = None,
        dropout: float = 0.0,
        output: Output = "softmax",
        init: InitializerName | float | Initializer | None = None,
        seed: int = 0,
        dtype: FloatName = "float32",
    ):
        where = "ConvNet"
        check_choice(where, "activation", activation, tuple(ACTIVATIONS))
        check_choice(where, "normalization", normalization, (None, "batchnorm"))
        check_choice(where, "output", output, OUTPUTS)
        image, (*channels, outputs) = _sizes(sizes, image)
        size = _SIZE.check(where, "size", size)
        if size % 2 == 0:
            raise ConfigError(f"`{where}`: expected size to be odd, got {size}")
        dropout = RATE.check(where, "dropout", dropout)
        if not isinstance(dropout, float):
            raise ConfigError(f"`{where}`: expected dropout as one number, got {dropout}")
        halved = min(image[1:]) >> len(channels)
        if halved < 1:
            raise ConfigError(
                f"`{where}`: expected images that can be halved {len(channels)} times, once for "
                f"each convolution, got {image[1]} × {image[2]}; leave out some"
            )
        rng = as_generator(seed, None)
        common: dict[str, Any] = {"rng": rng, "dtype": dtype}
        hidden = DEFAULT if init is None else init
        layers: list[Layer] = [Unflatten(image)]
        for before, after in pairwise([image[0], *channels]):
            layers.append(Conv2D(before, after, size, padding=size // 2, init=hidden, **common))
            if normalization is not None:
                layers.append(BatchNorm2D(after, dtype=dtype))
            layers += [ACTIVATIONS[activation](), MaxPool2D(2)]
        height, width = (n >> len(channels) for n in image[1:])
        flat = (channels or image)[-1 if channels else 0] * height * width
        layers.append(Flatten(3))
        if dropout:
            layers.append(Dropout(dropout, rng=rng))
        else:
            rng.spawn()  # the last layer starts the same with and without dropout
        last = DEFAULT_OUTPUT if init is None else init
        layers.append(Linear(flat, outputs, init=last, **common))
        super().__init__(*layers)
        self.output, self.dtype = output, dtype
        self.config: dict[str, Any] = {
            "sizes": [math.prod(image), *channels, outputs],
            "image": list(image),
            "size": size,
            "activation": activation,
            "normalization": normalization,
            "dropout": dropout,
            "output": output,
            "init": init if isinstance(init, str | int | float) else None,
            "seed": seed,
            "dtype": dtype,
        }
        """Everything needed to build this network again: ``ConvNet(**model.config)``."""


def weights_of(config: dict[str, Any]) -> int:
    """At least so many weights has the network that ``config`` builds."""
    places = [config["image"][0], *config["sizes"][1:-1]]
    return config["size"] ** 2 * sum(a * b for a, b in pairwise(places))


def _sizes(sizes: Any, image: Any) -> tuple[tuple[int, int, int], list[int]]:
    """The image, and the channels and outputs."""
    where = "ConvNet"
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) < 2:
        raise ConfigError(
            f"`{where}`: expected sizes such as [(1, 28, 28), 32, 64, 10], got {sizes!r:.200}"
        )
    first, *others = sizes
    if image is None:
        image, first = first, None
    if not isinstance(image, Sequence) or len(image) != 3:
        raise ConfigError(
            f"`{where}`: expected an image (C, H, W) first, or as image=, got {image!r:.200}"
        )
    C, H, W = (_SIZE.check(where, "image", n) for n in image)
    if first is not None and tuple(first if isinstance(first, Sequence) else [first]) not in (
        (C * H * W,),
        (C, H, W),
    ):
        raise ConfigError(
            f"`{where}`: expected {C * H * W} inputs, as an image of {(C, H, W)} has, got {first!r}"
        )
    return (C, H, W), [_SIZE.check(where, "sizes", n) for n in others]
