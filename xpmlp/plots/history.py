"""Curves of loss and accuracy against epochs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .figure import BLUE, ORANGE, finish, new_figure, plain_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (("loss", "Loss"), ("accuracy", "Accuracy (%)"), ("r2", "R²"))
"""What is drawn of a history, and its name."""
_FEW_EPOCHS = 30  # up to here, every epoch gets a marker


def plot_history(
    history: Any, path: str | os.PathLike[str] | None = None, *, title: str = "Training"
) -> Figure:
    """Loss, and accuracy or R² where there is one, against epochs.

    Parameters
    ----------
    history : History, sequence of mappings, or mapping of sequences
        Columns ``epoch``, ``train_loss``, ``val_loss``, and ``train_``/``val_`` ``accuracy`` (in
        [0, 1]) or ``r2``. Any may be missing, and so may single values (None, NaN or ""). Without
        ``epoch``, rows count from 1.
    path : path-like, optional
        Where to save the picture.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If there is no row, or no column that could be drawn.
    CheckpointError
        If the file cannot be written.
    MissingDependencyError
        Without matplotlib.
    """
    columns = columns_of("plot_history", history)
    panels = [
        (name, label)
        for name, label in PANELS
        if f"train_{name}" in columns or f"val_{name}" in columns
    ]
    if not panels:
        raise DataError(
            "`plot_history`: expected columns such as train_loss, val_loss or val_accuracy with "
            f"numbers in them, got {', '.join(columns) or 'none'}; train for an epoch first"
        )
    figure = new_figure(4.6 * len(panels) + 0.4, 3.8)
    figure.suptitle(plain_words(title))
    for axes, (name, label) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
    ):
        _draw_curves(axes, columns, name, label)
    return finish(figure, path)


def _draw_curves(axes: Any, columns: dict[str, np.ndarray], name: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    scale = 100.0 if name == "accuracy" else 1.0
    epochs = columns["epoch"]
    marker = "o" if len(epochs) <= _FEW_EPOCHS else ""
    looks = (("train", "training", BLUE, "--"), ("val", "validation", ORANGE, "-"))
    for part, words, color, dashes in looks:
        values = columns.get(f"{part}_{name}")
        if values is None:
            continue
        axes.plot(
            epochs,
            scale * values,
            color=color,
            linestyle=dashes,
            marker=marker,
            markersize=3.5,
            label=words,
        )
        if part == "val":
            best = int(np.nanargmin(values) if name == "loss" else np.nanargmax(values))
            value = f"{scale * values[best]:.2f} %" if scale == 100.0 else f"{values[best]:.4g}"
            axes.plot(
                epochs[best],
                scale * values[best],
                "D",
                color="black",
                markerfacecolor="none",
                markersize=8,
                label=f"best: {value} (epoch {epochs[best]:g})",
            )
    axes.set_xlabel("Epoch")
    axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def columns_of(where: str, history: Any) -> dict[str, np.ndarray]:
    """The history's columns that hold at least one number, and ``epoch``."""
    rows = getattr(history, "rows", history)
    if isinstance(rows, Mapping):
        table = {str(name): list(values) for name, values in rows.items()}
    else:
        rows = list(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        table = {name: [row.get(name) for row in rows] for name in names}
    lengths = {len(values) for values in table.values()}
    if lengths - {0} == set() or len(lengths) > 1:
        raise DataError(
            f"`{where}`: expected columns of one length and at least one row, got "
            + (", ".join(f"{name} ({len(v)})" for name, v in table.items()) or "no rows")
        )
    columns = {name: _numbers(values) for name, values in table.items()}
    columns = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    if "epoch" not in columns:
        columns["epoch"] = np.arange(1.0, lengths.pop() + 1.0)
    return columns


def _numbers(values: list[Any]) -> np.ndarray:
    """As floats; what is no finite number becomes NaN, a gap in the line."""
    numbers = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        try:
            numbers[i] = float(value)
        except (TypeError, ValueError):
            continue
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers
