"""``xpmlp train``: from a data set's name to a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, get_backend
from ..calibration import fit_temperature
from ..choices import FloatName
from ..communication import Communicator, is_first
from ..data import Dataset, Normalization
from ..data.tables.recipe import PATIENCE_SHARE, drops_last
from ..errors import ConfigError
from ..losses import MSE, SoftmaxCrossEntropy
from ..models import ConvNet, FullyConnectedNet
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
from ..training.progress import Progress
from ..training.state_file import CHECKPOINT
from . import warned
from .predict import answers_in_units
from .prepare import Prepared, count_outputs, folds_of_recipe, identity_of, prepare
from .recipes import Recipe
from .report import REPORT, leave_report, scored_rows, scores_of, summary_of
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
from .scores import score
from .together import TEMPERATURE


def train(
    dataset: Dataset,
    recipe: Recipe,
    *,
    data_options: dict[str, Any],
    seed: int = 0,
    dtype: FloatName = "float32",
    out: Path | None = None,
    progress: bool = True,
    verbose: bool = False,
    plots: bool = True,
    report: bool = True,
    save_every: float = 30.0,
    resume: Path | None = None,
    strict: bool = True,
    ranks: Communicator | None = None,
) -> tuple[Path, dict[str, Any] | None]:
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
    progress, plots, report : bool
    verbose : bool
        Whether each epoch is told where there is no terminal.
    save_every : float
        Seconds between two checkpoints, at least.
    resume : path, optional
        The folder of a run that was stopped, to go on with it.
    strict : bool
        Whether to refuse to go on with other data, settings or another version.
    ranks : Communicator, optional
        Other processes that train the same network.

    Returns
    -------
    folder : path
    result : dict or None
        What ``result.json`` holds; of several ranks, only the first one has it, and a folder.

    Raises
    ------
    ConfigError
        If several ranks should train an ensemble.
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
        "summary": summary_of(dataset),
    }
    folds = folds_of_recipe(dataset, recipe, seed)
    if ranks is not None and model.population is not None and folds is not None:
        raise ConfigError(
            f"`xpmlp train`: expected one network for {ranks.size} processes to train together, or "
            f"networks that need not know of each other, got an ensemble of {model.population} "
            "judged out of fold; ask for --members 1, or start one process"
        )
    with _folder(resume, out, dataset.name, ranks) as folder:
        trainer = _trainer(
            model,
            recipe,
            seed,
            data.normalization,
            dataset.classes is None,
            [Progress(verbose)] if progress else [],
            folder,
            data.validation is not None,
            folds,
            len(data.x),
            save_every,
            ranks,
        )
        if (resume is None or not strict) and is_first(ranks):
            write_json(folder / CONFIG, config)
        # Stopped before the first checkpoint, a run begins again.
        begun = resume is not None and is_unfinished(folder)
        begun = begun if ranks is None else ranks.broadcast(begun)  # of the first one's folder
        saved = folder / CHECKPOINT if begun else None
        history = trainer.fit(data.x, data.y, data.validation, resume=saved, strict=strict)
        if not is_first(ranks):
            return folder, None
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)  # someone may have removed it meanwhile
        temperature = _fit_temperature(trainer, data.y)
        extras = data.extras(dataset) | {TEMPERATURE: temperature}
        save_model(folder / MODEL, model, extras)
        result = _result(dataset, model, trainer, history, seed, backend, data, temperature)
        attempt("the result", write_json, folder / RESULT, result)
        if plots and importlib.util.find_spec("matplotlib") is not None:
            from ..plots import plot_history

            attempt("the picture", plot_history, history.rows, folder / "history.png")
        if report:
            attempt("the report", _report, folder, model, dataset, data, extras, config, result)
        if not history.interrupted:
            finish_run(folder)
    return folder, result


def _folder(resume: Path | None, out: Path | None, name: str, ranks: Communicator | None) -> Any:
    """The run's folder, for the first rank alone."""
    if not is_first(ranks):
        return contextlib.nullcontext(resume or out or Path("runs"))
    return new_run(out, name) if resume is None else old_run(resume)


