"""First-layer weights as images."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..layers import Linear, Matmul
from ..layers.base import Layer
from .figure import finish, new_figure, on_host, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_UNITS = 64


def plot_first_layer(
    model: Layer, shape: Sequence[int], path: str | os.PathLike[str] | None = None
) -> Figure:
    """The weights into each unit of the first layer, as images.

    Parameters
    ----------
    model : Layer
        A network that starts with a Linear or Matmul of D inputs.
    shape : sequence of int
        How the D inputs form an image: (H, W), (H, W, 3) or (3, H, W).
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
        If the image does not have D values, or the model is a population.
    ConfigError
        If the model has no Linear or Matmul.
    CheckpointError, MissingDependencyError
        As :func:`plot_history`.
    """
    where = "plot_first_layer"
    weights = first_weights(where, model)
    size = tuple(int(length) for length in shape)
    grey = len(size) == 2
    if math.prod(size) != weights.shape[1] or not (grey or (len(size) == 3 and 3 in size)):
        raise ShapeError(
            f"`{where}`: expected shape (H, W), (H, W, 3) or (3, H, W) of {weights.shape[1]} "
            f"values in all, got {size}; give the shape of the images the model was trained on"
        )
    units = len(weights)
    order = np.argsort(-np.linalg.norm(weights, axis=1), kind="stable")[:_MOST_UNITS]
    images = weights[order].reshape(-1, *size)
    if not grey and size[-1] != 3:
        images = np.moveaxis(images, 1, -1)
    across = math.ceil(math.sqrt(len(order)))
    down = math.ceil(len(order) / across)
    figure = new_figure(max(4.5, 0.85 * across) + (1.1 if grey else 0.0), 0.8 * down + 0.5)
    shown = f"{units} units" if units == len(order) else f"{len(order)} of {units:,} units"
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


def first_weights(where: str, model: Layer) -> np.ndarray:
    """One row of D weights for each unit of the first Linear or Matmul."""
    for _, layer in model.named_layers():
        if isinstance(layer, Linear | Matmul):
            W = on_host(layer.W).astype(np.float64)
            if W.ndim != 2:
                raise ShapeError(
                    f"`{where}`: expected a single network, got a population with weights "
                    f"{W.shape}; plot one member: Linear.from_arrays(layer.W[i])"
                )
            return W.T if isinstance(layer, Linear) else W
    raise ConfigError(f"`{where}`: expected a model with a Linear or Matmul layer, got {model!r}")
