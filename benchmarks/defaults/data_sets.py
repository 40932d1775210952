"""The data sets: scikit-learn's bundled ones, its generated ones, and tables from a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets as sk

MOST_ROWS = 3_000  # of a table from a folder; more are sampled
MOST_CATEGORIES = 20  # of a text column, or it is left out; of a target of numbers, or none are


@dataclass(frozen=True)
class DataSet:
    """Inputs (N, D) and targets: class numbers (N,), or floats (N,) or (N, M)."""

    name: str
    X: np.ndarray
    y: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    """Of both estimators; none but where the defaults of both stop long before the end."""

    @property
    def classes(self) -> bool:
        """Whether the targets are classes."""
        return self.y.dtype.kind in "iu"


def _sine() -> tuple[np.ndarray, np.ndarray]:
    X = np.linspace(-3.0, 3.0, 500)[:, None]
    return X, np.sin(2.0 * X[:, 0])


def _units() -> tuple[np.ndarray, np.ndarray]:
    """Inputs in very different units, a target around ten million."""
    X, y = sk.make_friedman1(500, noise=1.0, random_state=1)
    return X * 10.0 ** np.arange(-4, 6), 1e7 + 1e5 * y


def _signs() -> tuple[np.ndarray, np.ndarray]:
    """A class that no straight line finds: whether two inputs have one sign."""
    X = np.random.default_rng(0).normal(size=(500, 4))
    return X, (X[:, 0] * X[:, 1] > 0).astype(np.int64)


def _swiss_roll() -> tuple[np.ndarray, np.ndarray]:
    return sk.make_swiss_roll(600, noise=0.3, random_state=0)


SOURCES: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "iris": lambda: sk.load_iris(return_X_y=True),
    "wine": lambda: sk.load_wine(return_X_y=True),
    "breast cancer": lambda: sk.load_breast_cancer(return_X_y=True),
    "digits": lambda: sk.load_digits(return_X_y=True),
    "moons": lambda: sk.make_moons(500, noise=0.25, random_state=0),
    "circles": lambda: sk.make_circles(500, noise=0.15, factor=0.5, random_state=0),
    "blobs": lambda: sk.make_blobs(300, 3, centers=5, cluster_std=2.5, random_state=0)[:2],
    "quantiles": lambda: sk.make_gaussian_quantiles(
        n_samples=600, n_features=5, n_classes=3, random_state=0
    ),
    "hastie": lambda: sk.make_hastie_10_2(1500, random_state=0),
    "hypercube": lambda: sk.make_classification(
        800, 20, n_informative=8, n_classes=4, class_sep=1.2, random_state=0
    ),
    "signs": _signs,
    "diabetes": lambda: sk.load_diabetes(return_X_y=True),
    "sine": _sine,
    "sine, longer": _sine,
    "friedman 1": lambda: sk.make_friedman1(500, noise=1.0, random_state=0),
    "friedman 2": lambda: sk.make_friedman2(500, noise=50.0, random_state=0),
    "friedman 3": lambda: sk.make_friedman3(500, noise=0.1, random_state=0),
    "linear": lambda: sk.make_regression(300, 15, n_informative=8, noise=20.0, random_state=0)[:2],
    "three targets": lambda: sk.make_regression(
        400, 10, n_informative=6, n_targets=3, noise=10.0, random_state=0
    )[:2],
    "sparse": lambda: sk.make_sparse_uncorrelated(500, 10, random_state=0),
    "swiss roll": _swiss_roll,
    "units": _units,
}
"""Name and maker of each set that needs no download."""

OPTIONS: dict[str, dict[str, Any]] = {
    "sine, longer": {
        "hidden_layer_sizes": (64, 64),
        "learning_rate_init": 0.01,
        "max_iter": 500,
    }
}
"""What both estimators get beside their defaults."""


def bundled() -> Iterator[DataSet]:
    """Every set of :data:`SOURCES`."""
    for name, make in SOURCES.items():
        X, y = make()
        integers = y.dtype.kind in "iu" or name == "hastie"  # whose classes are −1.0 and 1.0
        y = y.astype(np.int64 if integers else np.float64)
        yield DataSet(name, X.astype(np.float64), y, OPTIONS.get(name, {}))


def from_folder(folder: Path) -> Iterator[DataSet]:
    """Every ``*.csv`` and ``*.csv.gz`` of a folder: a header, then rows, the target last.

    Text becomes 0/1 columns, missing numbers the column's median. Targets that are
    text, or numbers of few values, are classes.
    """
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")]):
        table = pd.read_csv(path)
        target = table.iloc[:, -1]
        table = table[target.notna()]
        if len(table) > MOST_ROWS:
            table = table.sample(MOST_ROWS, random_state=0)
        target = table.iloc[:, -1]
        classes = target.dtype.kind not in "iuf" or len(target.unique()) <= MOST_CATEGORIES
        y = pd.factorize(target, sort=True)[0] if classes else target.to_numpy(np.float64)
        yield DataSet(path.name.partition(".")[0], _numbers(table.iloc[:, :-1]), y)


def _numbers(inputs: pd.DataFrame) -> np.ndarray:
    text = [name for name in inputs if inputs[name].dtype.kind not in "biuf"]
    many = [name for name in text if len(inputs[name].unique()) > MOST_CATEGORIES]
    inputs = pd.get_dummies(inputs.drop(columns=many), columns=[n for n in text if n not in many])
    inputs = inputs.astype(np.float64)
    return inputs.fillna(inputs.median()).fillna(0.0).to_numpy()
