"""The curve of a search for a learning rate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..training import RateSearch
from .figure import BLUE, GREY, ORANGE, finish, new_figure, plain_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_rates(
    search: RateSearch,
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "Loss while the learning rate rises",
) -> Figure:
    """Losses over the rate, their running mean, and where that falls most steeply.

    Parameters
    ----------
    search : RateSearch
        Of :func:`xpmlp.training.search_rate`.
    path : path-like, optional
        Where to save the picture.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    CheckpointError, MissingDependencyError
        As :func:`plot_history`.
    """
    figure = new_figure(5.6, 3.8)
    figure.suptitle(plain_words(title))
    axes = figure.subplots()
    axes.plot(search.rates, search.losses, ".", color=GREY, markersize=3.0, label="a batch")
    axes.plot(search.rates, search.smooth, color=BLUE, label="running mean")
    place = int(np.flatnonzero(search.rates == search.suggestion)[0])
    axes.plot(
        search.rates[place : place + 1],
        search.smooth[place : place + 1],
        "o",
        color=ORANGE,
        label=f"steepest: {search.suggestion:.2g}",
    )
    axes.set_xscale("log")
    top = search.smooth[0] + 0.5 * (search.smooth[0] - search.smooth.min())
    axes.set_ylim(min(0.0, search.smooth.min()), max(top, 1.2 * search.smooth[0]))
    axes.set_xlabel("Learning rate")
    axes.set_ylabel("Loss")
    axes.legend(loc="best", framealpha=0.9)
    axes.spines[["top", "right"]].set_visible(False)
    return finish(figure, path)
