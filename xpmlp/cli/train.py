"""``xpmlp train``: from a data set's name to a run folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, get_backend, to_numpy
from ..data import DATASET_NAMES, Dataset, Normalization
from ..data.tables.content import read_content
from ..data.tables.reader import digest_of
from ..errors import ConfigError, DataError
from ..files import expanded
from ..losses import MSE, SoftmaxCrossEntropy
from ..models import FullyConnectedNet
from ..ops.dispatch import kernel_summary
from ..ops.shapes import check_choice
from ..optim import OPTIMIZERS
from ..training import Callback, EarlyStopping, History, SaveHistory, Trainer, save_model
from .recipes import Recipe
from .runs import MODEL, create_run_folder, discard_run_folder, write_json


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
    """

    x: np.ndarray
    y: np.ndarray
    validation: tuple[np.ndarray, np.ndarray] | None
    normalization: Normalization
    target_normalization: Normalization | None
    columns: np.ndarray | None = None

    def select(self, x: np.ndarray) -> np.ndarray:
        """The inputs that the network has, of other rows."""
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
        }


def prepare(dataset: Dataset, recipe: Recipe, seed: int) -> Prepared:
    """Split off validation data and fit the normalizations on the rest."""
    (x, y), validation = _split(dataset, recipe.validation, seed)
    images = dataset.x_train.ndim > 2
    columns = None if images else _varying(x, dataset)
    if columns is not None:
        x = x[:, columns]
        validation = validation and (validation[0][:, columns], validation[1])
    normalization = Normalization.fit(x, per_feature=not images, center=recipe.center)
    if dataset.classes is not None:
        return Prepared(x, y, validation, normalization, None, columns)
    target_normalization = Normalization.fit(y)
    y, *rest = (_as_columns(target_normalization.apply(part)) for part in (y, *_ys(validation)))
    validation = (validation[0], rest[0]) if validation is not None else None
    return Prepared(x, y, validation, normalization, target_normalization, columns)


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


def train(
    dataset: Dataset,
    recipe: Recipe,
    *,
    data_options: dict[str, Any],
    seed: int = 0,
    dtype: str = "float32",
    out: Path | None = None,
    progress: bool = True,
    plots: bool = True,
) -> tuple[Path, dict[str, Any]]:
    """Train as a recipe says, test once at the end, and leave a run folder.

    Parameters
    ----------
    dataset : Dataset
    recipe : Recipe
    data_options : dict
        How the data set was loaded, for ``xpmlp evaluate`` to load it again.
    seed : int
        Of the initial weights, dropout masks, batch order and validation split.
    dtype : str
    out : path, optional
    progress, plots : bool

    Returns
    -------
    folder : path
    result : dict
        What ``result.json`` holds.
    """
    backend = get_backend()
    regression = dataset.classes is None
    data = prepare(dataset, recipe, seed)
    model = _build(data, dataset, recipe, seed, dtype)
    folder = create_run_folder(out, dataset.name)
    try:
        config = {
            "xpmlp": __version__,
            "data": data_options,
            "identity": identity_of(dataset),
            "recipe": dataclasses.asdict(recipe),
            "model": model.config,
            "seed": seed,
            "backend": backend.name,
            "device": device_name(backend),
        }
        write_json(folder / "config.json", config)
        trainer = _trainer(
            model,
            recipe,
            seed,
            data.normalization,
            regression,
            progress,
            folder,
            data.validation is not None,
        )
        history = trainer.fit(data.x, data.y, data.validation)
    except BaseException:
        discard_run_folder(folder)
        raise
    save_model(folder / MODEL, model, data.extras(dataset))
    result = _result(dataset, model, trainer, history, seed, backend, data)
    write_json(folder / "result.json", result)
    if plots and importlib.util.find_spec("matplotlib") is not None:
        from ..plots import plot_history

        plot_history(history.rows, folder / "history.png")
    return folder, result


