"""First-layer weights as images."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..layers import Conv2D, Linear, Matmul, SharedLinear
from ..layers.base import Layer
from .figure import finish, new_figure, on_host, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_UNITS = 64


def plot_first_layer(
    model: Layer,
    shape: Sequence[int] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """The weights into each unit of the first layer, as images.

    Parameters
    ----------
    model : Layer
        A network that starts with a Linear or Matmul of D inputs, or with a Conv2D of 1 or 3
        channels. Of a population, the units of all members.
    shape : sequence of int, optional
        How the D inputs form an image: (H, W), (H, W, 3) or (3, H, W). The kernels of a Conv2D have
        a shape of their own.
    path : path-like, optional
        Where to save the picture.

    Returns
    -------
    matplotlib.figure.Figure
        Of at most 64 units, those with the largest weights first. Grey images: orange is positive
        and purple is negative, on one scale. RGB: mid-grey is 0, each unit on its own scale.

    Raises
    ------
    ShapeError
        If the image does not have D values.
    ConfigError
        If the model has none of these layers.
    CheckpointError, MissingDependencyError
        As :func:`plot_history`.
    """
    weights = first_weights("plot_first_layer", model, shape)
    units, images = len(weights), largest(weights, _MOST_UNITS)
    grey = images.ndim == 3
    across = math.ceil(math.sqrt(len(images)))
    down = math.ceil(len(images) / across)
    figure = new_figure(max(4.5, 0.85 * across) + (1.1 if grey else 0.0), 0.8 * down + 0.5)
    shown = f"{units} units" if units == len(images) else f"{len(images)} of {units:,} units"
    figure.suptitle(f"First-layer weights: {shown}, largest first")
    tiles = np.atleast_1d(figure.subplots(down, across)).ravel()
    for axes in tiles:
        axes.set_axis_off()
    # Not the maximum: one outlier would leave all else pale.
    limit = float(np.quantile(np.abs(images), 0.998)) or 1.0
    drawn: Any = None
    for axes, image in zip(tiles, images, strict=False):
        if grey:
            drawn = axes.imshow(image, cmap="PuOr_r", vmin=-limit, vmax=limit)
        else:
            show_image(axes, 0.5 + 0.5 * image / (float(np.abs(image).max()) or 1.0))
    if grey:
        bar = figure.colorbar(drawn, ax=list(tiles), aspect=30, pad=0.03, extend="both")
        bar.set_label("Weight")
    return finish(figure, path)


def first_weights(where: str, model: Layer, shape: Sequence[int] | None) -> np.ndarray:
    """An image (H, W) or (H, W, 3) for each unit of the first layer, of all members.

    Parameters and errors as in :func:`plot_first_layer`.
    """
    for _, layer in model.named_layers():
        if isinstance(layer, Conv2D):
            kernels = on_host(layer.W).astype(np.float64)
            kernels = kernels.reshape(-1, *kernels.shape[-3:])
            if kernels.shape[1] not in (1, 3):
                raise ConfigError(
                    f"`{where}`: expected a convolution of 1 or 3 channels, which are grey or "
                    f"RGB, got {layer!r}"
                )
            return _channels_last(kernels)
        if isinstance(layer, Linear | SharedLinear | Matmul):
            W = on_host(layer.W).astype(np.float64)
            W = W if isinstance(layer, Matmul) else np.swapaxes(W, -1, -2)
            return _as_images(where, W.reshape(-1, W.shape[-1]), shape)
    raise ConfigError(
        f"`{where}`: expected a model with a Linear, Matmul or Conv2D layer, got {model!r}"
    )


def largest(images: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the images, those with the largest norms first."""
    norms = np.linalg.norm(images.reshape(len(images), -1), axis=1)
    return images[np.argsort(-norms, kind="stable")[:most]]


def _as_images(where: str, rows: np.ndarray, shape: Sequence[int] | None) -> np.ndarray:
    size = tuple(int(length) for length in shape or ())
    sides = tuple(length for length in size if length > 1) if len(size) == 3 else size
    grey = len(sides) == 2
    if math.prod(size) != rows.shape[1] or not (grey or (len(sides) == 3 and 3 in sides)):
        raise ShapeError(
            f"`{where}`: expected shape (H, W), (H, W, 3) or (3, H, W) of {rows.shape[1]} "
            f"values in all, got {shape and size}; give the shape of the images the model was "
            "trained on"
        )
    if grey or sides[-1] == 3:
        return rows.reshape(-1, *sides)
    return _channels_last(rows.reshape(-1, *sides))


def _channels_last(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N, H, W) or (N, H, W, 3)."""
    return images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)
