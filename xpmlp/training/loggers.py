"""Where others look at trainings: TensorBoard, MLflow, and Weights & Biases.

Each writes the rows of the history, as the epochs end. Their libraries are imported when a training
starts, and are not among what xpmlp installs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError
from .callbacks import Callback

if TYPE_CHECKING:
    from .history import History
    from .trainer import Trainer


class _Logger(Callback):
    """Base: opens something, writes numbers to it by their columns, and closes it."""

    first_rank_only = True

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_to": None}  # for pickles and copies

    _to: Any = None

    def on_start(self, trainer: Trainer) -> None:
        self._to = self.open(_settings(trainer))

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        numbers = {name: float(value) for name, value in row.items() if isinstance(value, Real)}
        self.write(numbers, int(numbers.pop("epoch")))

    def on_end(self, trainer: Trainer, history: History) -> None:
        self.close(history.ending)
        self._to = None

    def open(self, settings: Mapping[str, Any]) -> Any:
        """Begin, and tell what is trained."""
        raise NotImplementedError

    def write(self, numbers: Mapping[str, float], epoch: int) -> None:
        """One row of the history."""
        raise NotImplementedError

    def close(self, ending: str) -> None:
        """End, and tell why."""
        raise NotImplementedError


class TensorBoard(_Logger):
    """Write event files for TensorBoard: ``tensorboard --logdir runs`` shows them.

    Parameters
    ----------
    folder : path
        One for each training.

    Raises
    ------
    MissingDependencyError
        When a training starts, without tensorboardX, or torch and tensorboard.
    """

    def __init__(self, folder: str | Path):
        self.folder = str(folder)

    def open(self, settings: Mapping[str, Any]) -> Any:
        """A writer of events."""
        module = _library("TensorBoard", "tensorboardX", "torch.utils.tensorboard")
        writer = module.SummaryWriter(self.folder)
        writer.add_text("settings", "\n".join(f"    {n}: {v}" for n, v in settings.items()))
        return writer

    def write(self, numbers: Mapping[str, float], epoch: int) -> None:
        """A scalar for each column."""
        for name, value in numbers.items():
            self._to.add_scalar(name, value, epoch)
        self._to.flush()

    def close(self, ending: str) -> None:
        """Close the file."""
        self._to.add_text("ending", ending)
        self._to.close()


class MLflow(_Logger):
    """Write an MLflow run: the one that is active, or one of its own.

    Parameters
    ----------
    name : str, optional
        Of the run.
    experiment, tracking_uri : str, optional
        As ``mlflow.set_experiment`` and ``mlflow.set_tracking_uri`` take them.

    Raises
    ------
    MissingDependencyError
        When a training starts, without mlflow.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        experiment: str | None = None,
        tracking_uri: str | None = None,
    ):
        self.name, self.experiment, self.tracking_uri = name, experiment, tracking_uri

    def open(self, settings: Mapping[str, Any]) -> Any:
        """The library, and whether the run is our own to end."""
        mlflow = _library("MLflow", "mlflow")
        if self.tracking_uri is not None:
            mlflow.set_tracking_uri(self.tracking_uri)
        if self.experiment is not None:
            mlflow.set_experiment(self.experiment)
        own = mlflow.active_run() is None
        if own:
            mlflow.start_run(run_name=self.name)
        mlflow.log_params(dict(settings))
        return mlflow, own

    def write(self, numbers: Mapping[str, float], epoch: int) -> None:
        """A metric for each column."""
        self._to[0].log_metrics(dict(numbers), step=epoch)

    def close(self, ending: str) -> None:
        """End a run of our own."""
        mlflow, own = self._to
        mlflow.set_tag("ending", ending)
        if own:
            mlflow.end_run()


class WeightsAndBiases(_Logger):
    """Write a run of Weights & Biases.

    Parameters
    ----------
    **options
        Of ``wandb.init``: project, name, mode="offline", dir, …

    Raises
    ------
    MissingDependencyError
        When a training starts, without wandb.
    """

    def __init__(self, **options: Any):
        self.options = options

    def open(self, settings: Mapping[str, Any]) -> Any:
        """A run."""
        wandb = _library("Weights & Biases", "wandb")
        config = dict(settings) | dict(self.options.get("config", {}))
        return wandb.init(**self.options | {"config": config})

    def write(self, numbers: Mapping[str, float], epoch: int) -> None:
        """All columns at once."""
        self._to.log(dict(numbers), step=epoch)

    def close(self, ending: str) -> None:
        """End the run."""
        self._to.summary["ending"] = ending
        self._to.finish()


def _settings(trainer: Trainer) -> dict[str, Any]:
    """What is trained and how, as texts and numbers."""
    optimizer = trainer.optimizer
    rates = {name: str(value) for name, value in optimizer.options().items()}
    return {
        "model": str(trainer.model),
        "loss": str(trainer.loss),
        "optimizer": type(optimizer).__name__,
        **{f"optimizer.{name}": value for name, value in rates.items()},
        "epochs": trainer.epochs,
        "batch_size": trainer.batch_size,
        "seed": trainer.seed,
    }


def _library(whose: str, *modules: str) -> Any:
    """The first of some modules that can be imported."""
    for module in modules:
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    names = " or torch and ".join(module.rpartition(".")[2] for module in modules)
    what = modules[0]
    raise MissingDependencyError(
        f"{names} is needed to write for {whose}; pip install {what}"
    ) from None
