"""The confusion matrix."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..backend import Array
from ..errors import ShapeError
from ..metrics import confusion_matrix
from .figure import GREY, class_numbers, finish, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW_CLASSES = 25  # up to here, counts are written into the cells


def plot_confusion(
    y_true: Array,
    y_pred: Array,
    classes: Sequence[str],
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """How often each class was taken for each other one.

    A row is a true class: its colours are shares of that class, its numbers are counts, and on the
    right is the share that was recognised (recall).

    Parameters
    ----------
    y_true, y_pred : array of ints, shape (N,)
        Class numbers.
    classes : sequence of str
        The names of all C classes.
    path : path-like, optional
        Where to save the picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        If lengths differ.
    DataError
        If there are no rows, or class numbers out of range.
    CheckpointError, MissingDependencyError
        As :func:`plot_history`.
    """
    where, names = "plot_confusion", [str(name) for name in classes]
    truth = class_numbers(where, "y_true", y_true, len(names))
    predicted = class_numbers(where, "y_pred", y_pred, len(names))
    if truth.shape != predicted.shape:
        raise ShapeError(
            f"`{where}`: expected y_true and y_pred of one length, got {truth.shape} and "
            f"{predicted.shape}"
        )
    counts = confusion_matrix(truth, predicted, len(names))
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    side = min(12.0, max(4.2, 0.52 * len(names) + 1.6))
    figure = new_figure(side + 1.6, side)
    axes = figure.subplots()
    from matplotlib.colors import PowerNorm

    # A square root makes the few mistakes visible beside the many hits.
    # Not of aspect "equal": axes made smaller by it push their labels out of the picture.
    norm = PowerNorm(0.5, 0.0, 1.0)
    image = axes.imshow(shares, cmap="Blues", norm=norm, aspect="auto")
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02, ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "5 %", "25 %", "50 %", "100 %"])
    bar.set_label("Share of the true class")
    every = math.ceil(len(names) / 40)
    ticks = list(range(0, len(names), every))
    shown = [shortened(names[tick]) for tick in ticks]
    long = max(len(name) for name in shown) > 3
    axes.set_xticks(ticks, shown, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_yticks(ticks, shown)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    right = sum(np.diag(counts))
    axes.set_title(f"{100 * right / len(truth):.2f} % right ({right:,} of {len(truth):,})")
    recall = axes.secondary_yaxis("right")
    recall.set_yticks(ticks, [f"{100 * shares[i, i]:.1f} %" if totals[i] else "–" for i in ticks])
    recall.tick_params(length=0, labelcolor=GREY)
    recall.set_ylabel("Recall", color=GREY)
    if len(names) <= _FEW_CLASSES:
        size = 9 if counts.max() < 10_000 else 7
        for row, column in np.argwhere(counts):
            dark = shares[row, column] > 0.3  # where Blues is too dark for black letters
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                color="white" if dark else "black",
                fontsize=size,
            )
    return finish(figure, path)
