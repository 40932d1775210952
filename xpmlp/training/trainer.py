"""The training loop: epochs of minibatches, validation, the best parameters kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import to_numpy
from ..choices import Precision
from ..communication import Communicator, communicator, is_first, training_together
from ..data.normalization import Normalization
from ..errors import ConfigError
from ..layers.base import Layer
from ..losses import Loss, loss_for
from ..optim import Adam, Optimizer
from ..options import Number
from ..penalties import Penalty
from ..step import TrainStep
from .arguments import check_lr_decay, check_parts
from .callbacks import Callback, as_callbacks
from .checkpoint_callback import Checkpoint
from .chosen_metrics import as_metrics
from .epoch import row_of, run_epoch
from .history import History
from .parameters import copies_of, finite_networks
from .progress import Progress
from .rate_plan import Plan
from .resumable import Resumable
from .scores import check_reduces, score_of_epoch, scores_of
from .streams import as_validation, batches_of
from .tally import EpochFigures
from .together import row_of_all

Data = tuple[Any, ...]
_COUNT = Number("[1, inf)", whole=True)
_CALM = "lower the learning rate or clip the gradients"


class Trainer(Resumable):
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
        What products are computed in, as for a :class:`~xpmlp.training.TrainStep`.
    normalization : Normalization, optional
        Applied to every batch; uint8 images stay uint8 in memory until then.
    restore_best : bool
        With validation data: end with the parameters *and running statistics* of the best epoch.
    monitor : str, optional
        What "best" means: a column of the history. Default: ``"val_accuracy"`` for classes (ties
        go to the smaller loss), else ``"val_loss"``.
    metrics : str, callable, Metric, or several as a sequence or a dict by name
        What to measure beside the loss, of all validation data together: ``"f1"``, ``"auc"``,
        ``"top5"``, ``"rmse"``, ``"mae"``, … or a function of (y, outputs); see :class:`Metric`.
    callbacks : Callback or sequence of them
    progress : bool
        Whether to show a progress bar on standard error.
    seed : int
        Of the batches' order.
    shuffle : bool
        Whether each epoch has an order of its own; else rows come as they are stored.
    drop_last : bool
        Whether to leave out an epoch's last batch if it is not full.
    parallel : {None, "mpi"} or Communicator
        "mpi": this process is one of several that ``mpiexec`` has started, which train the network
        together, each on its share of every batch, with the results of one.

    Attributes
    ----------
    history : History
        Of the training that runs or ran last.

    Notes
    -----
    Figures of an epoch are those of all its rows at once: the mean over all that count, by their
    weights, or with ``reduction="sum"`` the sum. :meth:`fit` trains the model as it is, with an
    optimizer that remembers nothing and a new schedule; :meth:`resume` goes on with the last one.

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
        precision: Precision | None = None,
        normalization: Normalization | None = None,
        restore_best: bool = True,
        monitor: str | None = None,
        metrics: Any = (),
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        parallel: Any = None,
    ):
        check_parts(model, loss, optimizer, penalty)
        super().__init__()
        self.model = model
        self.loss = loss_for(getattr(model, "output", None)) if loss is None else loss
        check_reduces("Trainer", self.loss)
        self.optimizer = Adam(1e-3) if optimizer is None else optimizer.copy()
        check_lr_decay(lr_decay, self.optimizer.schedule)
        self.epochs = _COUNT.check("Trainer", "epochs", epochs)
        self.batch_size = _COUNT.check("Trainer", "batch_size", batch_size)
        self.lr_decay, self._plan = lr_decay, Plan(lr_decay)
        self.penalty = penalty
        self.clip_norm = clip_norm
        self.precision: Precision | None = precision
        self.normalization = normalization
        self.restore_best = restore_best
        self.monitor = monitor
        self.metrics = as_metrics(metrics, self.loss)
        self.parallel, self.ranks = parallel, communicator(parallel)
        given = as_callbacks(callbacks) + ([Progress()] if progress else [])
        given = [each for each in given if is_first(self.ranks) or not each.first_rank_only]
        # Checkpoints come last: what the others remember of an epoch is in them.
        self.callbacks = sorted(given, key=lambda callback: isinstance(callback, Checkpoint))
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self._step: Any = None
        self._best: Any = None  # its score and its arrays
        self._finite: dict[str, Any] = {}

    def fit(
        self,
        x: Any,
        y: Any = None,
        validation: Data | Iterable[Data] | None = None,
        *,
        sample_weight: Any = None,
        resume: str | Path | None = None,
        strict: bool = True,
    ) -> History:
        """Start a training of the model as it is, or go on with a saved one.

        Parameters
        ----------
        x : array_like, shape (N, …), or iterable of batches (x, y) or (x, y, sample_weight)
            Sequences (N, T, D) go with targets (N, T) or (N, T, M). Batches, such as a torch
            ``DataLoader`` or a list, are looped over once an epoch, as they come: in their order
            and of their size, without ``y``, and without checkpoints.
        y : array_like, shape (N,) of class numbers, or (N, M)
        validation : (x, y), (x, y, sample_weight) or iterable of batches, optional
            Evaluated after every epoch.
        sample_weight : array_like, shape (N,), optional
            What each row counts for in the loss, see :meth:`Loss.weighted
            <xpmlp.losses.Loss.weighted>`, and in the figures.
        resume : path, optional
            A file that :class:`Checkpoint` has written, or the folder of a run: the training goes
            on where it was saved, and ends with the bits that it would have ended with (with the
            same array library and threads). One that had come to its end is given back.
        strict : bool
            Whether to refuse a checkpoint of other data, settings or another version of xpmlp.

        Returns
        -------
        History
            Ctrl-C, SIGTERM and SIGHUP end the training after the step that runs, keep the best
            result so far and return as well; ``history.interrupted`` then says so. A second Ctrl-C
            raises.

        Raises
        ------
        ConfigError, DataError, ShapeError, DTypeError
            For what cannot be trained, before the first step if it can be known then.
        CheckpointError
            If there is nothing to go on from, or it is of another training.

        Notes
        -----
        A training that diverges leaves the parameters of its last epoch that was finite, or those
        that it started with.
        """
        self.optimizer = self.optimizer.fresh()
        self.epoch = 0
        return self._train(x, y, validation, self.epochs, History(), resume, strict, sample_weight)

    def resume(
        self,
        x: Any,
        y: Any = None,
        validation: Data | Iterable[Data] | None = None,
        *,
        sample_weight: Any = None,
        epochs: int | None = None,
    ) -> History:
        """Go on with the last training: optimizer, schedule and the epochs' numbers and orders.

        Parameters
        ----------
        x, y, validation, sample_weight
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
        last = self.epoch + int(left)
        return self._train(x, y, validation, last, self.history, sample_weight=sample_weight)

    def _train(
        self,
        x: Any,
        y: Any,
        validation: Any,
        last: int,
        before: History,
        resume: Any = None,
        strict: bool = True,
        sample_weight: Any = None,
    ) -> History:
        """Train up to an epoch; ``before`` are those that there have been."""
        check_reduces("Trainer.fit", self.loss)
        batches = batches_of(
            self.model,
            x,
            y,
            sample_weight=sample_weight,
            epochs=last - self.epoch,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            drop_last=self.drop_last,
            normalization=self.normalization,
            loss=self.loss,
            ranks=self.ranks,
        )
        validation = as_validation(validation, last - self.epoch)
        held_out = None if validation is None else self._held_out(*validation, ranks=self.ranks)
        saved = self._saved(x, y, validation, resume, strict, sample_weight)
        self.steps_per_epoch = len(batches)
        self._begin_at(last, before.behind())
        self._best, self._finite = None, copies_of(self.model)
        if held_out is not None and before.best_epoch is not None:
            best = before.rows[before.best_epoch - 1]
            self._best = score_of_epoch(best, self.monitor, self.metrics), self.model.state_dict()
        more = {"penalty": self.penalty, "clip_norm": self.clip_norm, "precision": self.precision}
        self._step = TrainStep(self.model, self.loss, self.optimizer, comm=self.ranks, **more)
        self._put_back(saved, resume)
        self._tell_of_the_start(saved)
        history, inside = self.history, False
        with self.stopping.listening(), training_together(self.ranks):
            for epoch in range(self.epoch + 1, self._last + 1):
                if self._ending is not None:
                    break
                self.epoch = epoch
                figures = self._run_epoch(self._step, batches)
                self._agree()
                inside = self.interrupted and len(figures.step_losses) < self.steps_per_epoch
                if inside:
                    self._tell_of_the_stop()
                self._end_epoch(figures.step_losses)
                row = row_of(self, figures)
                if held_out is not None:
                    scores = self._evaluate(held_out, self.ranks)
                    row |= {f"val_{name}": value for name, value in scores.items()}
                    score = score_of_epoch(row, self.monitor, self.metrics)
                    if self._best is None or score > self._best[0]:
                        self._best = score, self.model.state_dict()
                        history.best_epoch = epoch
                row = row_of_all(self.ranks, self.model, row)
                history.rows.append(row)
                history.seconds = time.perf_counter() - self._start
                loss = row["train_loss"]
                if not np.isfinite(loss):
                    self.stop(f"diverged: the loss is {loss} in epoch {epoch}; {_CALM}")
                elif not np.all(finite_networks(self.model)):
                    self.stop(f"diverged: the network is not finite after epoch {epoch}; {_CALM}")
                elif not self._restores:
                    self._finite = copies_of(self.model)
                self._agree()
                for callback in self.callbacks:
                    callback.on_epoch(self, row)
                self._agree()
            self._ending = self._ending or "finished"
            if not inside:
                self._tell_of_the_stop()
        history.ending = self._ending
        history.step_losses = np.concatenate(self._losses) if self._losses else np.zeros(0)
        if self._best is not None and self.restore_best:
            self.model.load_state_dict(self._best[1])
        elif history.ending.startswith("diverged"):
            self.model.load_state_dict(self._finite)
        history.seconds = time.perf_counter() - self._start
        self._step, self._best, self._finite, self._losses = None, None, {}, []
        for callback in self.callbacks:
            callback.on_end(self, history)
        return history

    def state_dict(self) -> dict[str, Any]:
        self._step.settle()
        best, common = self._best, self._common_state()
        state = common | {
            "model": self.model.state_dict(),
            "counters": self.model.counters(),
            "optimizer": self.optimizer.state_dict(),
            "loss_scale": self._step.loss_scale,
            "best": None if best is None else {"score": list(best[0]), "model": best[1]},
        }
        # What it would fall back on, where that is not what the model is now.
        if not self._restores and (common["inside"] or common["ending"].startswith("diverged")):
            state["finite"] = {name: to_numpy(array) for name, array in self._finite.items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_common_state(state)
        self.model.load_state_dict(state["model"])
        self.model.set_counters(state["counters"])
        self.optimizer.load_state_dict(state["optimizer"], self.model.params)
        self._step.loss_scale = state.get("loss_scale")
        best = state["best"]
        self._best = None if best is None else (tuple(best["score"]), best["model"])
        self._finite = state.get("finite") or copies_of(self.model)

    @property
    def _restores(self) -> bool:
        """Whether it ends with the best parameters."""
        return self.restore_best and self._best is not None

    def evaluate(self, x: Any, y: Any = None, sample_weight: Any = None) -> dict[str, float]:
        """Loss and accuracy (or R²) on other data, or batches of them, in evaluation mode.

        Parameters
        ----------
        x, y : array_like
        sample_weight : array_like, shape (N,), optional
            What each row counts for.

        Returns
        -------
        dict
            ``loss`` (without the penalty), ``accuracy`` in [0, 1] for classes and yes/no
            questions or ``r2`` for numbers, and ``metrics``. Of a population, its members' means.
        """
        return self._evaluate(self._held_out(x, y, sample_weight))

    def _held_out(self, x: Any, y: Any = None, sample_weight: Any = None, **more: Any) -> Any:
        """Batches to evaluate on."""
        more |= {"normalization": self.normalization, "loss": self.loss}
        more["sample_weight"] = sample_weight
        return batches_of(self.model, x, y, batch_size=4096, shuffle=False, **more)

    def _run_epoch(self, step: TrainStep, batches: Any) -> EpochFigures:
        return run_epoch(self, step, batches)

    def _evaluate(self, batches: Any, ranks: Communicator | None = None) -> dict[str, float]:
        scores = scores_of(self.model, self.loss, batches.epoch(), self.metrics, ranks)
        return {name: float(np.mean(values)) for name, values in scores.items()}
