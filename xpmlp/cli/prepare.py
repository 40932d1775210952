"""A data set as ``xpmlp train`` and ``xpmlp sweep`` train on it, and how it is known again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..data import DATASET_NAMES, Dataset, Normalization
from ..data.orders import group_folds
from ..data.tables import NumberCodes
from ..data.tables.content import read_content
from ..data.tables.reader import digest_of
from ..errors import ConfigError, DataError
from ..files import expanded
from .recipes import Recipe


@dataclasses.dataclass
class Prepared:
    """A data set as it is trained on, and what turns predictions back.

    Attributes
    ----------
    x, y : ndarray
        To train on; the targets of a regression are columns, normalized.
    validation : (x, y) or None
    normalization : Normalization
        Of the inputs.
    target_normalization : Normalization or None
        Of a regression's targets.
    columns : ndarray of int or None
        Which inputs differ between the rows trained on: weights of the others would never be
        trained, so they are not part of the network. None where all of them do.
    codes : NumberCodes or None
        How they are written, in place of the normalization: x has their positions.
    """

    x: np.ndarray
    y: np.ndarray
    validation: tuple[np.ndarray, np.ndarray] | None
    normalization: Normalization
    target_normalization: Normalization | None
    columns: np.ndarray | None = None
    codes: NumberCodes | None = None

    @property
    def bounds(self) -> list[list[float]] | None:
        """The least and the largest of a regression's targets, normalized."""
        if self.target_normalization is None:
            return None
        return [self.y.min(axis=0).tolist(), self.y.max(axis=0).tolist()]

    def select(self, x: np.ndarray) -> np.ndarray:
        """The inputs that the network has, of other rows."""
        if self.codes is not None:
            return self.codes.positions(x)
        return x if self.columns is None else x[:, self.columns]

    def extras(self, dataset: Dataset) -> dict[str, Any]:
        """What a model file says beside the network, for ``xpmlp evaluate`` and ``predict``."""
        target = self.target_normalization
        return {
            "dataset": dataset.name,
            "classes": dataset.classes,
            "features": dataset.features,
            "normalization": self.normalization.to_dict(),
            "target_normalization": target and target.to_dict(),
            "table": dataset.table and dataset.table.to_dict(),
            "columns": None if self.columns is None else self.columns.tolist(),
            "codes": self.codes and self.codes.to_dict(),
            "bounds": self.bounds,
        }


def prepare(dataset: Dataset, recipe: Recipe, seed: int) -> Prepared:
    """Split off validation data and fit the normalizations on the rest."""
    (x, y), validation = _split(dataset, recipe.validation, seed)
    images = dataset.x_train.ndim > 2
    if recipe.bins and not images:
        return _coded(x, y, validation, dataset, recipe)
    columns = None if images else _varying(x, dataset)
    if columns is not None:
        x = x[:, columns]
        validation = validation and (validation[0][:, columns], validation[1])
    normalization = Normalization.fit(x, per_feature=not images, center=recipe.center)
    if dataset.classes is not None:
        return Prepared(x, y, validation, normalization, None, columns)
    y, validation, target_normalization = _normalized_targets(y, validation)
    return Prepared(x, y, validation, normalization, target_normalization, columns)


def _coded(x: Any, y: Any, validation: Any, dataset: Dataset, recipe: Recipe) -> Prepared:
    """The same with numbers scaled and coded, in the way of the rows to train on."""
    table = dataset.table
    codes = NumberCodes(recipe.bins).fit(
        x,
        y,
        numbers=table and table.encoder.numbers,
        names=dataset.features,
        categories=table and table.encoder.categories,
    )
    x = codes.positions(x)
    validation = validation and (codes.positions(validation[0]), validation[1])
    as_it_is = Normalization(np.zeros(x.shape[1]), np.ones(x.shape[1]))
    if dataset.classes is not None:
        return Prepared(x, y, validation, as_it_is, None, None, codes)
    y, validation, targets = _normalized_targets(y, validation)
    return Prepared(x, y, validation, as_it_is, targets, None, codes)


def _normalized_targets(y: Any, validation: Any) -> tuple[Any, Any, Normalization]:
    normalization = Normalization.fit(y)
    y, *rest = (as_columns(normalization.apply(part)) for part in (y, *_ys(validation)))
    return y, (validation[0], rest[0]) if validation is not None else None, normalization


def _varying(x: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Columns with more than one value, or None if all are such."""
    varying = x.min(axis=0) < x.max(axis=0)
    if varying.all():
        return None
    if not varying.any():
        raise DataError(
            f"`{dataset.name}`: expected inputs that differ between rows, got the same values in "
            "all of them; check the columns"
        )
    return np.flatnonzero(varying)


def identity_of(dataset: Dataset) -> dict[str, Any] | None:
    """Which file a data set is from, for ``xpmlp evaluate`` to find it and to know it again."""
    path = expanded(dataset.source)
    if dataset.table is not None:
        found = {"path": str(path.resolve())} if dataset.source != "-" else {}
        return found | dataset.table.identity()
    if dataset.name in DATASET_NAMES or not path.is_file():
        return None
    rows = len(dataset.x_train) + len(dataset.x_test)
    return {"path": str(path.resolve()), "sha256": digest_of(read_content(path)), "rows": rows}


def folds_of_recipe(dataset: Dataset, recipe: Recipe, seed: int) -> Any:
    """Which rows an ensemble's members leave out: whole groups, or stretches of time."""
    if recipe.members < 2 or not recipe.folds:
        return None
    table = dataset.table
    if table is not None and table.groups is not None:
        return group_folds(table.groups, recipe.folds, seed=seed)
    if table is not None and table.ordered:
        return np.array_split(np.arange(len(dataset.x_train)), recipe.folds)
    return recipe.folds


def _split(dataset: Dataset, validation: float, seed: int) -> tuple:
    if not (0 <= validation < 1 or validation == int(validation) >= 1):
        raise ConfigError(
            "`--validation`: expected a share such as 0.1, a count such as 5000, or 0 for none, "
            f"got {validation:g}"
        )
    if validation == 0:
        return (dataset.x_train, dataset.y_train), None
    size = int(validation) if validation >= 1 else validation
    return dataset.split_validation(size, seed)


def _ys(validation: tuple | None) -> tuple:
    return () if validation is None else (validation[1],)


def as_columns(y: np.ndarray) -> np.ndarray:
    """Targets of a regression, (N, M)."""
    return y if y.ndim == 2 else y[:, None]


def count_outputs(dataset: Dataset) -> int:
    """How many outputs a network for a data set needs."""
    if dataset.classes is not None:
        return len(dataset.classes)
    return 1 if dataset.y_train.ndim == 1 else dataset.y_train.shape[1]