def score(
    model: FullyConnectedNet,
    x: np.ndarray,
    y: np.ndarray,
    normalization: Normalization,
    target_normalization: Normalization | None,
) -> dict[str, Any]:
    """Loss and accuracy of a classifier, or loss, R² and RMSE (in the targets' units)."""
    trainer = Trainer(model, _loss(0.0, target_normalization), normalization=normalization)
    if target_normalization is None:
        return trainer.evaluate(x, y)
    scores = trainer.evaluate(x, _as_columns(target_normalization.apply(y)))
    outputs = to_numpy(model.predict(normalization.apply(x, model.dtype))).astype(np.float64)
    predicted = target_normalization.undo(outputs)
    scores["rmse"] = float(np.sqrt(np.mean((predicted - _as_columns(y)) ** 2)))
    return scores


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


def _as_columns(y: np.ndarray) -> np.ndarray:
    return y if y.ndim == 2 else y[:, None]


def count_outputs(dataset: Dataset) -> int:
    """How many outputs a network for a data set needs."""
    if dataset.classes is not None:
        return len(dataset.classes)
    return 1 if dataset.y_train.ndim == 1 else dataset.y_train.shape[1]


def _build(
    data: Prepared, dataset: Dataset, recipe: Recipe, seed: int, dtype: str
) -> FullyConnectedNet:
    inputs = math.prod(data.x.shape[1:])
    return FullyConnectedNet(
        [inputs, *recipe.hidden, count_outputs(dataset)],
        activation=recipe.activation,
        normalization=recipe.normalization,
        dropout=recipe.dropout,
        output="identity" if dataset.classes is None else "softmax",
        seed=seed,
        dtype=dtype,
    )


def _loss(label_smoothing: float, target_normalization: Any) -> SoftmaxCrossEntropy | MSE:
    if target_normalization is not None:
        return MSE()
    return SoftmaxCrossEntropy(label_smoothing=label_smoothing)


def _trainer(
    model: FullyConnectedNet,
    recipe: Recipe,
    seed: int,
    normalization: Normalization,
    regression: bool,
    progress: bool,
    folder: Path,
    validated: bool,
) -> Trainer:
    check_choice("xpmlp train", "optimizer", recipe.optimizer, tuple(OPTIMIZERS))
    callbacks: list[Callback] = [SaveHistory(folder / "history.csv")]
    if recipe.patience is not None:
        callbacks.append(
            EarlyStopping(recipe.patience, monitor="val_loss" if validated else "train_loss")
        )
    return Trainer(
        model,
        MSE() if regression else SoftmaxCrossEntropy(label_smoothing=recipe.label_smoothing),
        OPTIMIZERS[recipe.optimizer](
            recipe.lr, weight_decay=recipe.weight_decay, schedule=recipe.schedule
        ),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        clip_norm=recipe.clip_norm,
        normalization=normalization,
        callbacks=callbacks,
        progress=progress,
        seed=seed,
    )


def _result(
    dataset: Dataset,
    model: FullyConnectedNet,
    trainer: Trainer,
    history: History,
    seed: int,
    backend: Any,
    data: Prepared,
) -> dict[str, Any]:
    test = score(
        model,
        data.select(dataset.x_test),
        dataset.y_test,
        data.normalization,
        data.target_normalization,
    )
    kept = history.rows[(history.best_epoch or len(history)) - 1]
    return {
        "dataset": dataset.name,
        "backend": backend.name,
        "device": device_name(backend),
        "kernels": kernel_summary(backend.name),
        "seed": seed,
        "epochs": len(history),
        "best_epoch": history.best_epoch,
        "ending": history.ending,
        "steps": trainer.optimizer.steps,
        "parameters": sum(math.prod(p.shape) for p in model.params.values()),
        "train_seconds": round(history.seconds, 3),
        "train_loss": kept["train_loss"],
        "val_loss": kept.get("val_loss"),
        "val_accuracy": kept.get("val_accuracy"),
        "test_loss": test["loss"],
        "test_accuracy": test.get("accuracy"),
        **{f"test_{name}": test[name] for name in ("r2", "rmse") if name in test},
        "version": __version__,
    }


def device_name(backend: Any) -> str:
    return "cpu" if backend.device is None else str(backend.device)
