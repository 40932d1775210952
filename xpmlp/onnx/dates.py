"""Dates as ONNX has them: seconds, from which the parts of a date are computed.

Month and day come from the number of days by whole divisions alone, as in Hinnant 2021,
"chrono-Compatible Low-Level Date Algorithms": a year there begins with March, so that the leap day
is its last one.
"""

from __future__ import annotations

import math

from .graph import Graph, Value

DAY = 86400.0


class Dates:
    """The parts of a column of dates, float64 seconds since 1970-01-01 of shape (N, 1)."""

    def __init__(self, graph: Graph, seconds: Value, at: str):
        self._graph, self._at, self._seconds = graph, at, seconds
        self._day = self._whole(seconds, DAY)

    def days(self) -> Value:
        """Days since 1970-01-01, with a fraction."""
        return self._of("Div", self._seconds, DAY)

    def wave(self, part: str, period: float, quarter: bool) -> Value:
        """The sine of a part over its period, or a quarter of it ahead: the cosine."""
        parts = {"month": self._month, "day": self._day_of_month}
        parts |= {"weekday": self._weekday, "hour": self._hour}
        angle = self._of("Mul", parts[part](), 2.0 * math.pi / period)
        return self._node("Sin", self._of("Add", angle, math.pi / 2) if quarter else angle)

    def _hour(self) -> Value:
        inside = self._node("Sub", self._seconds, self._of("Mul", self._day, DAY))
        return self._of("Div", inside, 3600.0)

    def _weekday(self) -> Value:
        return self._rest(self._of("Add", self._day, 3.0), 7.0)  # 1970 began with a Thursday

    def _month(self) -> Value:
        return self._rest(self._of("Add", self._since_march()[1], 2.0), 12.0)

    def _day_of_month(self) -> Value:
        day, month = self._since_march()
        before = self._whole(self._of("Add", self._of("Mul", month, 153.0), 2.0), 5.0)
        return self._node("Sub", day, before)

    def _since_march(self) -> tuple[Value, Value]:
        """Days since the first of March, and months, of which that is the first."""
        of_era = self._rest(self._of("Add", self._day, 719468.0), 146097.0)  # days in 400 years
        regular = self._node("Sub", of_era, self._whole(of_era, 1460.0))
        regular = self._node("Add", regular, self._whole(of_era, 36524.0))
        regular = self._node("Sub", regular, self._whole(of_era, 146096.0))
        year = self._whole(regular, 365.0)
        leaps = self._node("Sub", self._whole(year, 4.0), self._whole(year, 100.0))
        before = self._node("Add", self._of("Mul", year, 365.0), leaps)
        day = self._node("Sub", of_era, before)
        return day, self._whole(self._of("Add", self._of("Mul", day, 5.0), 2.0), 153.0)

    def _whole(self, a: Value, b: float) -> Value:
        return self._floor(self._of("Div", a, b))

    def _rest(self, a: Value, b: float) -> Value:
        return self._node("Sub", a, self._of("Mul", self._whole(a, b), b))

    def _floor(self, a: Value) -> Value:
        return self._node("Floor", a)

    def _of(self, op: str, a: Value, number: float) -> Value:
        constant = self._graph.constant(f"{self._at}/{number!r}", number, "float64")
        return self._graph.node(op, [a, constant], self._at)

    def _node(self, op: str, *values: Value) -> Value:
        return self._graph.node(op, list(values), self._at)
