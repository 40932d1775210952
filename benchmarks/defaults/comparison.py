"""One data set, ours beside scikit-learn's: medians, their difference, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn import neural_network as theirs

from xpmlp import sklearn as ours

from .data_sets import DataSet
from .measure import remembered, scores

TOLERANCE = {"accuracy": 0.005, "R²": 0.01}
"""A difference of medians up to this counts as none."""


@dataclass(frozen=True)
class Comparison:
    """Scores of five seeds each on one data set.

    Attributes
    ----------
    name, inputs, metric : str
        The set; "raw" or "scaled"; "accuracy" or "R²".
    ours, theirs : list of float
    """

    name: str
    inputs: str
    metric: str
    ours: list[float]
    theirs: list[float]

    @property
    def difference(self) -> float:
        """Our median minus theirs."""
        return float(np.median(self.ours) - np.median(self.theirs))

    @property
    def verdict(self) -> str:
        """ "better", "equal" or "worse", by :data:`TOLERANCE`."""
        if abs(self.difference) <= TOLERANCE[self.metric] + 1e-9:
            return "equal"
        return "better" if self.difference > 0 else "worse"

    def cells(self) -> list[str]:
        """A row of the table."""
        return [
            self.name,
            self.inputs,
            self.metric,
            f"{np.median(self.ours):.3f}",
            f"{np.median(self.theirs):.3f}",
            f"{self.difference:+.3f}",
            f"{_spread(self.ours):.3f} / {_spread(self.theirs):.3f}",
            self.verdict,
        ]

    def line(self) -> str:
        """The row as text of fixed columns."""
        widths = (14, 6, 8, 9, 9, 9, 17, 6)
        return "  ".join(f"{cell:<{w}}" for cell, w in zip(self.cells(), widths, strict=True))


HEAD = ["data set", "inputs", "metric", "xpmlp", "scikit-learn", "difference", "spread", "verdict"]


def table(found: Sequence[Comparison]) -> str:
    """All rows as a Markdown table."""
    rows = [HEAD, ["---"] * len(HEAD), *(one.cells() for one in found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def compare(data: DataSet, scaled: bool, cache: Path | None = None) -> Comparison:
    """Train both estimators with their defaults and the set's options.

    Parameters
    ----------
    data : DataSet
    scaled : bool
        Whether inputs are standardized beforehand.
    cache : path, optional
        A folder that keeps scikit-learn's scores.
    """
    inputs = "scaled" if scaled else "raw"
    kind = "MLPClassifier" if data.classes else "MLPRegressor"
    mine, other = (partial(getattr(module, kind), **data.options) for module in (ours, theirs))
    return Comparison(
        data.name,
        inputs,
        "accuracy" if data.classes else "R²",
        scores(mine, data, scaled),
        remembered(cache, f"{data.name} {inputs}", lambda: scores(other, data, scaled)),
    )


def _spread(values: Sequence[float]) -> float:
    """The standard deviation over the seeds; of scores that are no better than chance, cut."""
    return min(float(np.std(values)), 999.0)
