"""``xpmlp train``: from a data set's name to a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, get_backend, to_numpy
from ..calibration import fit_temperature
from ..data import DATASET_NAMES, Dataset, Normalization
from ..data.orders import group_folds
from ..data.tables import NumberCodes
from ..data.tables.content import read_content
from ..data.tables.reader import digest_of
from ..data.tables.recipe import PATIENCE_SHARE, drops_last
from ..errors import ConfigError, DataError
from ..files import expanded
from ..losses import MSE, SoftmaxCrossEntropy
from ..metrics import r2
from ..models import FullyConnectedNet
from ..ops.dispatch import kernel_summary
from ..ops.shapes import check_choice
from ..optim import OPTIMIZERS
from ..training import (
    Callback,
    Checkpoint,
    EarlyStopping,
    History,
    PopulationHistory,
    PopulationTrainer,
    SaveHistory,
    Trainer,
    save_model,
)
from ..training.out_of_fold import LOSS
from ..training.state_file import CHECKPOINT
from .recipes import Recipe
from .runs import (
    CONFIG,
    MODEL,
    RESULT,
    attempt,
    finish_run,
    is_unfinished,
    new_run,
    old_run,
    write_json,
)
from .together import TEMPERATURE, answers


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
        How they are written, in place of the normalization.
    """

    x: np.ndarray
    y: np.ndarray
    validation: tuple[np.ndarray, np.ndarray] | None
    normalization: Normalization
    target_normalization: Normalization | None
    columns: np.ndarray | None = None
    codes: NumberCodes | None = None

    def select(self, x: np.ndarray) -> np.ndarray:
        """The inputs that the network has, of other rows."""
        if self.codes is not None:
            return self.codes.transform(x)
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
        x, y, numbers=table and table.encoder.numbers, names=dataset.features
    )
    x = codes.transform(x)
    validation = validation and (codes.transform(validation[0]), validation[1])
    as_it_is = Normalization(np.zeros(x.shape[1]), np.ones(x.shape[1]))
    if dataset.classes is not None:
        return Prepared(x, y, validation, as_it_is, None, None, codes)
    y, validation, targets = _normalized_targets(y, validation)
    return Prepared(x, y, validation, as_it_is, targets, None, codes)


def _normalized_targets(y: Any, validation: Any) -> tuple[Any, Any, Normalization]:
    normalization = Normalization.fit(y)
    y, *rest = (_as_columns(normalization.apply(part)) for part in (y, *_ys(validation)))
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
    save_every: float = 30.0,
    resume: Path | None = None,
    strict: bool = True,
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
    save_every : float
        Seconds between two checkpoints, at least.
    resume : path, optional
        The folder of a run that was stopped, to go on with it.
    strict : bool
        Whether to refuse to go on with other data, settings or another version.

    Returns
    -------
    folder : path
    result : dict
        What ``result.json`` holds.
    """
    backend = get_backend()
    data = prepare(dataset, recipe, seed)
    model = _build(data, dataset, recipe, seed, dtype)
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
    with new_run(out, dataset.name) if resume is None else old_run(resume) as folder:
        trainer = _trainer(
            model,
            recipe,
            seed,
            data.normalization,
            dataset.classes is None,
            progress,
            folder,
            data.validation is not None,
            _folds(dataset, recipe, seed),
            len(data.x),
            save_every,
        )
        if resume is None or not strict:
            write_json(folder / CONFIG, config)
        # Stopped before the first checkpoint, a run begins again.
        saved = folder / CHECKPOINT if resume is not None and is_unfinished(folder) else None
        history = trainer.fit(data.x, data.y, data.validation, resume=saved, strict=strict)
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)  # someone may have removed it meanwhile
        temperature = _fit_temperature(trainer, data.y)
        save_model(folder / MODEL, model, data.extras(dataset) | {TEMPERATURE: temperature})
        result = _result(dataset, model, trainer, history, seed, backend, data, temperature)
        attempt("the result", write_json, folder / RESULT, result)
        if plots and importlib.util.find_spec("matplotlib") is not None:
            from ..plots import plot_history

            attempt("the picture", plot_history, history.rows, folder / "history.png")
        if not history.interrupted:
            finish_run(folder)
    return folder, result


def score(
    model: FullyConnectedNet,
    x: np.ndarray,
    y: np.ndarray,
    normalization: Normalization,
    target_normalization: Normalization | None,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Loss and accuracy of a classifier, or loss, R² and RMSE (in the targets' units)."""
    if model.population is not None:
        return _score_together(model, normalization.apply(x), y, target_normalization, temperature)
    trainer = Trainer(model, _loss(0.0, target_normalization), normalization=normalization)
    if target_normalization is None:
        return trainer.evaluate(x, y)
    scores = trainer.evaluate(x, _as_columns(target_normalization.apply(y)))
    outputs = to_numpy(model.predict(normalization.apply(x, model.dtype))).astype(np.float64)
    predicted = target_normalization.undo(outputs)
    scores["rmse"] = float(np.sqrt(np.mean((predicted - _as_columns(y)) ** 2)))
    return scores


