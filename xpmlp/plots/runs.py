"""The curves of several trainings over each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .figure import BLUE, GREY, ORANGE, finish, new_figure, plain_words, shortened
from .history import PANELS, columns_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#000000", "#56B4E9", GREY)
_DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
_PARTS = ("val", "ensemble", "train")


def plot_runs(
    histories: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "Trainings",
) -> Figure:
    """What several trainings were judged by, epoch by epoch.

    Parameters
    ----------
    histories : mapping of str to History, sequence of mappings, or mapping of sequences
        By the name of the training. Of each the validation is drawn, or, where it had none, the
        training data.
    path : path-like, optional
        Where to save the picture.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If there is no training, or one without rows or with no column that could be drawn.
    CheckpointError, MissingDependencyError
        As :func:`plot_history`.
    """
    tables = {name: columns_of("plot_runs", history) for name, history in histories.items()}
    panels = [
        (figure, label)
        for figure, label in PANELS
        if any(_judged(columns, figure) for columns in tables.values())
    ]
    if not panels:
        raise DataError(
            "`plot_runs`: expected trainings with columns such as val_loss or train_loss, got "
            f"{', '.join(tables) or 'none'}"
        )
    figure_ = new_figure(4.6 * len(panels) + 0.4, 4.2)
    figure_.suptitle(plain_words(title))
    all_axes = np.atleast_1d(figure_.subplots(1, len(panels)))
    for axes, (figure, label) in zip(all_axes, panels, strict=True):
        scale = 100.0 if figure == "accuracy" else 1.0
        for place, (name, columns) in enumerate(tables.items()):
            column = _judged(columns, figure)
            if column is None:
                continue
            axes.plot(
                columns["epoch"],
                scale * columns[column],
                color=_COLORS[place % len(_COLORS)],
                linestyle=_DASHES[place % len(_DASHES)],
                label=shortened(name, 30) + (" (training)" if column.startswith("train") else ""),
            )
        axes.set_xlabel("Epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].legend(frameon=False, fontsize="small")
    return finish(figure_, path)


def _judged(columns: Mapping[str, Any], figure: str) -> str | None:
    """The column that tells most of how good a training was."""
    names = (f"{part}_{figure}" for part in _PARTS)
    return next((name for name in names if name in columns), None)