def _report(
    folder: Path,
    model: FullyConnectedNet,
    dataset: Dataset,
    data: Prepared,
    extras: dict[str, Any],
    config: dict[str, Any],
    result: dict[str, Any],
) -> None:
    answered = answers_in_units(model, data.select(dataset.x_test), extras)
    scored = scored_rows(
        f"the test rows of {dataset.name}",
        dataset.x_test,
        dataset.y_test,
        answered,
        extras,
    )
    leave_report(folder / REPORT, folder, model, extras, config, scored, scores_of(result))


def _fit_temperature(trainer: Trainer, y: np.ndarray) -> float | None:
    """Of an ensemble of classifiers, by the rows that its members were not trained on."""
    held = getattr(trainer, "out_of_fold", None)
    model: Any = trainer.model
    if held is None or model.output != "softmax":
        return None
    mean, known = held.outputs(model)
    return fit_temperature(mean[known], y[known])


def _build(data: Prepared, dataset: Dataset, recipe: Recipe, seed: int, dtype: FloatName) -> Any:
    inputs = math.prod(data.x.shape[1:])
    if recipe.model == "conv":
        return _convolutional(dataset, recipe, seed, dtype)
    return FullyConnectedNet(
        [inputs, *recipe.hidden, count_outputs(dataset)],
        activation=recipe.activation,
        normalization=recipe.normalization,
        dropout=recipe.dropout,
        output="identity" if dataset.classes is None else "softmax",
        population=recipe.members if recipe.members > 1 else None,
        seed=seed,
        columns=None if data.codes is None else data.codes.of_network,
        dtype=dtype,
    )


def _convolutional(dataset: Dataset, recipe: Recipe, seed: int, dtype: FloatName) -> ConvNet:
    if recipe.members > 1:
        raise ConfigError(
            f"`xpmlp train`: expected one convolutional network, got {recipe.members} members; "
            "leave out --members"
        )
    image = dataset.x_train.shape[1:]
    return ConvNet(
        [(1, *image) if len(image) == 2 else image, *recipe.hidden, count_outputs(dataset)],
        activation=recipe.activation,
        normalization=recipe.normalization,
        dropout=recipe.dropout,
        output="identity" if dataset.classes is None else "softmax",
        seed=seed,
        dtype=dtype,
    )


def _trainer(
    model: FullyConnectedNet,
    recipe: Recipe,
    seed: int,
    normalization: Normalization,
    regression: bool,
    told: list[Callback],
    folder: Path,
    validated: bool,
    folds: Any,
    rows: int,
    save_every: float,
    ranks: Communicator | None,
) -> Trainer:
    check_choice("xpmlp train", "optimizer", recipe.optimizer, tuple(OPTIMIZERS))
    callbacks: list[Callback] = [SaveHistory(folder / "history.csv")]
    if ranks is None or model.population is None:  # of members on several ranks none has all
        callbacks.append(Checkpoint(folder / CHECKPOINT, every=save_every, at_end=False))
    held = "val_loss" if folds is None else LOSS
    if recipe.patience is not None:
        monitor = held if validated or folds is not None else "train_loss"
        share = None if folds is None else PATIENCE_SHARE
        callbacks.append(EarlyStopping(recipe.patience, monitor=monitor, share=share))
    callbacks += told
    options: dict[str, Any] = {"normalization": normalization, "parallel": ranks}
    maker: type[Trainer] = Trainer
    if model.population is not None:
        maker = PopulationTrainer
        options |= {"folds": folds, "average": recipe.average, "sampling": "own"}
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
        precision=recipe.precision,
        callbacks=callbacks,
        progress=False,
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
        data.bounds,
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
        "warnings": [*(dataset.table.doubts if dataset.table else ()), *warned.heard],
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
    """The device as ``XPMLP_DEVICE`` takes it, so that a run can go on there."""
    return backend.place or "cpu"
