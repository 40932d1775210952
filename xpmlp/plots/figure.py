"""What all plots share: a figure without a display, saving it, and checks of their inputs."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, to_numpy
from ..errors import ConfigError, DataError, MissingDependencyError, ShapeError, readable
from ..files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#595959"
_DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, with a layout that keeps texts apart."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            'expected matplotlib to draw with, got none installed; pip install "xpmlp[cli]"'
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    return figure


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Save the figure if there is a path; the file appears whole or not at all."""
    if path is None:
        return figure
    kind = Path(path).suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ConfigError(
            f"expected a file name ending in one of {', '.join('.' + k for k in sorted(known))}, "
            f"got {Path(path).name!r}"
        )
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=_DPI)
    write_atomically(path, content.getvalue())
    return figure


def show_image(axes: Any, image: np.ndarray) -> None:
    """Draw one image, grey or RGB, of values in [0, 1]."""
    axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)


def class_numbers(where: str, name: str, y: Array, classes: int) -> np.ndarray:
    """Checked class numbers (N,), as int64."""
    y = on_host(y)
    if y.ndim != 1 or y.dtype.kind not in "ui":
        raise ShapeError(
            f"`{where}`: expected {name} as class numbers of shape (N,), got {y.dtype} {y.shape}"
        )
    if not len(y) or y.min() < 0 or y.max() >= classes:
        got = f"{y.min()}…{y.max()}" if len(y) else "no rows"
        raise DataError(
            f"`{where}`: expected {name} in 0…{classes - 1} for {classes} classes, got {got}"
        )
    return y.astype(np.int64)


def on_host(values: Any) -> np.ndarray:
    """Values of any library, or a list, as NumPy."""
    return to_numpy(values) if hasattr(values, "shape") else np.asarray(values)


def percent(share: float) -> str:
    """In percent, with a decimal only where it matters."""
    value = 100.0 * share
    if 0.0 <= value < 0.1:
        return "<0.1 %"
    return f"{value:.1f} %" if value < 1.0 or 99.0 < value < 99.95 else f"{value:.0f} %"


def shortened(name: str, length: int = 14) -> str:
    """A name that leaves room for the others."""
    return plain_words(name if len(name) <= length else name[: length - 1] + "…")


def plain_words(text: Any) -> str:
    """A title or name from outside, in which ``$`` begins no formula."""
    return readable(str(text), 200).replace("$", r"\$")
