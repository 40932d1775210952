"""The training loop for populations: every member by its own figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..choices import Sampling
from ..communication import training_together
from ..data.member_batches import MemberBatches
from ..data.normalization import Normalization
from ..data.orders import SAMPLINGS, Orders
from ..errors import ConfigError
from ..losses import Loss
from ..models import FullyConnectedNet
from ..ops.shapes import check_choice
from ..optim import Optimizer
from .best_members import BestMembers
from .callbacks import EarlyStopping
from .chosen_metrics import sign_of
from .divided import check_divides, mean_of_finite, own_members, put_together
from .epoch import row_of
from .minibatches import check_validation
from .out_of_fold import LOSS, OutOfFold
from .parameters import finite_networks
from .population_history import RUNNING, PopulationHistory
from .population_rows import TrainerOfMembers, check_count, member_seeds
from .population_work import Work
from .rate_plan import last_rate
from .scores import check_outputs, check_reduces, scores_of
from .selection import check_hypers
from .tally import EpochFigures
from .trainer import Data


class PopulationTrainer(TrainerOfMembers):
    """Train a population, each member by its own validation, patience and end.

    A member that has stopped, by early stopping, by divergence or by :meth:`drop`, keeps its best
    parameters and costs nothing more once a quarter of those that run with it have stopped too.
    The others never notice.

    Parameters
    ----------
    model : FullyConnectedNet
        A population.
    loss, optimizer, epochs, batch_size, lr_decay, penalty, clip_norm, restore_best, monitor
        As for :class:`Trainer`; hyperparameters may be P numbers, one a member.
    parallel
        As for :class:`Trainer`, but ranks divide the members, and know of each other's when all
        have come to their end. Not with ``folds``, shared matrices or a :class:`Checkpoint`.
    callbacks : sequence of Callback
        An :class:`EarlyStopping` stops each member on its own. The others are called as by a
        Trainer, with rows that hold means over the members that run.
    sampling : {"shared", "own", "bootstrap"}
        One minibatch for all members; the rows in another order for each; or, for each, as many
        rows drawn with replacement. Inputs (N, D) are in memory once in any case.
    seed : int, or P ints
        Of the order. With "own" and "bootstrap" the seeds of the members; s stands for s, s+1, …,
        and a member then sees the batches that ``Trainer(seed=…)`` gives a network alone.
    orders : Orders, optional
        The rows of each member, in place of ``sampling``: folds, for example.
    folds : int, or sequence of int arrays, optional
        Member i of P is not trained on the rows of fold ``i % k``, and all are judged together on
        the rows that they were not trained on: after every epoch the history has ``ensemble_loss``,
        the loss of the mean of their predictions, and all members keep the parameters of the epoch
        at which that was smallest. ``EarlyStopping(monitor="ensemble_loss")`` stops by it. A number
        means as many folds of equal size, with every class spread evenly over them.
    average : float
        From 0 to below 1: how much of the mean over earlier epochs' parameters stays in it after
        each. Above 0, that mean is what is evaluated and kept, in place of the last parameters:
        less noise, as of a smaller learning rate.
    normalization : Normalization, or P of them, optional
        P need ``sampling`` other than "shared", or ``orders``.
    metrics, progress, shuffle, drop_last
        As for :class:`Trainer`.

    Attributes
    ----------
    history : PopulationHistory
    running : ndarray of int
        The members that have not stopped.
    out_of_fold : OutOfFold or None
        With ``folds``, the rows that each member was not trained on.

    Notes
    -----
    Networks that share parameters (``shared=True``) are judged by the means of their figures, keep
    the parameters of one epoch, and end together.

    Members that have stopped go on inside of the products until enough of them can be left out;
    what they do there is thrown away. The optimizer's own memory is up to date after ``fit`` only
    if no members were left out.

    Examples
    --------
    >>> nets = FullyConnectedNet([64, 32, 10], population=8)
    >>> trainer = PopulationTrainer(nets, optimizer=Adam(np.geomspace(1e-4, 1e-2, 8)))
    >>> history = trainer.fit(x, y, validation=(x_val, y_val))
    >>> best = nets.member(int(np.nanargmax(history.best("val_accuracy"))))
    """

    model: FullyConnectedNet
    history: PopulationHistory
    _best: BestMembers
    _work: Work

    def __init__(
        self,
        model: FullyConnectedNet,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        *,
        sampling: Sampling = "shared",
        seed: int | Sequence[int] = 0,
        orders: Orders | None = None,
        folds: int | Sequence[Any] | None = None,
        average: float = 0.0,
        normalization: Normalization | Sequence[Normalization] | None = None,
        **options: Any,
    ):
        if not isinstance(model, FullyConnectedNet) or model.population is None:
            raise ConfigError(
                f"`PopulationTrainer`: expected a FullyConnectedNet with population=P, got "
                f"{type(model).__name__}; a single network is trained by Trainer"
            )
        check_choice("PopulationTrainer", "sampling", sampling, SAMPLINGS)
        if orders is not None and folds is not None:
            raise ConfigError("`PopulationTrainer`: expected orders or folds, got both; drop one")
        if folds is not None and model.shared_params:
            raise ConfigError(
                "`PopulationTrainer`: expected networks that share nothing for folds, got "
                "shared=True, whose common parameters would see every row; give validation="
            )
        if not isinstance(average, Real) or not 0.0 <= float(average) < 1.0:
            raise ConfigError(
                f"`PopulationTrainer`: expected average to be a number in [0, 1), got {average!r}"
            )
        self.average = float(average)
        shared = sampling == "shared" and orders is None and folds is None
        seeds = member_seeds(seed, model.population, shared)
        own = normalization if isinstance(normalization, Sequence) else None
        one = normalization if isinstance(normalization, Normalization) else None
        super().__init__(model, loss, optimizer, seed=seeds[0], normalization=one, **options)
        if own is not None:
            if shared:
                raise ConfigError(
                    "`PopulationTrainer`: expected one normalization for shared minibatches, got "
                    f"{len(own)}; give sampling='own', or orders"
                )
            check_count("normalization", own, model.population)
        if orders is not None:
            check_count("orders", orders.rows, model.population)
        self.sampling, self.seeds, self.orders, self.folds = sampling, seeds, orders, folds
        if self.ranks is not None:
            check_divides(self, self.ranks)
        self.out_of_fold: OutOfFold | None = None
        self.normalizations = normalization
        check_hypers(
            model.population,
            optimizer=self.optimizer,
            loss=self.loss,
            penalty=self.penalty,
            clip_norm=self.clip_norm,
        )
        self.history = PopulationHistory()
        self.running = np.arange(model.population)

    def fit(
        self,
        x: Any,
        y: Any,
        validation: Data | None = None,
        *,
        sample_weight: Any = None,
        resume: str | Path | None = None,
        strict: bool = True,
    ) -> PopulationHistory:
        """Train, or go on with a saved training.

        Parameters
        ----------
        x : array_like, shape (N, …)
        y : array_like, shape (N,) of class numbers, or (N, M)
        validation : (x, y) or (x, y, sample_weight), optional
            Evaluated after every epoch, the same for all members.
        sample_weight : array_like, shape (N,), optional
            What each row counts for, as in :meth:`Trainer.fit`.
        resume, strict
            As in :meth:`Trainer.fit`; members that had stopped stay so.

        Returns
        -------
        PopulationHistory
            The model then has each member's best parameters: with validation data those of its
            best epoch, else those of its last epoch with a finite loss. Signals as in
            :meth:`Trainer.fit`.

        Raises
        ------
        ConfigError
            If the population does not fit into memory; the message says how many members would.
        CheckpointError
            If there is nothing to go on from, or it is of another training.
        """
        model = self.model
        check_reduces("PopulationTrainer.fit", self.loss)
        check_validation("PopulationTrainer.fit", validation)
        batches = self._batches(x, y, sample_weight)
        self._check_memory(isinstance(batches, MemberBatches))
        held_out = None if validation is None else self._held_out(*validation)
        P = model.population or 0
        check_outputs("PopulationTrainer.fit", self.loss, model.config["sizes"][-1], batches.y)
        self.optimizer = self.optimizer.fresh()
        saved = self._saved(x, y, validation, resume, strict, sample_weight)
        self.epoch, self.steps_per_epoch = 0, len(batches)
        self._begin_at(self.epochs, PopulationHistory(best_epochs=[0] * P, endings=[RUNNING] * P))
        self.running = np.arange(P)
        self._best = BestMembers(model)
        self._work = Work(self, batches)
        self._put_back(saved, resume)
        if self.ranks is not None:
            self.running = np.intersect1d(self.running, own_members(P, self.ranks))
        self._tell_of_the_start(saved)
        history, inside = self.history, False
        # A member may overflow; it is found by its loss, and warnings would not say whose it was.
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with self.stopping.listening(), training_together(self.ranks), quiet:
            for epoch in range(self.epoch + 1, self._last + 1):
                if self._ending is not None or not self.running.size:
                    break
                if not self._tally.steps:
                    self._work = self._work.without_the_stopped()
                work, self.epoch = self._work, epoch
                figures = self._run_epoch(work.step, work.batches)
                self.optimizer.steps = work.step.optimizer.steps
                inside = self.interrupted and len(figures.step_losses) < len(work.batches)
                if inside:
                    self._tell_of_the_stop()
                work.end_epoch()
                curves = self._curves(work, figures, held_out)
                self._end_epoch(self._spread(work, figures.step_losses))
                judged = self._judged(curves)
                self._keep_best(work, judged)
                self._add_epoch(work, figures, curves)
                history.seconds = time.perf_counter() - self._start
                self._stop_members(judged)
                for callback in self.callbacks:
                    if not isinstance(callback, EarlyStopping):
                        callback.on_epoch(self, history.rows[-1])
            self._ending = self._ending or "finished"
            if not inside:
                self._tell_of_the_stop()
            self.drop(self.running, self._ending)
            history.ending = self._ending
            history.step_losses = np.concatenate(self._losses)
            if self.ranks is not None:
                history = self.history = put_together(self.ranks, history, self._best.arrays)
        model.load_state_dict(self._best.arrays)
        history.seconds = time.perf_counter() - self._start
        del self._work, self._best
        self._losses = []
        for callback in self.callbacks:
            callback.on_end(self, history)
        return history

    def stop(self, reason: str) -> None:
        """End the training after the current step; of several ranks, of this one's members."""
        self._ending = reason

    def state_dict(self) -> dict[str, Any]:
        self._work.step.settle()
        own = {"best": self._best.state_dict(), "running": self.running}
        return self._common_state() | own | self._work.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_common_state(state)
        self._best.load_state_dict(state["best"])
        self.running = np.asarray(state["running"])
        self._work = self._work.at(state)
        self.optimizer.steps = self._work.step.optimizer.steps

    def _settings(self) -> dict[str, Any]:
        names = ("sampling", "seeds", "orders", "folds", "average", "normalizations")
        return super()._settings() | {name: getattr(self, name) for name in names}

    def resume(self, *data: Any, **options: Any) -> Any:
        """Not for populations, whose members end one by one; raises ConfigError."""
        raise ConfigError(
            "`PopulationTrainer.resume`: a population cannot go on, since its members ended at "
            "different times; fit starts another training of the networks as they are"
        )

    def drop(self, members: Sequence[int] | np.ndarray, reason: str) -> None:
        """Stop some members after this epoch, or those of them that still run.

        Parameters
        ----------
        members : sequence of int
            Of networks that share parameters, any: they end together.
        reason : str
            Their ending in the history.
        """
        leaving = np.isin(self.running, members)
        if self.model.shared_params and leaving.any():
            leaving[:] = True
        for member in self.running[leaving]:
            self.history.endings[member] = reason
        self.running = self.running[~leaving]

    def _curves(self, work: Work, figures: EpochFigures, held_out: Any) -> dict[str, np.ndarray]:
        """This epoch's figures of every member (P,); NaN where it does not run any more."""
        found = {"train_loss": figures.loss}
        if figures.accuracy is not None:
            found["train_accuracy"] = figures.accuracy
        if held_out is not None:
            scores = scores_of(work.judged, work.step.loss, held_out.epoch(), self.metrics)
            found |= {f"val_{name}": values for name, values in scores.items()}
        if self.out_of_fold is not None:
            found |= self._together(work, figures)
        return {name: self._spread(work, values) for name, values in found.items()}

    def _together(self, work: Work, figures: EpochFigures) -> dict[str, np.ndarray]:
        """The ensemble's figures out of fold, of the members that run: the same for each one."""
        runs = np.isin(work.members, self.running) & np.isfinite(figures.loss)
        if self.out_of_fold is None:
            return {}
        model = work.judged
        if runs.any() and not runs.all():
            model = model.select(np.flatnonzero(runs).tolist())
        held, chosen = self.out_of_fold, work.members[runs].tolist()
        scores = held.scores(model, self.loss, chosen) if chosen else held.no_scores(model)
        return {name: np.full(len(work.members), value) for name, value in scores.items()}

    def _judged(self, curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The figures that members are judged by: of such that share parameters, the means."""
        if not self.model.shared_params:
            return curves
        return {name: np.full(len(own), np.mean(own)) for name, own in curves.items()}

    def _spread(self, work: Work, values: np.ndarray) -> np.ndarray:
        """Values (…, members computed) as (…, P), NaN for those that have stopped."""
        everyone = np.full((*values.shape[:-1], self.model.population or 0), np.nan)
        runs = np.isin(work.members, self.running)
        everyone[..., work.members[runs]] = values[..., runs]
        return everyone

    def _keep_best(self, work: Work, curves: dict[str, np.ndarray]) -> None:
        """Copy the parameters of the members that have never been better."""
        for member in self._best.take(work, self._member_scores(work, curves)):
            self.history.best_epochs[member] = self.epoch

    def _member_scores(self, work: Work, curves: dict[str, np.ndarray]) -> np.ndarray:
        """What larger values of are better, (2, P); the second decides between equals."""
        finite = np.isfinite(curves["train_loss"])
        finite[work.members] &= finite_networks(work.step.model)
        validated = [name for name in (LOSS, "val_loss") if name in curves]
        if not validated or not self.restore_best:
            return np.tile(np.where(finite, float(self.epoch), -np.inf), (2, 1))
        usual = LOSS if LOSS in curves or "val_accuracy" not in curves else "val_accuracy"
        monitor = self.monitor or (usual if usual in curves else "val_loss")
        if monitor not in curves:
            raise ConfigError(
                f"`PopulationTrainer`: expected monitor to be one of {', '.join(curves)}, got "
                f"{monitor!r}"
            )
        sign = sign_of(monitor, self.metrics)
        scores = np.stack([sign * curves[monitor], -curves[validated[0]]])
        return np.where(np.isfinite(scores) & finite, scores, -np.inf)

    def _add_epoch(self, work: Work, figures: EpochFigures, curves: dict[str, np.ndarray]) -> None:
        runs = self.running
        row = row_of(self, figures)
        row |= {name: mean_of_finite(values[runs]) for name, values in curves.items()}
        row["running"] = int(runs.size)
        rates = np.full(self.model.population or 0, np.nan)
        rates[work.members] = last_rate(work.step.optimizer)
        rates[np.setdiff1d(work.members, runs)] = np.nan
        row["lr"] = mean_of_finite(rates)
        self.history.add(row, curves, rates)

    def _stop_members(self, curves: dict[str, np.ndarray]) -> None:
        """Drop the members whose loss is not finite, or whose patience is at an end."""
        for name in ("train_loss", "val_loss"):
            if name in curves:
                values = curves[name]
                for member in self.running[~np.isfinite(values[self.running])]:
                    self.drop(
                        [member],
                        f"diverged: the loss is {values[member]} in epoch {self.epoch}; "
                        "lower the learning rate or clip the gradients",
                    )
        for callback in self.callbacks:
            if isinstance(callback, EarlyStopping):
                self.drop(np.flatnonzero(callback.exhausted(curves)), callback.reason)
