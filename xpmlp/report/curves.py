"""The curves of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .charts import Line, line_chart
from .html import Markup, element, join, table

_PARTS = (("train", "training"), ("val", "validation"), ("ensemble", "ensemble, out of fold"))
_WORDS = {"loss": "Loss", "r2": "R²", "rmse": "RMSE", "mae": "MAE"}
_SHOWN_EPOCHS = 40
_ALONE = {"lr": "Learning rate"}


def curves(history: Sequence[Mapping[str, Any]], best_epoch: int | None) -> Markup:
    """A chart for each figure that the history has, and its numbers."""
    columns = columns_of(history)
    epochs = columns["epoch"]
    charts = []
    for figure in figures_of(columns):
        lines = []
        for look, (part, words) in enumerate(_PARTS):
            values = columns.get(f"{part}_{figure}")
            if values is not None:
                mark = None if best_epoch is None or part == "train" else best_epoch - 1
                mark = mark if mark is not None and 0 <= mark < len(values) else None
                kept = "" if mark is None else f"; ◇ kept, epoch {best_epoch}"
                scale = scale_of(figure)
                lines.append(Line(words + kept, epochs, scale * values, look, mark))
        charts.append(line_chart(lines, "Epoch", with_unit(figure), by_decades=figure == "loss"))
    for name, label in _ALONE.items():
        if name in columns and len(np.unique(columns[name])) > 1:
            charts.append(
                line_chart([Line(label.lower(), epochs, columns[name], 3)], "Epoch", label)
            )
    return join([element("div", *charts, class_="charts"), _numbers(columns)])


def columns_of(history: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Columns with at least one finite number, and ``epoch``."""
    names = dict.fromkeys(name for row in history for name in row)
    columns = {name: np.array([_number(row.get(name)) for row in history]) for name in names}
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    columns.setdefault("epoch", np.arange(1.0, len(history) + 1.0))
    return columns


def figures_of(columns: Mapping[str, Any]) -> list[str]:
    """What is told of a part of the data, such as the loss: the part's name is left out."""
    found: dict[str, None] = {}
    for name in columns:
        part, _, figure = name.partition("_")
        if figure and part in dict(_PARTS):
            found[figure] = None
    return list(found)


def label_of(figure: str) -> str:
    """In words."""
    return _WORDS.get(figure, figure.replace("_", " ").capitalize())


def with_unit(figure: str) -> str:
    """The label of an axis."""
    return label_of(figure) + (" (%)" if scale_of(figure) == 100.0 else "")


def scale_of(figure: str) -> float:
    """Shares are shown in percent."""
    return 100.0 if figure == "accuracy" else 1.0


def _numbers(columns: Mapping[str, np.ndarray]) -> Markup:
    epochs = len(columns["epoch"])
    step = math.ceil(epochs / _SHOWN_EPOCHS)
    shown = sorted({*range(0, epochs, step), epochs - 1})
    names = [name for name in columns if name != "epoch"]
    rows = [
        [f"{columns['epoch'][at]:.0f}", *(f"{columns[name][at]:.5g}" for name in names)]
        for at in shown
    ]
    caption = "every epoch" if step == 1 else f"every {step} epochs, and the last"
    headers = ["epoch", *(name.replace("_", " ") for name in names)]
    body = table(headers, rows, caption=caption)
    return element("details", element("summary", "The numbers"), body)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan
