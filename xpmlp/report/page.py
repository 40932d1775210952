"""The page of one training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import XpmlpError
from ..plots.first_layer import first_weights, largest
from . import classes, numbers
from .curves import columns_of, curves, figures_of, label_of
from .findings import Findings, Scored
from .html import Markup, element, join, name, pairs, void
from .pictures import as_images, enlarged, in_unit, mosaic, png_uri
from .style import CSS

_UNITS = 64
_LEAST_SIDE = 8  # pixels of a unit's picture, for the gaps between to be narrow
_GREY = "White is positive, black is negative, mid-grey is 0."
_COLOUR = "Mid-grey is 0; each unit has its own scale, and each colour is that of its inputs."
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
Section = tuple[str, Markup]


def report_page(findings: Findings) -> str:
    """The whole page of a training.

    Parameters
    ----------
    findings : Findings
        What there is not is left out.

    Returns
    -------
    str
        HTML that needs nothing else: no network, no scripts, no fonts.
    """
    sections: list[Section] = []
    if findings.warnings:
        warned = (element("li", line) for line in findings.warnings)
        sections.append(("Warnings", element("ul", *warned, class_="warned")))
    if figures_of(columns_of(findings.history)):
        sections.append(("Curves", curves(findings.history, findings.best_epoch)))
    if findings.scored is not None:
        sections += _scores(findings.scored)
        if findings.model is not None:
            sections += _first_layer(findings.model, findings.scored)
    for heading, rows in (("Data", findings.data), ("Settings", findings.settings)):
        if rows:
            sections.append((heading, pairs(rows)))
    top = [element("h1", name(findings.title, 100))]
    if findings.scored is not None:
        top.append(element("p", "On ", name(findings.scored.name, 80), ", which it had not seen:"))
        top.append(tiles(findings.figures.items()))
    return whole_page(findings.title, top, sections)


def whole_page(title: str, top: list[Markup], sections: list[Section]) -> str:
    """A page of a heading and sections, with links to them."""
    parts = [
        element("section", element("h2", heading), body, id=f"part-{place}")
        for place, (heading, body) in enumerate(sections)
    ]
    links = (
        element("li", element("a", heading, href=f"#part-{place}"))
        for place, (heading, _) in enumerate(sections)
    )
    nav = element("nav", element("ul", *links), aria_label="Parts of this page")
    head = element(
        "head",
        void("meta", charset="utf-8"),
        void("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="color-scheme", content="light dark"),
        element("title", title[:100]),
        element("style", Markup(CSS)),
    )
    body = element("body", element("main", *top, nav, *parts))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def tiles(figures: Iterable[tuple[str, Any]]) -> Markup:
    """Figures that are read at a glance."""
    shown = [
        element(
            "div",
            element("b", figure_text(key, value)),
            element("span", label_of(key)),
            class_="tile",
        )
        for key, value in figures
        if value is not None
    ]
    return element("div", *shown, class_="tiles")


def figure_text(key: str, value: Any) -> str:
    """A figure as it is read: shares in percent, and a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{100 * value:.2f} %" if key.endswith("accuracy") else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _scores(scored: Scored) -> list[Section]:
    if not np.isfinite(scored.answers).all():
        words = "The network answers with numbers that are not finite: there is nothing to show."
        return [("Answers", element("p", words))]
    if scored.classes is None:
        return [
            ("Predicted against true", numbers.predicted_against_true(scored)),
            ("Worst mistakes", numbers.mistakes(scored)),
        ]
    return [
        ("What is mixed up", classes.confusion(scored)),
        ("Worst mistakes", classes.mistakes(scored)),
        ("Calibration", classes.calibration(scored)),
    ]


def _first_layer(model: Any, scored: Scored) -> list[Section]:
    """The weights into the units of the first layer, where inputs are images."""
    if as_images(scored.x[:1]) is None:
        return []
    try:
        weights = first_weights("report", model, scored.x.shape[1:])
    except XpmlpError:  # a layer of another kind, or an image of which some pixels are no inputs
        return []
    tiles_of = largest(weights, _UNITS)
    if not np.isfinite(tiles_of).all():
        return []
    if tiles_of.ndim == 3:  # one scale; not the maximum, lest one outlier leave all else pale
        limit = float(np.quantile(np.abs(tiles_of), 0.998))
        scaled = in_unit(tiles_of, -limit, limit)
    else:
        limits = np.abs(tiles_of).reshape(len(tiles_of), -1).max(axis=1)
        scaled = 0.5 + 0.5 * tiles_of / np.maximum(limits, 1e-30)[:, None, None, None]
    of_all = "" if model.population is None else f" of {model.population} networks"
    words = f"{len(tiles_of)} of {len(weights):,} units{of_all}, those with the largest weights "
    words += f"first. {_GREY if tiles_of.ndim == 3 else _COLOUR}"
    alt = "Weights into the units of the first layer, as images"
    uri = png_uri(mosaic(enlarged(np.clip(scaled, 0.0, 1.0), _LEAST_SIDE)))
    figure = element(
        "figure", void("img", src=uri, alt=alt, class_="mosaic"), element("figcaption", words)
    )
    return [("First layer", join([figure]))]
