"""Several trainings on one page: their figures side by side, their curves over each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .charts import LOOKS, Line, line_chart
from .curves import columns_of, figures_of, label_of, scale_of, with_unit
from .findings import Findings
from .html import Markup, element, join, name, table, text_cell
from .page import Section, figure_text, whole_page

_JUDGED = ("val", "ensemble", "train")


def comparison_page(title: str, runs: Sequence[Findings]) -> str:
    """A page on several trainings.

    Parameters
    ----------
    title : str
    runs : sequence of Findings
        In the order to be shown.

    Returns
    -------
    str
        HTML that needs nothing else.
    """
    sections: list[Section] = [("Figures", _figures(runs))]
    charts = _curves(runs)
    if charts:
        body: Markup = element("div", *charts, class_="charts")
        if len(runs) > len(LOOKS):
            body = join([element("p", f"Colours and dashes repeat after {len(LOOKS)} runs."), body])
        sections.append(("Curves", body))
    sections.append(("Settings that differ", _differences(runs)))
    warned = [
        element("li", name(run.title, 100), ": ", line) for run in runs for line in run.warnings
    ]
    if warned:
        sections.append(("Warnings", element("ul", *warned, class_="warned")))
    return whole_page(title, [element("h1", name(title, 100))], sections)


def _figures(runs: Sequence[Findings]) -> Markup:
    figures = [run.figures for run in runs]
    names = list(dict.fromkeys(key for row in figures for key in row))
    rows = [
        [name(run.title, 100), *(figure_text(key, row.get(key)) for key in names)]
        for run, row in zip(runs, figures, strict=True)
    ]
    headers = ["run", *map(label_of, names)]
    return table(headers, rows, caption="On rows that the networks had not seen")


def _curves(runs: Sequence[Findings]) -> list[Markup]:
    tables = [columns_of(run.history) for run in runs]
    charts = []
    for figure in dict.fromkeys(key for columns in tables for key in figures_of(columns)):
        lines = []
        for look, (run, columns) in enumerate(zip(runs, tables, strict=True)):
            found = [f"{part}_{figure}" for part in _JUDGED if f"{part}_{figure}" in columns]
            if found:
                part = {"train": ", training"}.get(found[0].partition("_")[0], "")
                values = scale_of(figure) * columns[found[0]]
                lines.append(Line(f"{run.title[:60]}{part}", columns["epoch"], values, look))
        if any(np.isfinite(line.y).any() for line in lines):
            charts.append(
                line_chart(lines, "Epoch", with_unit(figure), by_decades=figure == "loss")
            )
    return charts


def _differences(runs: Sequence[Findings]) -> Markup:
    settings = [dict(run.settings) for run in runs]
    names = dict.fromkeys(key for row in settings for key in row)
    differing = [key for key in names if len({row.get(key, "–") for row in settings}) > 1]
    if not differing:
        return element("p", "None.")
    rows = [[key, *(text_cell(row.get(key, "–")) for row in settings)] for key in differing]
    headers: list[Any] = ["", *(name(run.title, 40) for run in runs)]
    return table(headers, rows, caption="By run")
