"""A record as a picture: xpmlp against the others, and CPU against GPU where there is one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..plots.figure import BLUE, GREY, ORANGE, finish, new_figure
from .report import Record, contestants, main_contestant, ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which all readers can tell apart; each with a marker of its own.
_LOOKS = (
    (ORANGE, "o"),
    (BLUE, "s"),
    ("#009E73", "D"),
    ("#CC79A7", "^"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
    (GREY, "*"),
)
_GPU = "xpmlp on cupy"


def plot_record(record: Record, path: str | os.PathLike[str] | None = None) -> Figure:
    """How many times as long the others take, case by case, on a logarithmic axis.

    Parameters
    ----------
    record : dict
        What :func:`run_suite` returned.
    path : path-like, optional
        Where to save the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        Right of the line, xpmlp is faster. Where CuPy was measured, a second panel has the times of
        both.

    Raises
    ------
    DataError
        If nothing was measured.
    CheckpointError, MissingDependencyError
        As :func:`xpmlp.plots.plot_history`.
    """
    ours = main_contestant(record)
    cases = [case for case in record["cases"] if ours in case["results"]]
    if not cases:
        raise DataError("`plot_record`: expected a case that xpmlp was timed in, got none")
    on_gpu = ours != _GPU and any(_GPU in case["results"] for case in cases)
    panels = 2 if on_gpu else 1
    figure = new_figure(8.5 if panels == 1 else 13.0, 1.6 + 0.26 * len(cases))
    figure.suptitle(f"xpmlp beside other libraries: {record['machine']['cpu']}")
    axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    _draw_ratios(axes[0], record, cases, ours)
    if on_gpu:
        _draw_times(axes[1], cases, ours)
    axes[0].set_yticks(range(len(cases)), [f"{c['kind']} {c['name']}" for c in cases], fontsize=8)
    axes[0].set_ylim(len(cases) - 0.5, -0.5)
    # One legend for all panels, below them whatever their height.
    figure.legend(loc="outside lower center", ncols=8, frameon=False, fontsize=8)
    return finish(figure, path)


def _draw_ratios(axes: Any, record: Record, cases: list[dict[str, Any]], ours: str) -> None:
    others = [name for name in contestants(record) if name not in (ours, _GPU)]
    for name, (color, marker) in zip(others, _LOOKS, strict=False):
        points = [(ratio(case, name, ours), row) for row, case in enumerate(cases)]
        points = [(value, row) for value, row in points if value is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker, color=color, markersize=5, label=name, linestyle="")
    axes.axvline(1.0, color=GREY, linewidth=1)
    axes.set_xlabel("Time relative to xpmlp: right of the line, xpmlp is faster")
    _style(axes)
    _plain_numbers(axes)


def _draw_times(axes: Any, cases: list[dict[str, Any]], ours: str) -> None:
    for name, label, color, marker in (
        (ours, "CPU (NumPy)", BLUE, "o"),
        (_GPU, "GPU (CuPy)", ORANGE, "D"),
    ):
        points = [
            (c["results"][name]["median"] * 1e3, row)
            for row, c in enumerate(cases)
            if name in c["results"]
        ]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker, color=color, markersize=5, label=label, linestyle="")
    axes.set_xlabel("Milliseconds")
    _style(axes)


def _style(axes: Any) -> None:
    axes.set_xscale("log")
    axes.grid(axis="both", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _plain_numbers(axes: Any) -> None:
    """0.5, 1, 2, 5, 10 in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
