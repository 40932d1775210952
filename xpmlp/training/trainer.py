"""The training loop: epochs of minibatches, validation, the best parameters kept."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import array_api_compat
import numpy as np

from ..backend import Array, array_namespace, dtype_name, get_backend, to_numpy
from ..data.loader import Batches
from ..data.normalization import Normalization
from ..data.resident import ResidentBatches, batches_on_device
from ..errors import ConfigError
from ..layers.base import Layer
from ..losses import Loss, SoftmaxCrossEntropy
from ..ops.dispatch import why_kernels_are_off
from ..optim import Adam, Optimizer
from ..penalties import Penalty
from ..schedules import Constant, Schedule, Step
from .callbacks import Callback
from .history import History
from .metrics import are_classes, correct, r2
from .progress import Progress
from .step import TrainStep

Data = tuple[Any, Any]


@dataclass
class EpochFigures:
    """What came of one epoch of training; (…) is () or (P,).

    Attributes
    ----------
    step_losses : ndarray, shape (steps, …)
    loss, accuracy : ndarray, shape (…)
        Means over the rows; the accuracy is None where targets are not classes.
    samples : int
        Rows that each network saw.
    seconds : float
    """

    step_losses: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    samples: int
    seconds: float


class Trainer:
    """Train a model on arrays.

    Parameters
    ----------
    model : Layer
    loss : Loss, optional
        Default: :class:`~xpmlp.losses.SoftmaxCrossEntropy`.
    optimizer : Optimizer, optional
        Default: ``Adam(1e-3)``. A schedule whose ``total`` was left open gets the number of steps.
    epochs, batch_size : int
    lr_decay : float
        What the learning rate is multiplied by after each epoch (in place of a schedule).
    penalty : Penalty, optional
        Added to the loss and its gradients.
    clip_norm : float, optional
        Largest global norm of the gradients.
    precision : {None, "tf32", "bf16", "fp16"}
        On CuPy: what products are computed in, as for a :class:`~xpmlp.training.TrainStep`.
    normalization : Normalization, optional
        Applied to every batch; uint8 images stay uint8 in memory until then.
    restore_best : bool
        With validation data: end with the parameters *and running statistics* of the best epoch.
    monitor : str, optional
        What "best" means: a column of the history. Default: ``"val_accuracy"`` for classes (ties
        go to the smaller loss), else ``"val_loss"``.
    callbacks : sequence of Callback
    progress : bool
        Whether to show a progress bar on standard error.
    seed : int
        Of the batches' order.
    shuffle : bool
        Whether each epoch has an order of its own; else rows come as they are stored.
    drop_last : bool
        Whether to leave out an epoch's last batch if it is not full.

    Attributes
    ----------
    history : History
        Of the training that runs or ran last.

    Examples
    --------
    >>> trainer = Trainer(model, optimizer=AdamW(1e-3, schedule="cosine"), epochs=10)
    >>> history = trainer.fit(x_train, y_train, validation=(x_val, y_val))
    >>> trainer.evaluate(x_test, y_test)
    {'loss': 0.05, 'accuracy': 0.98}
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        lr_decay: float = 1.0,
        penalty: Penalty | None = None,
        clip_norm: float | None = None,
        precision: str | None = None,
        normalization: Normalization | None = None,
        restore_best: bool = True,
        monitor: str | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ):
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if not isinstance(value, Integral) or value < 1:
                raise ConfigError(f"`Trainer`: expected {name} to be an integer ≥ 1, got {value!r}")
        for name, value, kind, example in (
            ("loss", loss, Loss, "losses.MSE()"),
            ("optimizer", optimizer, Optimizer, "optim.AdamW(1e-3)"),
            ("penalty", penalty, Penalty, "penalties.L2(1e-4)"),
        ):
            if not isinstance(value, kind | None):
                raise ConfigError(
                    f"`Trainer`: expected {name} to be a {kind.__name__}, such as {example}, got "
                    f"{value!r}"
                )
        self.model = model
        self.loss = SoftmaxCrossEntropy() if loss is None else loss
        self.optimizer = Adam(1e-3) if optimizer is None else optimizer
        if lr_decay != 1.0 and not isinstance(self.optimizer.schedule, Constant):
            raise ConfigError(
                "`Trainer`: expected lr_decay or an optimizer with a schedule, got both; drop one"
            )
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr_decay = lr_decay
        self.penalty = penalty
        self.clip_norm = clip_norm
        self.precision = precision
        self.normalization = normalization
        self.restore_best = restore_best
        self.monitor = monitor
        self.callbacks = list(callbacks) + ([Progress()] if progress else [])
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.history = History()
        self.epoch = 0
        self.steps_per_epoch = 0
        self.total_steps = 0
        self._ending: str | None = None

    def fit(self, x: Any, y: Any, validation: Data | None = None) -> History:
        """Train.

        Parameters
        ----------
        x : array_like, shape (N, …)
        y : array_like, shape (N,) of class numbers, or (N, M)
        validation : (x, y), optional
            Evaluated after every epoch.

        Returns
        -------
        History
            Ctrl-C ends the training after the step that runs, keeps the best result so far and
            returns as well; ``history.interrupted`` then says so. A second Ctrl-C raises.
        """
        is_pair = isinstance(validation, tuple | list) and len(validation) == 2
        if validation is not None and not is_pair:
            raise ConfigError(
                f"`Trainer.fit`: expected validation=(x, y), got {type(validation).__name__}"
            )
        batches = minibatches(
            self.model,
            x,
            y,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            drop_last=self.drop_last,
            normalization=self.normalization,
        )
        held_out = None if validation is None else self._held_out(*validation)
        self.steps_per_epoch = len(batches)
        self.total_steps = self.epochs * len(batches)
        self._fill_schedule()
        step = TrainStep(
            self.model,
            self.loss,
            self.optimizer,
            penalty=self.penalty,
            clip_norm=self.clip_norm,
            precision=self.precision,
        )
        self.history = history = History()
        self._ending = None
        best: tuple[Any, dict[str, np.ndarray]] | None = None
        losses: list[np.ndarray] = []
        for callback in self.callbacks:
            callback.on_start(self)
        start = time.perf_counter()
        with self._ctrl_c():
            for epoch in range(1, self.epochs + 1):
                self.epoch = epoch
                figures = self._run_epoch(step, batches)
                losses.append(figures.step_losses)
                row = self._row(figures)
                if held_out is not None:
                    scores = self._evaluate(held_out)
                    row |= {f"val_{name}": value for name, value in scores.items()}
                    score = self._score(row)
                    if best is None or score > best[0]:
                        best = score, self.model.state_dict()
                        history.best_epoch = epoch
                history.rows.append(row)
                history.seconds = time.perf_counter() - start
                if not np.isfinite(row["train_loss"]):
                    self.stop(
                        f"diverged: the loss is {row['train_loss']} in epoch {epoch}; "
                        "lower the learning rate or clip the gradients"
                    )
                for callback in self.callbacks:
                    callback.on_epoch(self, row)
                if self._ending is not None:
                    break
        history.ending = self._ending or "finished"
        history.step_losses = np.concatenate(losses) if losses else np.zeros(0)
        if best is not None and self.restore_best:
            self.model.load_state_dict(best[1])
        history.seconds = time.perf_counter() - start
        for callback in self.callbacks:
            callback.on_end(self, history)
        return history

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        """Loss and accuracy (or R²) on other data, in evaluation mode.

        Returns
        -------
        dict
            ``loss`` (without the penalty) and ``accuracy`` in [0, 1] for class numbers or ``r2``
            for floats. For a population, the means over its members.
        """
        return self._evaluate(self._held_out(x, y))

    def stop(self, reason: str) -> None:
        """End the training after the current step; callbacks may call this."""
        self._ending = reason

    def _held_out(self, x: Any, y: Any) -> Any:
        """Batches to evaluate on."""
        options: dict[str, Any] = {"normalization": self.normalization, "shuffle": False}
        return minibatches(self.model, x, y, batch_size=4096, **options)

    def _fill_schedule(self) -> None:
        if self.lr_decay != 1.0:
            self.optimizer.schedule = Step(every=self.steps_per_epoch, factor=self.lr_decay)
        elif isinstance(self.optimizer.schedule, Schedule):
            self.optimizer.schedule = self.optimizer.schedule.over(self.total_steps)

    def _run_epoch(self, step: TrainStep, batches: Any) -> EpochFigures:
        """All batches once; values stay on the device until the end."""
        start = time.perf_counter()
        number = self.epoch - 1
        watched = any(getattr(callback, "sees_steps", True) for callback in self.callbacks)
        if isinstance(batches, ResidentBatches) and not watched:
            losses, hits = step.run_epoch(batches, number, lambda: self._ending is not None)
            sizes = list(batches.sizes())[: losses.shape[0]]
        else:
            losses, hits, sizes = self._step_by_step(step, batches.epoch(number))
        step.settle()
        values = to_numpy(losses)
        samples = sum(sizes)
        return EpochFigures(
            values,
            np.average(values, axis=0, weights=sizes),
            None if hits is None else to_numpy(hits).sum(axis=0) / samples,
            samples,
            time.perf_counter() - start,
        )

    def _step_by_step(
        self, step: TrainStep, batches: Iterable[tuple[Array, Array]]
    ) -> tuple[Array, Array | None, list[int]]:
        """Losses, hits and rows of each step; callbacks look on."""
        losses, hits, sizes = [], [], []
        for xb, yb in batches:
            loss = step(xb, yb)
            losses.append(loss)
            sizes.append(step.outputs.shape[-2])
            if step.correct is not None:
                hits.append(step.correct)
            for callback in self.callbacks:
                callback.on_step(self, loss)
            if self._ending is not None:
                break
        together = array_namespace(losses[0]).stack(losses)
        return together, array_namespace(hits[0]).stack(hits) if hits else None, sizes

    def _row(self, figures: EpochFigures) -> dict[str, Any]:
        """An epoch's row of the history; of a population, means over its members."""
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.optimizer.steps,
            "train_loss": float(np.mean(figures.loss)),
        }
        if figures.accuracy is not None:
            row["train_accuracy"] = float(np.mean(figures.accuracy))
        row["lr"] = float(np.mean(_last_rate(self.optimizer)))
        row["seconds"] = figures.seconds
        row["samples_per_second"] = figures.samples / figures.seconds
        return row

    def _evaluate(self, batches: Any) -> dict[str, float]:
        scores = scores_of(self.model, self.loss, batches.epoch())
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def _score(self, row: dict[str, Any]) -> tuple[float, ...]:
        """What a larger value of is better; a loss breaks ties of accuracies."""
        monitor = self.monitor or ("val_accuracy" if "val_accuracy" in row else "val_loss")
        if monitor not in row:
            raise ConfigError(
                f"`Trainer`: expected monitor to be one of {', '.join(row)}, got {monitor!r}"
            )
        value = row[monitor] if monitor.endswith(("accuracy", "r2")) else -row[monitor]
        scores = value, -row["val_loss"]
        return tuple(score if np.isfinite(score) else -np.inf for score in scores)

    @contextmanager
    def _ctrl_c(self) -> Iterator[None]:
        """Let the first Ctrl-C end the training after the current step, the second one raise."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number: int, frame: Any) -> None:
            if self._ending == "interrupted":
                raise KeyboardInterrupt
            self.stop("interrupted")

        previous = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


def scores_of(
    model: Layer, loss: Loss, batches: Iterable[tuple[Array, Array]]
) -> dict[str, np.ndarray]:
    """Loss and accuracy, or R² for float targets, in evaluation mode, of shape () or (P,)."""
    total: Any = 0.0
    hits: Any = 0.0
    rows = 0
    outputs_seen, targets_seen = [], []
    for xb, yb in batches:
        outputs = model.forward(xb)
        size = outputs.shape[-2]
        rows += size
        total = total + to_numpy(loss.forward(outputs, yb)).astype(np.float64) * size
        if are_classes(outputs, yb):
            hits = hits + to_numpy(correct(outputs, yb))
        else:
            outputs_seen.append(np.array(to_numpy(outputs)))  # a copy: x may be the output
            targets_seen.append(np.array(to_numpy(yb)))
    scores = {"loss": np.asarray(total / rows)}
    if not targets_seen:
        scores["accuracy"] = np.asarray(hits / rows)
        return scores
    outputs, targets = np.concatenate(outputs_seen, -2), np.concatenate(targets_seen, -2)
    if model.population is not None:
        each = zip(outputs, np.broadcast_to(targets, outputs.shape), strict=True)
        scores["r2"] = np.array([r2(y, t) for y, t in each])
    elif outputs.shape == targets.shape:
        scores["r2"] = np.asarray(r2(outputs, targets))
    return scores


def minibatches(model: Layer, x: Any, y: Any, **options: Any) -> Any:
    """Batches of the model's dtype, on the current backend.

    On CuPy, of data that stay on the device or stream to it, where steps can be captured. A batch
    may be written over the one before, so one must be done with before the next is asked for.

    Parameters
    ----------
    model : Layer
    x, y : array_like
    **options
        As for :class:`~xpmlp.data.Batches`.
    """
    dtype = _floating_dtype(model)
    if dtype in ("float32", "float64") and _is_on_cuda(model) and not why_kernels_are_off():
        return batches_on_device(x, y, dtype=dtype, **options)
    return Batches(x, y, dtype=dtype, reuse=True, **options)


def _is_on_cuda(model: Layer) -> bool:
    params = model.params.values()
    return get_backend().name == "cupy" and all(map(array_api_compat.is_cupy_array, params))


def _last_rate(optimizer: Optimizer) -> Any:
    """The learning rate of the last step, one number or one a member."""
    return optimizer.lr * optimizer.schedule(max(0, optimizer.steps - 1))


def _floating_dtype(model: Layer) -> str:
    """The dtype of the model's parameters."""
    for array in model.params.values():
        return dtype_name(array.dtype)
    return "float32"
