"""Fit an estimator on a data set with five seeds and score it on rows that it has not seen."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler

from .data_sets import DataSet

SEEDS = range(5)
FOLDS = 5  # of a set with fewer than FEW_ROWS rows
FEW_ROWS = 1_000
TEST_SHARE = 0.3  # of a larger one, which is split once a seed

Make = Callable[..., Any]


def scores(make: Make, data: DataSet, scaled: bool) -> list[float]:
    """Accuracy or R² for every seed; of a small set, the mean over the folds.

    Parameters
    ----------
    make : callable
        Of ``random_state=``; gives an estimator.
    data : DataSet
    scaled : bool
        Whether inputs are standardized by training rows first, or taken as they are.
    """
    return [float(np.mean(list(_fold_scores(make, data, scaled, seed)))) for seed in SEEDS]


def _fold_scores(make: Make, data: DataSet, scaled: bool, seed: int) -> Iterator[float]:
    for train, test in _splits(data, seed):
        X_train, X_test = data.X[train], data.X[test]
        if scaled:
            scaler = StandardScaler().fit(X_train)
            X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that 200 epochs did not suffice, of most of these
            model = make(random_state=seed).fit(X_train, data.y[train])
        yield model.score(X_test, data.y[test])


def _splits(data: DataSet, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    options: dict[str, Any] = {"random_state": seed}
    if len(data.X) < FEW_ROWS:
        kind = StratifiedKFold if data.classes else KFold
        splitter = kind(FOLDS, shuffle=True, **options)
    else:
        kind = StratifiedShuffleSplit if data.classes else ShuffleSplit
        splitter = kind(1, test_size=TEST_SHARE, **options)
    return splitter.split(data.X, data.y if data.classes else None)


def remembered(folder: Path | None, name: str, compute: Callable[[], list[float]]) -> list[float]:
    """What ``compute`` gives; of a folder's file if it has been computed before."""
    if folder is None:
        return compute()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name} {sklearn.__version__}.json".replace(" ", "-")
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    values = compute()
    path.write_text(json.dumps(values), encoding="utf-8")
    return values
