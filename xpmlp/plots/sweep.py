"""What a sweep found: a heat map over two options, or curves with their spread over one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .figure import BLUE, ORANGE, finish, new_figure, plain_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW_CELLS = 100  # up to here, values are written into the cells


def plot_sweep(
    rows: Sequence[Mapping[str, Any]],
    axes: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    value: str = "val_accuracy",
    title: str = "Sweep",
) -> Figure:
    """The figures of a sweep against the options that it varied.

    One option: a curve through the means over seeds, a band from the worst seed to the best, and a
    point for each. Two options: a heat map of the means. More: a heat map over the two options with
    the most values, each cell the best mean over all others.

    Parameters
    ----------
    rows : sequence of mappings
        One for each trial, with the options' values and the figure: ``SweepResult.rows`` or the
        rows of ``sweep.csv``. Figures that are missing or not finite are left out.
    axes : sequence of str
        The options that were varied.
    path : path-like, optional
        Where to save the picture.
    value : str
        Which figure; accuracies are drawn in percent.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If there is no option, or no figure to draw.
    CheckpointError, MissingDependencyError
        As :func:`plot_history`.
    """
    good = [row for row in rows if np.isfinite(_number(row.get(value)))]
    varied = [name for name in axes if len({row[name] for row in good}) > 1] or list(axes[:1])
    if not good or not varied:
        raise DataError(
            f"`plot_sweep`: expected rows with finite {value!r} and an option to draw it against, "
            f"got {len(good)} rows and options {', '.join(axes) or 'none'}"
        )
    draw = _curve if len(varied) == 1 else _heat_map
    figure = draw(good, varied, value)
    figure.suptitle(plain_words(title))
    return finish(figure, path)


def _curve(rows: Sequence[Mapping[str, Any]], varied: Sequence[str], value: str) -> Figure:
    name = varied[0]
    scale = 100.0 if value.endswith("accuracy") else 1.0
    ticks = _sorted({row[name] for row in rows})
    groups = [
        np.array([scale * _number(row[value]) for row in rows if row[name] == tick])
        for tick in ticks
    ]
    figure = new_figure(5.2, 3.8)
    axes = figure.subplots()
    places = _places(axes, ticks)
    means = np.array([group.mean() for group in groups])
    axes.fill_between(
        places,
        [group.min() for group in groups],
        [group.max() for group in groups],
        color=BLUE,
        alpha=0.2,
        linewidth=0.0,
        label="worst to best seed",
    )
    axes.plot(places, means, "o-", color=BLUE, markersize=4, label="mean over seeds")
    for place, group in zip(places, groups, strict=True):
        if group.size > 1:
            axes.plot([place] * group.size, group, ".", color=BLUE, markersize=3, alpha=0.6)
    best = int(np.argmin(means) if value.endswith("loss") else np.argmax(means))
    axes.plot(
        places[best],
        means[best],
        "D",
        color=ORANGE,
        markerfacecolor="none",
        markersize=9,
        label=f"best: {means[best]:.4g} at {_text(ticks[best])}",
    )
    axes.set_xlabel(_label(name))
    axes.set_ylabel(_label(value) + (" (%)" if scale != 1.0 else ""))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _heat_map(rows: Sequence[Mapping[str, Any]], varied: Sequence[str], value: str) -> Figure:
    scale, less = (100.0 if value.endswith("accuracy") else 1.0), value.endswith("loss")
    counts = {name: len({row[name] for row in rows}) for name in varied}
    across, down = sorted(varied, key=lambda name: -counts[name])[:2]
    columns, lines = (_sorted({row[name] for row in rows}) for name in (across, down))
    settings: dict[tuple, list[float]] = {}
    for row in rows:
        key = tuple(row[name] for name in varied)
        settings.setdefault(key, []).append(scale * _number(row[value]))
    cells = np.full((len(lines), len(columns)), np.nan)
    best_of = np.fmin if less else np.fmax
    for key, values in settings.items():
        point = dict(zip(varied, key, strict=True))
        place = lines.index(point[down]), columns.index(point[across])
        cells[place] = best_of(cells[place], np.mean(values))
    figure = new_figure(max(5.0, 0.75 * len(columns) + 2.2), max(3.2, 0.5 * len(lines) + 1.8))
    axes = figure.subplots()
    # One bad setting must not leave all others the same colour.
    low, high = np.nanquantile(cells, [0.0, 0.8] if less else [0.2, 1.0])
    image = axes.imshow(
        cells,
        cmap="viridis_r" if less else "viridis",
        aspect="auto",
        vmin=low,
        vmax=high if high > low else low + 1e-9,
    )
    bar = figure.colorbar(image, ax=axes, pad=0.02, extend="max" if less else "min")
    more = [_label(name) for name in varied if name not in (across, down)]
    bar.set_label(_label(value) + (" (%)" if scale != 1.0 else ""))
    if more:
        axes.set_title(f"best over {', '.join(more).lower()}", fontsize="medium")
    axes.set_xticks(range(len(columns)), [_text(tick) for tick in columns], rotation=45)
    axes.set_yticks(range(len(lines)), [_text(tick) for tick in lines])
    axes.set_xlabel(_label(across))
    axes.set_ylabel(_label(down))
    digits = 2 if high - low < 2.0 else 1
    if cells.size <= _FEW_CELLS:
        for place in np.argwhere(np.isfinite(cells)):
            number = cells[tuple(place)]
            pale = (number - low) / ((high - low) or 1.0)
            pale = 1.0 - pale if less else pale
            axes.text(
                place[1],
                place[0],
                f"{number:.{digits}f}" if scale != 1.0 else f"{number:.3g}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if pale > 0.6 else "white",
            )
    return figure


def _places(axes: Any, ticks: Sequence[Any]) -> np.ndarray:
    """Where values are drawn: numbers at their place, on a log scale if they ask for one."""
    if not all(isinstance(tick, int | float) for tick in ticks):
        axes.set_xticks(range(len(ticks)), [_text(tick) for tick in ticks])
        return np.arange(len(ticks))
    places = np.array(ticks, dtype=np.float64)
    if len(ticks) > 2 and places.min() > 0 and places.max() > 20 * places.min():
        axes.set_xscale("log")
    return places


def _sorted(values: set[Any]) -> list[Any]:
    return sorted(values, key=lambda value: (value is not None, value))


def _number(value: Any) -> float:
    return float("nan") if value in (None, "") else float(value)


def _label(name: str) -> str:
    words = {"lr": "learning rate", "val": "validation", "hidden": "hidden widths", "r2": "R²"}
    return plain_words(" ".join(words.get(part, part) for part in name.split("_")).capitalize())


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return plain_words("×".join(map(str, value)))
    return f"{value:.3g}" if isinstance(value, float) else plain_words(value)
