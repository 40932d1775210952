"""What ``xpmlp train`` does unless told otherwise: one recipe for each kind of data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..choices import ActivationName, NormalizationName, OptimizerName, Precision, ScheduleName
from ..data import Dataset
from ..data.tables.recipe import (
    AVERAGE,
    BINS,
    DECAY,
    EPOCHS,
    FOLDS,
    HIDDEN,
    MEMBERS,
    PATIENCE,
    RATE,
    batch_rows,
)
from ..errors import ConfigError
from ..options import Number

_ONE_AT_LEAST, _COUNT = Number("[1, inf)", whole=True), Number("[0, inf)", whole=True)


@dataclass(frozen=True)
class Recipe:
    """Networks and how to train them; most fields are options of ``xpmlp train``.

    ``model`` is ``"mlp"`` or ``"conv"``, whose ``hidden`` are the channels of its convolutions;
    ``members`` networks are an ensemble, each trained without one of ``folds`` parts of the rows.
    ``bins`` are those of piecewise-linear codes of numbers. For ``average`` see
    :class:`~xpmlp.training.PopulationTrainer`. ``center`` says whether inputs are shifted to mean
    0. Images on a background of 0 are not, so that background pixels stay exactly 0; see
    :meth:`xpmlp.data.Normalization.fit`.
    """

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    lr: float
    dropout: float = 0.0
    activation: ActivationName = "relu"
    normalization: NormalizationName | None = "batchnorm"
    optimizer: OptimizerName = "adamw"
    schedule: ScheduleName = "onecycle"
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    precision: Precision | None = None
    validation: float = 0.1
    center: bool = True
    patience: int | None = None
    members: int = 1
    folds: int = 0
    bins: int = 0
    average: float = 0.0
    model: str = "mlp"

    def with_options(self, options: dict[str, Any]) -> Recipe:
        """The recipe with those options replaced that are not None."""
        given = {name: value for name, value in options.items() if value is not None}
        for name, least in (("members", _ONE_AT_LEAST), ("folds", _COUNT), ("bins", _COUNT)):
            if name in given:
                least.check("xpmlp train", name, given[name])
        if given.get("members") == 1 or given.get("validation", 0) > 0:
            # Rows held out take the place of folds; one network has nothing else to stop by.
            given = {"folds": 0, "validation": 0.1} | given
        if given.get("normalization") == "none":
            given["normalization"] = None
        return replace(self, **given)


_MNIST = Recipe(
    hidden=(512, 256),
    epochs=10,
    batch_size=128,
    lr=4e-3,
    label_smoothing=0.05,
    weight_decay=0.1,
    validation=5000,
    center=False,
)

RECIPES = {
    "digits": Recipe(
        hidden=(256, 128), epochs=60, batch_size=64, lr=3e-3, dropout=0.2, center=False
    ),
    "mnist": _MNIST,
    "fashion-mnist": replace(_MNIST, epochs=15, dropout=0.25),
    "cifar10": Recipe(
        hidden=(1024, 512), epochs=25, batch_size=256, lr=2e-3, dropout=0.4, weight_decay=0.05
    ),
}
"""Recipes for the data sets that are known by name."""

_CONV = Recipe(
    hidden=(32, 64, 128),
    epochs=15,
    batch_size=128,
    lr=4e-3,
    dropout=0.3,
    label_smoothing=0.05,
    weight_decay=0.05,
    validation=5000,
    center=False,
    model="conv",
)
CONVOLUTIONAL = {
    "digits": replace(_CONV, hidden=(32, 64), epochs=30, validation=0.1),
    "mnist": replace(_CONV, hidden=(32, 64), epochs=5),
    "fashion-mnist": replace(_CONV, hidden=(32, 64), epochs=10),
    "cifar10": replace(_CONV, center=True),
}
"""Recipes of convolutional networks, for the data sets that are images."""


def recipe_for(dataset: Dataset, model: str | None = None) -> Recipe:
    """The default recipe: the data set's own, or one that suits a table of its size.

    Raises
    ------
    ConfigError
        For convolutions of what are no images.
    """
    if model == "conv":
        return _convolutional_recipe(dataset)
    if dataset.name in RECIPES:
        return RECIPES[dataset.name]
    rows = len(dataset.x_train)
    if dataset.x_train.ndim == 2 and rows > MEMBERS:
        return Recipe(
            hidden=HIDDEN,
            epochs=EPOCHS,
            batch_size=batch_rows(rows),
            lr=RATE,
            normalization=None,
            schedule="constant",
            weight_decay=DECAY,
            validation=0,
            patience=PATIENCE,
            members=MEMBERS,
            folds=FOLDS,
            bins=BINS,
            average=AVERAGE,
        )
    return single_recipe(rows)


def _convolutional_recipe(dataset: Dataset) -> Recipe:
    """The data set's own; for other images, one that halves them until 4 to 7 pixels are left."""
    if dataset.name in CONVOLUTIONAL:
        return CONVOLUTIONAL[dataset.name]
    image = dataset.x_train.shape[1:]
    if len(image) not in (2, 3) or (len(image) == 3 and image[-1] < min(image[:2])):
        raise ConfigError(
            "`--model`: expected conv for images alone, (N, H, W) or (N, C, H, W), such as "
            f"{', '.join(CONVOLUTIONAL)}, got {dataset.name} of shape {dataset.x_train.shape}; "
            "leave it out, or move the channels"
        )
    halvings = max(1, min(image[-2:]).bit_length() - 3)
    return replace(
        _CONV,
        hidden=(32, 64, 128, 256)[:halvings],
        epochs=single_recipe(len(dataset.x_train)).epochs,
        validation=0.1,
        center=True,
    )


def single_recipe(rows: int) -> Recipe:
    """For one network on a table, or many to compare, with a part of the rows held out."""
    batch_size = 32 if rows < 5_000 else 128 if rows < 50_000 else 512
    # About 6,000 steps, which a small network settles in, whatever the table's length.
    epochs = max(10, min(200, 6_000 * batch_size // rows))
    return Recipe(
        hidden=(128, 64),
        epochs=epochs,
        batch_size=batch_size,
        lr=3e-3,
        dropout=0.1,
        normalization=None,
    )