def _score_together(
    model: FullyConnectedNet, x: Any, y: Any, targets: Normalization | None, temperature: float
) -> dict[str, Any]:
    """The same of an ensemble: of the mean of its members' answers."""
    found = answers(model, x, temperature).astype(np.float64)
    if targets is None:
        true = np.maximum(found[np.arange(len(y)), y], 1e-7)
        hits = found.argmax(axis=1) == y
        return {"loss": float(-np.mean(np.log(true))), "accuracy": float(np.mean(hits))}
    wanted = _as_columns(targets.apply(y)).astype(np.float64)
    errors = targets.undo(found) - _as_columns(y)
    return {
        "loss": float(np.mean((found - wanted) ** 2)),
        "r2": float(r2(found, wanted)),
        "rmse": float(np.sqrt(np.mean(errors**2))),
    }


def _folds(dataset: Dataset, recipe: Recipe, seed: int) -> Any:
    """Which rows an ensemble's members leave out: whole groups, or stretches of time."""
    if recipe.members < 2 or not recipe.folds:
        return None
    table = dataset.table
    if table is not None and table.groups is not None:
        return group_folds(table.groups, recipe.folds, seed=seed)
    if table is not None and table.ordered:
        return np.array_split(np.arange(len(dataset.x_train)), recipe.folds)
    return recipe.folds


def _fit_temperature(trainer: Trainer, y: np.ndarray) -> float | None:
    """Of an ensemble of classifiers, by the rows that its members were not trained on."""
    held = getattr(trainer, "out_of_fold", None)
    model: Any = trainer.model
    if held is None or model.output != "softmax":
        return None
    mean, known = held.outputs(model)
    return fit_temperature(mean[known], y[known])


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
        population=recipe.members if recipe.members > 1 else None,
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
    folds: Any,
    rows: int,
    save_every: float,
) -> Trainer:
    check_choice("xpmlp train", "optimizer", recipe.optimizer, tuple(OPTIMIZERS))
    callbacks: list[Callback] = [
        SaveHistory(folder / "history.csv"),
        Checkpoint(folder / CHECKPOINT, every=save_every, at_end=False),
    ]
    held = "val_loss" if folds is None else LOSS
    if recipe.patience is not None:
        monitor = held if validated or folds is not None else "train_loss"
        share = None if folds is None else PATIENCE_SHARE
        callbacks.append(EarlyStopping(recipe.patience, monitor=monitor, share=share))
    options: dict[str, Any] = {"normalization": normalization}
    maker: type[Trainer] = Trainer
    if model.population is not None:
        maker = PopulationTrainer
        options = {"folds": folds, "average": recipe.average, "sampling": "own"}
        seen = rows - -(-rows // recipe.folds) if recipe.folds else rows
        options["drop_last"] = drops_last(seen, recipe.batch_size)
    if recipe.bins:  # a table: by its loss, since few rows make coarse accuracies
        options["monitor"] = held
    return maker(
        model,
        MSE() if regression else SoftmaxCrossEntropy(label_smoothing=recipe.label_smoothing),
        OPTIMIZERS[recipe.optimizer](
            recipe.lr, weight_decay=recipe.weight_decay, schedule=recipe.schedule
        ),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        clip_norm=recipe.clip_norm,
        callbacks=callbacks,
        progress=progress,
        seed=seed,
        **options,
    )


def _result(
    dataset: Dataset,
    model: FullyConnectedNet,
    trainer: Trainer,
    history: History,
    seed: int,
    backend: Any,
    data: Prepared,
    temperature: float | None = None,
) -> dict[str, Any]:
    test = score(
        model,
        data.select(dataset.x_test),
        dataset.y_test,
        data.normalization,
        data.target_normalization,
        temperature or 1.0,
    )
    best = best_epoch(history)
    kept = history.rows[(best or len(history)) - 1]
    return {
        "dataset": dataset.name,
        "backend": backend.name,
        "device": device_name(backend),
        "kernels": kernel_summary(backend.name),
        "seed": seed,
        "epochs": len(history),
        "best_epoch": best,
        "ending": ending_of(history),
        "steps": trainer.optimizer.steps,
        "parameters": sum(math.prod(p.shape) for p in model.params.values()),
        "train_seconds": round(history.seconds, 3),
        "train_loss": kept["train_loss"],
        "val_loss": kept.get("val_loss", kept.get(LOSS)),
        "val_accuracy": kept.get("val_accuracy", kept.get("ensemble_accuracy")),
        "test_loss": test["loss"],
        "test_accuracy": test.get("accuracy"),
        **{f"test_{name}": test[name] for name in ("r2", "rmse") if name in test},
        "version": __version__,
    }


def best_epoch(history: History) -> int | None:
    """The epoch whose parameters were kept; of a population, that of most members."""
    if isinstance(history, PopulationHistory):
        return int(np.median(history.best_epochs)) or None
    return history.best_epoch


def ending_of(history: History) -> str:
    """How a training ended; of a population whose members ended alike, how they did."""
    if isinstance(history, PopulationHistory) and history.ending == "finished":
        ways = {ending.partition(":")[0] for ending in history.endings}
        return history.endings[0] if len(ways) == 1 else history.ending
    return history.ending


def device_name(backend: Any) -> str:
    return "cpu" if backend.device is None else str(backend.device)
