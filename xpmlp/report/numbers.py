"""How a regression did: predicted against true, and where it is most wrong."""

from __future__ import annotations

import numpy as np

from .charts import Plane, dots, picture, straight
from .classes import table_of_rows
from .findings import Scored
from .html import Markup, element, join

_POINTS = 800
_TARGETS = 4
_WORST = 20


def predicted_against_true(scored: Scored) -> Markup:
    """A point for each row, target by target."""
    true, found = _columns(scored.y), _columns(scored.answers)
    # Evenly taken from the rows in order of the truth, so that its ends are among them.
    charts = []
    for target in range(min(_TARGETS, true.shape[1])):
        finite = np.flatnonzero(np.isfinite(found[:, target]))
        order = finite[np.argsort(true[finite, target], kind="stable")]
        if not len(order):
            continue
        places = np.unique(np.linspace(0, len(order) - 1, min(_POINTS, len(order))).astype(int))
        x, y = true[order[places], target], found[order[places], target]
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        plane = Plane((low, high), (low, high))
        label = "Predicted" if true.shape[1] == 1 else f"Predicted, target {target + 1}"
        low, high = plane.x
        chart = picture(
            "Predicted against true",
            plane.axes("True", label),
            straight(plane, (low, low), (high, high)),
            dots(plane, x, y),
        )
        words = "On the dashed line a prediction is right."
        if len(places) < len(order):
            words += f" {len(places):,} of {len(order):,} rows are drawn."
        charts.append(element("figure", chart, element("figcaption", words)))
    return element("div", *charts, class_="charts")


def mistakes(scored: Scored) -> Markup:
    """The rows that are furthest off."""
    true, found = _columns(scored.y), _columns(scored.answers)
    spread = np.maximum(true.std(axis=0), 1e-300)
    off = np.abs(found - true) / spread
    worst = np.argsort(-np.nan_to_num(off.max(axis=1), nan=np.inf), kind="stable")[:_WORST].tolist()
    answers: list[list[Markup | str]] = []
    for at in worst:
        target = int(np.nan_to_num(off[at], nan=np.inf).argmax())
        value, said = true[at, target], found[at, target]
        answers.append([f"{value:.6g}", f"{said:.6g}", f"{said - value:+.3g}"])
    words = f"The {len(worst)} of {len(true):,} rows that are furthest off:"
    body = table_of_rows(scored, worst, ["true", "predicted", "off by"], answers)
    return join([element("p", words), body])


def _columns(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)
