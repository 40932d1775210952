"""The images that a model got most wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..backend import Array
from ..errors import ConfigError, DataError, ShapeError
from .figure import GREY, class_numbers, finish, new_figure, on_host, percent, shortened, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_mistakes(
    x: Array,
    y_true: Array,
    probabilities: Array,
    classes: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    count: int = 25,
) -> Figure:
    """The images that the model got wrong with the least probability for the truth.

    Parameters
    ----------
    x : array, shape (N, S, S), (N, S, S, 3), (N, 3, S, S), or flattened to (N, S²) or (N, 3·S²)
        Square images, grey or RGB; flattened RGB is taken channel by channel.
    y_true : array of ints, shape (N,)
        Class numbers.
    probabilities : array, shape (N, C)
        What the model gave each class, such as ``model.predict_proba(x)``.
    classes : sequence of str
        The names of all C classes.
    path : path-like, optional
        Where to save the picture.
    count : int
        How many to show at most.

    Returns
    -------
    matplotlib.figure.Figure
        With a line of text in place of images if there is no mistake.

    Raises
    ------
    ShapeError
        If x does not hold square images, or lengths differ.
    DataError
        If there are no rows, class numbers out of range, or NaN among the probabilities.
    ConfigError
        If ``count`` is below 1.
    CheckpointError, MissingDependencyError
        As :func:`plot_history`.
    """
    where, names = "plot_mistakes", [str(name) for name in classes]
    if count < 1:
        raise ConfigError(f"`{where}`: expected count ≥ 1, got {count}")
    truth = class_numbers(where, "y_true", y_true, len(names))
    p, images = on_host(probabilities), _images(where, on_host(x))
    if p.shape != (len(truth), len(names)) or len(images) != len(truth):
        raise ShapeError(
            f"`{where}`: expected probabilities of shape ({len(truth)}, {len(names)}) and as many "
            f"images, for {len(truth)} labels and {len(names)} classes, got {p.shape} and "
            f"{len(images)} images"
        )
    if not np.isfinite(p).all():
        raise DataError(f"`{where}`: expected finite probabilities, got NaN or infinite ones")
    predicted = p.argmax(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    worst = wrong[np.argsort(p[wrong, truth[wrong]], kind="stable")][:count]
    across = max(1, math.ceil(math.sqrt(len(worst))))
    down = max(1, math.ceil(len(worst) / across))
    figure = new_figure(max(4.5, 1.6 * across), 1.93 * down + 0.5)
    if not len(worst):
        figure.text(0.5, 0.45, f"No mistake among {len(truth):,} images", ha="center", color=GREY)
        return finish(figure, path)
    figure.suptitle(_mistakes_title(len(worst), len(wrong), len(truth)))
    low, high = float(images[worst].min()), float(images[worst].max())
    tiles = np.atleast_1d(figure.subplots(down, across)).ravel()
    for axes in tiles:
        axes.set_axis_off()
    for axes, index in zip(tiles, worst, strict=False):
        show_image(axes, (images[index] - low) / ((high - low) or 1.0))
        said = predicted[index]
        is_said, is_true = (
            f"{shortened(names[number])} ({percent(float(p[index, number]))})"
            for number in (said, truth[index])
        )
        axes.set_title(f"said {is_said}\ntrue {is_true}", fontsize=8, loc="left")
    return finish(figure, path)


def _images(where: str, x: np.ndarray) -> np.ndarray:
    """Square images as (N, S, S) or (N, S, S, 3), in float64."""
    images = x.astype(np.float64) if x.dtype.kind in "buif" else x
    if x.ndim == 2:
        for channels in (1, 3):
            side = math.isqrt(x.shape[1] // channels)
            if side and channels * side * side == x.shape[1]:
                images = images.reshape(len(x), channels, side, side)
                break
    if images.ndim == 4 and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, -1)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    square = images.ndim >= 3 and images.shape[1] == images.shape[2]
    if not square or images.shape[3:] not in ((), (3,)) or images.dtype.kind != "f":
        raise ShapeError(
            f"`{where}`: expected square images (N, S, S), (N, S, S, 3), (N, 3, S, S) or "
            f"flattened ones (N, S²), got {x.dtype} {x.shape}; reshape x to its images"
        )
    return images


def _mistakes_title(shown: int, wrong: int, rows: int) -> str:
    many = f"{wrong:,} mistake{'' if wrong == 1 else 's'} among {rows:,} images"
    return many if shown == wrong else f"The {shown} worst of {many}"
