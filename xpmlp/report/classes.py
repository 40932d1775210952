"""How a classifier did: what it mixes up, how sure it is, and where it is most wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..calibration import reliability
from ..metrics import confusion_matrix
from .charts import Plane, bars, picture, straight
from .findings import Scored
from .html import Markup, element, join, name, table, text_cell, void
from .pictures import as_images, in_unit, png_uri

_MATRIX = 40  # classes; more make a table that nobody reads
_MIXED = 12
_WORST = 24
_SHORT = 6  # letters of a name that heads a column of the matrix
_COLUMNS = 12
_BINS = 10


def confusion(scored: Scored) -> Markup:
    """The confusion matrix, and the pairs that are mixed up most."""
    classes = scored.classes or ()
    counts = confusion_matrix(scored.y, scored.answers.argmax(axis=1), len(classes))
    return join(
        [
            *([_matrix(counts, classes)] if len(classes) <= _MATRIX else []),
            _mixed_up(counts, classes),
            _by_class(counts, classes),
        ]
    )


def _matrix(counts: np.ndarray, classes: tuple[str, ...]) -> Markup:
    long = any(len(label) > _SHORT for label in classes)
    labels = [f"{place + 1}" if long else name(label) for place, label in enumerate(classes)]
    shares = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    rows = []
    for place, label in enumerate(classes):
        own = join([f"{place + 1} ", name(label, 24)]) if long else name(label)
        cells = [
            element(
                "td",
                f"{count:,}" if count else "·",
                class_="hit" if place == column else None,
                style=f"--s:{shares[place, column] ** 0.5:.2f}" if count else "--s:0",
            )
            for column, count in enumerate(counts[place].tolist())
        ]
        rows.append([own, *cells])
    caption = "Rows are true classes, columns are what was said; on the diagonal, in bold, is right"
    return table(["", *labels], rows, caption=caption, class_="matrix")


def _mixed_up(counts: np.ndarray, classes: tuple[str, ...]) -> Markup:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MIXED]
    rows = [
        [
            name(classes[true]),
            text_cell(name(classes[said])),
            f"{wrong[true, said]:,}",
        ]
        for true, said in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[true, said]
    ]
    if not rows:
        return element("p", "No row was taken for another class.")
    return table(["true", "said", "rows"], rows, caption="What is mixed up most")


def _by_class(counts: np.ndarray, classes: tuple[str, ...]) -> Markup:
    hits, rows, said = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)

    def share(part: Any, whole: Any) -> str:
        return f"{100 * part / whole:.1f} %" if whole else "–"

    order = np.argsort(hits / np.maximum(rows, 1), kind="stable")
    body = [
        [name(classes[at]), f"{rows[at]:,}", share(hits[at], rows[at]), share(hits[at], said[at])]
        for at in order.tolist()
    ]
    caption = (
        "Recall: of its rows, how many were found. Precision: of what was said, how much is right"
    )
    whole = table(["class", "rows", "recall", "precision"], body, caption=caption)
    return element("details", element("summary", "Class by class, the worst first"), whole)


def calibration(scored: Scored) -> Markup:
    """The reliability diagram."""
    found = reliability(scored.answers, scored.y, _BINS)
    plane = Plane((0.0, 1.0), (0.0, 1.0))
    diagram = picture(
        "Share that is right against the largest probability",
        plane.axes("Largest probability", "Share that is right"),
        bars(plane, found.edges, found.accuracy, "a"),
        straight(plane, (0.0, 0.0), (1.0, 1.0)),
    )
    filled = np.flatnonzero(found.counts)
    rows = [
        [
            f"{found.edges[at]:.1f}–{found.edges[at + 1]:.1f}",
            f"{found.counts[at]:,}",
            f"{100 * found.confidence[at]:.1f} %",
            f"{100 * found.accuracy[at]:.1f} %",
        ]
        for at in filled.tolist()
    ]
    words = element(
        "p",
        f"When it says 80 %, is it right 80 % of the time? Expected calibration error "
        f"{100 * found.error:.2f} %. Bars that reach the dashed line are calibrated; below it, the "
        "network is surer than it should be.",
    )
    body = table(["said", "rows", "mean said", "right"], rows, caption="The numbers")
    return join([words, element("div", element("figure", diagram), body, class_="charts")])


def mistakes(scored: Scored) -> Markup:
    """The rows that got the least probability for the truth, as pictures or values."""
    p = scored.answers
    said = p.argmax(axis=1)
    wrong = np.flatnonzero(said != scored.y)
    worst = wrong[np.argsort(p[wrong, scored.y[wrong]], kind="stable")][:_WORST].tolist()
    if not worst:
        return element("p", f"No mistake among {len(p):,} rows.")
    shown = f"{len(wrong):,} of {len(p):,} rows are wrong"
    shown += f"; the {len(worst)} worst:" if len(worst) < len(wrong) else ":"
    images = as_images(scored.x)
    body = _rows(scored, worst, said) if images is None else _images(scored, images, worst, said)
    return join([element("p", shown), body])


def _images(scored: Scored, images: np.ndarray, worst: list[int], said: np.ndarray) -> Markup:
    classes, p = scored.classes or (), scored.answers
    low, high = float(images[worst].min()), float(images[worst].max())
    figures = []
    for at in worst:
        truth, guess = int(scored.y[at]), int(said[at])
        words = f"Test row {at + 1}, true {classes[truth]}, said {classes[guess]}"
        caption = element(
            "figcaption",
            join(["said ", name(classes[guess], 20), f" {percent(p[at, guess])}", void("br")]),
            join(["true ", name(classes[truth], 20), f" {percent(p[at, truth])}"]),
        )
        uri = png_uri(in_unit(images[at], low, high))
        figures.append(element("figure", void("img", src=uri, alt=words[:200]), caption))
    return element("div", *figures, class_="pictures")


def _rows(scored: Scored, worst: list[int], said: np.ndarray) -> Markup:
    classes, p = scored.classes or (), scored.answers
    answers = [
        [
            text_cell(name(classes[int(scored.y[at])], 24)),
            text_cell(name(classes[int(said[at])], 24)),
            percent(p[at, said[at]]),
        ]
        for at in worst
    ]
    return table_of_rows(scored, worst, ["true", "said", "how sure"], answers)


def table_of_rows(
    scored: Scored, rows: list[int], headers: list[str], answers: list[list[Markup | str]]
) -> Markup:
    """Rows of the data by their values, behind what was said of them."""
    described = [
        _plain(scored.x[at]) if scored.describe is None else scored.describe(scored.x[at])
        for at in rows
    ]
    columns = list(dict.fromkeys(key for row in described for key in row))
    shown = columns[:_COLUMNS]
    body = [
        [f"{at + 1}", *answer, *(_value(row.get(key, "")) for key in shown)]
        for at, answer, row in zip(rows, answers, described, strict=True)
    ]
    more = len(columns) - len(shown)
    caption = "Test rows" + (f"; the first {len(shown)} of {len(columns)} columns" if more else "")
    heads = [name(key, 24) for key in shown]
    return table(["row", *headers, *heads], body, caption=caption)


def _value(text: str) -> Markup:
    """Numbers on the right, words on the left."""
    return element("td", text) if _is_number(text) else text_cell(name(text, 40))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def percent(share: float) -> str:
    """A probability."""
    return "<0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _plain(row: np.ndarray) -> dict[str, str]:
    return {
        f"x{place}": f"{value:.5g}" for place, value in enumerate(row.reshape(-1)[:20].tolist())
    }
