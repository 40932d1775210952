"""Charts as SVG. They need no colours: lines differ in dashes, and points in their shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .html import Markup, element, join, void

WIDTH, HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 10, 12, 36
LOOKS = (("a", "none"), ("b", "6 3"), ("c", "2 3"), ("d", "8 3 2 3"), ("e", "12 4"))
"""Class and dashes of each line; from the sixth on, they come again."""
_MOST_POINTS = 400


@dataclass
class Line:
    """One line of a chart.

    Attributes
    ----------
    label : str
    x, y : ndarray, shape (N,)
        NaN is a gap.
    look : int
        Which of :data:`LOOKS`.
    mark : int, optional
        The point to be marked.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    look: int = 0
    mark: int | None = None


class Plane:
    """The coordinates of a chart, with its axes."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], *, logarithmic: bool = False
    ):
        self.logarithmic = logarithmic
        self.x, self.y = _widened(*x), y if logarithmic else _widened(*y)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where on the picture."""
        (left, right), (low, high) = self.x, self.y
        if self.logarithmic:
            y, low, high = (math.log10(v) for v in (y, low, high))
        across = (x - left) / (right - left)
        up = (y - low) / (high - low)
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM),
        )

    def axes(self, x_label: str, y_label: str, whole: bool = False) -> Markup:
        """Axes with ticks, their labels, and a grid."""
        parts: list[Markup] = []
        for value in ticks(*self.x, 5, whole=whole):
            across, _ = self.at(value, self.y[1])
            parts.append(_text(across, HEIGHT - _BOTTOM + 14, number(value), "middle"))
        levels = decades(*self.y) if self.logarithmic else ticks(*self.y, 5)
        for value in levels:
            _, up = self.at(self.x[0], value)
            parts.append(_path(f"M{_LEFT} {up:.1f}H{WIDTH - _RIGHT}", "grid"))
            parts.append(_text(_LEFT - 5, up + 4, number(value), "end"))
        corner = f"M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"
        parts.append(_path(corner, "axis"))
        parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        turned = element(
            "text",
            y_label,
            x="11",
            y=f"{middle:.0f}",
            text_anchor="middle",
            transform=f"rotate(-90 11 {middle:.0f})",
        )
        return join([*parts, turned])


def line_chart(
    lines: Sequence[Line], x_label: str, y_label: str, *, by_decades: bool = False
) -> Markup:
    """Lines against whole numbers, with a legend below.

    Parameters
    ----------
    lines : sequence of Line
    x_label, y_label : str
    by_decades : bool
        Whether the axis is logarithmic where the values are positive and far apart.
    """
    seen = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    low, high = float(seen.min()), float(seen.max())
    across = np.concatenate([line.x for line in lines])
    plane = Plane(
        (float(across.min()), float(across.max())),
        (low, high),
        logarithmic=by_decades and 0 < 50 * low < high,
    )
    parts = [plane.axes(x_label, y_label, whole=True)]
    for line in lines:
        look, dashes = LOOKS[line.look % len(LOOKS)]
        parts.append(
            element(
                "path",
                element("title", line.label),
                d=_course(plane, line),
                class_=f"line {look}",
                stroke_dasharray=dashes,
            )
        )
        if line.mark is not None and np.isfinite(line.y[line.mark]):
            x, y = plane.at(line.x[line.mark], line.y[line.mark])
            diamond = f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"
            parts.append(_path(diamond, f"mark {look}"))
    label = f"{y_label} against {x_label.lower()}"
    legend = join(_key(line) for line in lines)
    return element("figure", picture(label, *parts), element("figcaption", legend))


def picture(label: str, *parts: Any) -> Markup:
    """An SVG with a name for those who do not see it."""
    return element("svg", *parts, view_box=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)


def bars(plane: Plane, edges: np.ndarray, heights: np.ndarray, look: str) -> Markup:
    """A bar between each two edges; none where the height is NaN."""
    parts = []
    for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
        if np.isfinite(height):
            (x, y), (end, floor) = plane.at(left, height), plane.at(right, plane.y[0])
            parts.append(
                element(
                    "rect",
                    x=f"{x + 0.5:.1f}",
                    y=f"{y:.1f}",
                    width=f"{end - x - 1:.1f}",
                    height=f"{max(0.0, floor - y):.1f}",
                    class_=f"bar {look}",
                )
            )
    return join(parts)


def straight(plane: Plane, start: tuple[float, float], end: tuple[float, float]) -> Markup:
    """A dashed line from one point to another."""
    (a, b), (c, d) = plane.at(*start), plane.at(*end)
    return element(
        "path", d=f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}", class_="line e", stroke_dasharray="4 3"
    )


def dots(plane: Plane, x: np.ndarray, y: np.ndarray, look: str = "a") -> Markup:
    """A point for each pair."""
    places = (plane.at(*pair) for pair in zip(x.tolist(), y.tolist(), strict=True))
    return join(
        element("circle", cx=f"{a:.1f}", cy=f"{b:.1f}", r="2.2", class_=f"dot {look}")
        for a, b in places
    )


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers from low to high, at most ``most`` + 1 of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= most:
            step *= factor
            break
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 10, 100, … within the bounds; with 2 and 5 where these are few."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [10.0**e for e in exponents]
    if len(found) < 4:
        found = [factor * value for value in found for factor in (1, 2, 5)]
    step = math.ceil(len(found) / 7)
    return [value for value in found[::step] if low <= value <= high]


def number(value: float) -> str:
    """A tick's text."""
    text = f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _course(plane: Plane, line: Line) -> str:
    step = math.ceil(len(line.x) / _MOST_POINTS)
    parts, pen = [], "M"
    for x, y in zip(line.x[::step].tolist(), line.y[::step].tolist(), strict=True):
        if not math.isfinite(y):
            pen = "M"
            continue
        across, up = plane.at(x, y)
        parts.append(f"{pen}{across:.1f} {up:.1f}")
        pen = "L"
    if len(parts) == 1:
        parts.append("h0.1")  # a single point is a dot
    return "".join(parts)


def _key(line: Line) -> Markup:
    look, dashes = LOOKS[line.look % len(LOOKS)]
    sample = element(
        "svg",
        element("path", d="M0 6H34", class_=f"line {look}", stroke_dasharray=dashes),
        view_box="0 0 34 12",
        style="display:inline;width:34px;height:12px;max-width:34px",
        aria_hidden="true",
    )
    return join([sample, " ", element("span", line.label), void("br")])


def _path(course: str, class_: str) -> Markup:
    return element("path", d=course, class_=class_)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _widened(low: float, high: float) -> tuple[float, float]:
    if high > low:
        return low, high
    spread = abs(low) * 0.1 or 1.0
    return low - spread, high + spread
