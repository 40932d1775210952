"""The training loop: epochs of minibatches, validation, the best parameters kept."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, to_numpy
from ..data.normalization import Normalization
from ..data.resident import ResidentBatches
from ..errors import ConfigError
from ..layers.base import Layer
from ..losses import Loss, loss_for
from ..metrics import answers_given, as_rows
from ..optim import Adam, Optimizer
from ..penalties import Penalty
from ..schedules import Constant
from ..step import TrainStep
from .callbacks import Callback, as_callbacks
from .history import History
from .minibatches import is_pair, minibatches, width_of
from .parameters import copies_of, finite_networks
from .progress import Progress
from .rate_plan import Plan, last_rate
from .scores import check_outputs, check_reduces, pooled_loss, scores_of, share, together

Data = tuple[Any, Any]
_CALM = "lower the learning rate or clip the gradients"


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
        Default: what goes with the model's ``output``, see :func:`~xpmlp.losses.loss_for`.
    optimizer : Optimizer, optional
        Default: ``Adam(1e-3)``. The trainer takes a copy. A schedule whose ``total`` was left open
        gets the number of steps of each training.
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
    callbacks : Callback or sequence of them
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

    Notes
    -----
    Figures of an epoch are those of all its rows at once: the mean over all that count, by their
    weights, or with ``reduction="sum"`` the sum. :meth:`fit` starts a training of the model as it
    is, with an optimizer that remembers nothing and a schedule from its start; :meth:`resume` goes
    on with the last one.

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
        self.loss = loss_for(getattr(model, "output", None)) if loss is None else loss
        check_reduces("Trainer", self.loss)
        self.optimizer = Adam(1e-3) if optimizer is None else optimizer.copy()
        if not isinstance(lr_decay, Real) or not 0.0 < lr_decay < np.inf:
            raise ConfigError(
                f"`Trainer`: expected lr_decay to be a finite number > 0, got {lr_decay!r}"
            )
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
        self.callbacks = as_callbacks(callbacks) + ([Progress()] if progress else [])
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.history = History()
        self.epoch = 0
        self.steps_per_epoch = 0
        self.total_steps = 0
        self._ending: str | None = None
        self._plan = Plan(lr_decay)

    def fit(self, x: Any, y: Any, validation: Data | None = None) -> History:
        """Start a training of the model as it is.

        Parameters
        ----------
        x : array_like, shape (N, …)
            Sequences (N, T, D) go with targets (N, T) or (N, T, M).
        y : array_like, shape (N,) of class numbers, or (N, M)
        validation : (x, y), optional
            Evaluated after every epoch.

        Returns
        -------
        History
            Ctrl-C ends the training after the step that runs, keeps the best result so far and
            returns as well; ``history.interrupted`` then says so. A second Ctrl-C raises.

        Raises
        ------
        ConfigError, DataError, ShapeError, DTypeError
            For what cannot be trained, before the first step if it can be known then.

        Notes
        -----
        A training that diverges leaves the parameters of its last epoch that was finite, or those
        that it started with.
        """
        self.optimizer = self.optimizer.fresh()
        self.epoch = 0
        return self._train(x, y, validation, self.epochs, History())

    def resume(
        self, x: Any, y: Any, validation: Data | None = None, *, epochs: int | None = None
    ) -> History:
        """Go on with the last training: optimizer, schedule and the epochs' numbers and orders.

        Parameters
        ----------
        x, y, validation
            As for :meth:`fit`.
        epochs : int, optional
            How many more. Default: those that the last training had left, after Ctrl-C for example.

        Returns
        -------
        History
            Of the whole training, with the epochs before.

        Raises
        ------
        ConfigError
            If no epochs are left, or the schedule has come to its end before them.

        Notes
        -----
        It starts from the parameters that the model has; with ``restore_best`` these are the best
        epoch's. As the first call it takes the memory of the optimizer that the trainer was given.
        """
        left = self.epochs - self.epoch if epochs is None else epochs
        if not isinstance(left, Integral) or left < 1:
            raise ConfigError(
                f"`Trainer.resume`: expected epochs to be an integer ≥ 1, got {left!r}; "
                "fit starts another training"
            )
        return self._train(x, y, validation, self.epoch + int(left), self.history)

    def _train(
        self, x: Any, y: Any, validation: Data | None, last: int, before: History
    ) -> History:
        """Train up to an epoch; ``before`` are those that there have been."""
        check_reduces("Trainer.fit", self.loss)
        if validation is not None and not is_pair(validation):
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
            loss=self.loss,
        )
        held_out = None if validation is None else self._held_out(*validation)
        check_outputs("Trainer.fit", self.loss, width_of(self.model, batches.x), batches.y)
        self.steps_per_epoch = len(batches)
        self.total_steps = self.optimizer.steps + (last - self.epoch) * len(batches)
        self._plan = self._plan.over(self.optimizer, self.steps_per_epoch, self.total_steps)
        step = TrainStep(
            self.model,
            self.loss,
            self.optimizer,
            penalty=self.penalty,
            clip_norm=self.clip_norm,
            precision=self.precision,
        )
        self.history = history = History(rows=list(before.rows), best_epoch=before.best_epoch)
        self._ending = None
        best: tuple[Any, dict[str, np.ndarray]] | None = None
        if held_out is not None and before.best_epoch is not None:
            best = self._score(before.rows[before.best_epoch - 1]), self.model.state_dict()
        finite = copies_of(self.model)
        losses: list[np.ndarray] = [before.step_losses] if before.rows else []
        for callback in self.callbacks:
            callback.on_start(self)
        start = time.perf_counter() - before.seconds
        with self._ctrl_c():
            for epoch in range(self.epoch + 1, last + 1):
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
                        f"diverged: the loss is {row['train_loss']} in epoch {epoch}; {_CALM}"
                    )
                elif not np.all(finite_networks(self.model)):
                    self.stop(f"diverged: the network is not finite after epoch {epoch}; {_CALM}")
                elif best is None or not self.restore_best:
                    finite = copies_of(self.model)
                for callback in self.callbacks:
                    callback.on_epoch(self, row)
                if self._ending is not None:
                    break
        history.ending = self._ending or "finished"
        history.step_losses = np.concatenate(losses) if losses else np.zeros(0)
        if best is not None and self.restore_best:
            self.model.load_state_dict(best[1])
        elif history.ending.startswith("diverged"):
            self.model.load_state_dict(finite)
        history.seconds = time.perf_counter() - start
        for callback in self.callbacks:
            callback.on_end(self, history)
        return history

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        """Loss and accuracy (or R²) on other data, in evaluation mode.

        Returns
        -------
        dict
            ``loss`` (without the penalty), and ``accuracy`` in [0, 1] for classes and yes/no
            questions or ``r2`` for numbers. For a population, the means over its members.
        """
        return self._evaluate(self._held_out(x, y))

    def stop(self, reason: str) -> None:
        """End the training after the current step; callbacks may call this."""
        self._ending = reason

    def _held_out(self, x: Any, y: Any) -> Any:
        """Batches to evaluate on."""
        options: dict[str, Any] = {"normalization": self.normalization, "shuffle": False}
        options["loss"] = self.loss
        return minibatches(self.model, x, y, batch_size=4096, **options)

    def _run_epoch(self, step: TrainStep, batches: Any) -> EpochFigures:
        """All batches once; values stay on the device until the end."""
        start = time.perf_counter()
        number = self.epoch - 1
        watched = any(getattr(callback, "sees_steps", True) for callback in self.callbacks)
        # What rows count for, and how many outputs have a sign, is not known of a whole epoch.
        plain = not self.loss.weighs_rows and self.loss.answers != "yes_no"
        if isinstance(batches, ResidentBatches) and plain and not watched:
            losses, hits = step.run_epoch(batches, number, lambda: self._ending is not None)
            sizes = list(batches.sizes())[: losses.shape[0]]
            units = given = sizes
        else:
            losses, hits, units, given, sizes = self._step_by_step(step, batches.epoch(number))
        step.settle()
        values = to_numpy(losses)
        return EpochFigures(
            values,
            pooled_loss(self.loss, values, units),
            None if hits is None else share(to_numpy(hits), given),
            sum(sizes),
            time.perf_counter() - start,
        )

    def _step_by_step(
        self, step: TrainStep, batches: Iterable[tuple[Array, Array]]
    ) -> tuple[Array, Array | None, Any, Any, list[int]]:
        """Losses, right answers, what both are shares of, and rows of each step."""
        loss, population = self.loss, self.model.population
        losses, hits, units, given, sizes = [], [], [], [], []
        counts_rows = not loss.weighs_rows and loss.answers in ("classes", "numbers")
        for xb, yb in batches:
            value = step(xb, yb)
            losses.append(value)
            outputs = step.lent_outputs
            if counts_rows and outputs.ndim == (2 if population is None else 3):
                sizes.append(outputs.shape[-2])
            else:
                outputs, targets = as_rows(outputs, yb, population)
                sizes.append(outputs.shape[-2])
                units.append(loss.units(outputs, targets))
                given.append(answers_given(loss, outputs, targets))
            correct = step.correct
            if correct is not None:
                hits.append(correct)
            for callback in self.callbacks:
                callback.on_step(self, value)
            if self._ending is not None:
                break
        found = array_namespace(losses[0]).stack(losses)
        return (
            found,
            array_namespace(hits[0]).stack(hits) if hits else None,
            together(units) if units else sizes,
            together(given) if given else sizes,
            sizes,
        )

    def _row(self, figures: EpochFigures) -> dict[str, Any]:
        """An epoch's row of the history; of a population, means over its members."""
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.optimizer.steps,
            "train_loss": float(np.mean(figures.loss)),
        }
        if figures.accuracy is not None:
            row["train_accuracy"] = float(np.mean(figures.accuracy))
        row["lr"] = float(np.mean(last_rate(self.optimizer)))
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
