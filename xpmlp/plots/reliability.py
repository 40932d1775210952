"""The reliability diagram: how often a classifier is right, against how sure it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..backend import Array
from ..calibration import reliability
from .figure import BLUE, GREY, ORANGE, finish, new_figure, plain_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_reliability(
    probabilities: Array,
    targets: Array,
    path: str | os.PathLike[str] | None = None,
    *,
    bins: int = 15,
    title: str = "Reliability",
) -> Figure:
    """Accuracy against confidence, and how many rows there are of each confidence.

    Bars that reach the diagonal are calibrated; below it, the classifier is surer than it should
    be.

    Parameters
    ----------
    probabilities : array, shape (N, C)
    targets : array of ints, shape (N,)
    path : path-like, optional
        Where to save the picture.
    bins : int
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError, DataError, ConfigError
        As :func:`xpmlp.calibration.reliability`.
    CheckpointError, MissingDependencyError
        As :func:`plot_history`.
    """
    found = reliability(probabilities, targets, bins)
    filled = found.counts > 0
    left, width = found.edges[:-1][filled], 1.0 / bins
    figure = new_figure(4.6, 5.2)
    figure.suptitle(plain_words(title))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.0, 1.0])
    upper.bar(
        left,
        found.accuracy[filled],
        width,
        align="edge",
        color=BLUE,
        edgecolor="white",
        alpha=0.45,
        label="accuracy",
    )
    upper.plot(
        found.confidence[filled],
        found.confidence[filled],
        "_",
        color=ORANGE,
        markersize=11,
        markeredgewidth=2.2,
        label="confidence",
    )
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.0, label="calibrated")
    upper.set_ylabel("Share of rows that are right")
    upper.set_ylim(0.0, 1.02)
    upper.legend(loc="best", framealpha=0.9)
    upper.set_title(f"calibration error {100 * found.error:.2f} %", fontsize="medium")
    lower.bar(left, found.counts[filled], width, align="edge", color=GREY, edgecolor="white")
    if np.max(found.counts) > 100 * np.min(found.counts[filled]):
        lower.set_yscale("log")
    lower.set_xlabel("Largest probability")
    lower.set_ylabel("Rows")
    lower.set_xlim(0.0, 1.0)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return finish(figure, path)
