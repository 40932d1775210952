"""The training loop for populations: every member by its own figures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array
from ..data.member_batches import MemberBatches
from ..data.normalization import Normalization
from ..data.orders import SAMPLINGS, Orders, fold_orders, orders_for
from ..errors import ConfigError, ShapeError
from ..losses import Loss
from ..memory_budget import bytes_per_member, check_fits
from ..models import FullyConnectedNet
from ..ops.shapes import check_choice
from ..optim import Optimizer
from .best_members import BestMembers
from .callbacks import EarlyStopping
from .minibatches import (
    check_rows_of_members,
    check_targets,
    floating_dtype,
    is_pair,
    minibatches,
)
from .out_of_fold import LOSS, OutOfFold, folds_of
from .parameters import finite_networks
from .population_history import RUNNING, PopulationHistory
from .population_work import Work
from .rate_plan import last_rate
from .scores import check_outputs, check_reduces, scores_of
from .selection import check_hypers, select_loss
from .tally import EpochFigures
from .trainer import Data, Trainer

_EVALUATED = 16_384  # rows at a time, of all members together


class PopulationTrainer(Trainer):
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
    progress, shuffle, drop_last
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
        sampling: str = "shared",
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
        if not isinstance(average, Real) or not 0.0 <= float(average) < 1.0:
            raise ConfigError(
                f"`PopulationTrainer`: expected average to be a number in [0, 1), got {average!r}"
            )
        self.average = float(average)
        shared = sampling == "shared" and orders is None and folds is None
        seeds = _member_seeds(seed, model.population, shared)
        own = normalization if isinstance(normalization, Sequence) else None
        one = normalization if isinstance(normalization, Normalization) else None
        super().__init__(model, loss, optimizer, seed=seeds[0], normalization=one, **options)
        if own is not None:
            if shared:
                raise ConfigError(
                    "`PopulationTrainer`: expected one normalization for shared minibatches, got "
                    f"{len(own)}; give sampling='own', or orders"
                )
            _check_count("normalization", own, model.population)
        if orders is not None:
            _check_count("orders", orders.rows, model.population)
        self.sampling, self.seeds, self.orders, self.folds = sampling, seeds, orders, folds
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
        sample_weight: np.ndarray | None = None,
        resume: str | Path | None = None,
        strict: bool = True,
    ) -> PopulationHistory:
        """Train, or go on with a saved training.

        Parameters
        ----------
        x : array_like, shape (N, …)
        y : array_like, shape (N,) of class numbers, or (N, M)
        validation : (x, y), optional
            Evaluated after every epoch, the same for all members.
        sample_weight : ndarray, shape (N,), optional
            How much each row counts. Needs ``folds`` or an order of its own for each member, which
            then draws rows by their weights; see :class:`~xpmlp.data.orders.Orders`.
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
        if validation is not None and not is_pair(validation):
            raise ConfigError(
                "`PopulationTrainer.fit`: expected validation=(x, y), got "
                f"{type(validation).__name__}"
            )
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
        self._tell_of_the_start(saved)
        history, inside = self.history, False
        # A member may overflow; it is found by its loss, and warnings would not say whose it was.
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with self.stopping.listening(), quiet:
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
                self._keep_best(work, curves)
                self._add_epoch(work, figures, curves)
                history.seconds = time.perf_counter() - self._start
                self._stop_members(curves)
                for callback in self.callbacks:
                    if not isinstance(callback, EarlyStopping):
                        callback.on_epoch(self, history.rows[-1])
            self._ending = self._ending or "finished"
            if not inside:
                self._tell_of_the_stop()
        self.drop(self.running, self._ending)
        history.ending = self._ending
        history.step_losses = np.concatenate(self._losses)
        model.load_state_dict(self._best.arrays)
        history.seconds = time.perf_counter() - self._start
        del self._work, self._best
        self._losses = []
        for callback in self.callbacks:
            callback.on_end(self, history)
        return history

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
        reason : str
            Their ending in the history.
        """
        leaving = np.isin(self.running, members)
        for member in self.running[leaving]:
            self.history.endings[member] = reason
        self.running = self.running[~leaving]

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        """Means over the members of what :meth:`evaluate_members` gives."""
        scores = self.evaluate_members(x, y)
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def evaluate_members(
        self, x: Any, y: Any, rows: Sequence[np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Loss and accuracy (or R²) of every member on other data, in evaluation mode.

        Parameters
        ----------
        x, y : array_like
        rows : P int arrays, optional
            The rows for each member, such as those that it was not trained on. Default: all, for
            all of them.

        Returns
        -------
        dict of str to ndarray, shape (P,)
            ``loss``, and ``accuracy`` in [0, 1] for classes and yes/no questions or ``r2`` for
            numbers.
        """
        model = self.model
        if rows is None:
            return scores_of(model, self.loss, self._held_out(x, y).epoch())
        _check_count("rows", rows, model.population or 0)
        scores: dict[str, np.ndarray] = {}
        # Members that share their rows share the work: they are a population of their own.
        for members in self._alike(rows):
            part = model.select(members)
            taken = rows[members[0]]
            found = self._held_out(np.asarray(x)[taken], np.asarray(y)[taken], members[0])
            loss = select_loss(self.loss, members)
            for name, values in scores_of(part, loss, found.epoch()).items():
                own = scores.setdefault(name, np.full(len(rows), np.nan))
                own[members] = values
        return scores

    def _check_memory(self, own_batches: bool) -> None:
        """Only of main memory: a device's library tells when its memory is full."""
        model = self.model
        if not all(isinstance(array, np.ndarray) for array in model.params.values()):
            return
        each = bytes_per_member(
            [size if isinstance(size, int) else max(size) for size in model.config["sizes"]],
            self.batch_size,
            slots=self.optimizer.slots,
            own=own_batches,
            itemsize=np.dtype(model.dtype).itemsize,
        )
        check_fits("PopulationTrainer", model.population or 1, each, "in training")

    def _batches(self, x: Any, y: Any, weights: np.ndarray | None = None) -> Any:
        x = x if hasattr(x, "shape") else np.asarray(x)
        check_rows_of_members(self.model, x)
        orders = self._orders(y, x.shape[0], weights)
        options: dict[str, Any] = {"batch_size": self.batch_size, "drop_last": self.drop_last}
        if orders is None:
            options |= {"shuffle": self.shuffle, "seed": self.seed}
            options |= {"normalization": self.normalization, "loss": self.loss}
            return minibatches(self.model, x, y, **options)
        if not self.shuffle:
            orders = Orders(orders.rows, orders.seeds, shuffle=False)
        options |= {"normalization": self.normalizations, "dtype": floating_dtype(self.model)}
        batches = MemberBatches(x, y, orders, **options)
        check_targets(self.model, self.loss, batches.y)
        if self.folds is not None:
            size = max(1, _EVALUATED // (self.model.population or 1))
            self.out_of_fold = OutOfFold(self._folds, batches, size, weights)
        return batches

    def _orders(self, y: Any, rows: int, weights: np.ndarray | None) -> Orders | None:
        """Which rows each member trains on; None for one order that all share."""
        if self.folds is not None:
            self._folds = folds_of(self.folds, y, rows, self.seeds[0])
            return fold_orders(self._folds, rows, self.seeds, weights)
        orders = self.orders or orders_for(self.sampling, rows, self.seeds)
        if weights is None or orders is None:
            if weights is not None:
                raise ConfigError(
                    "`PopulationTrainer.fit`: expected no sample_weight for shared minibatches; "
                    "give folds, orders or sampling='own'"
                )
            return orders
        return Orders(orders.rows, orders.seeds, shuffle=orders.shuffle, weights=weights)

    def _alike(self, rows: Sequence[np.ndarray]) -> Iterable[list[int]]:
        """The members, grouped by equal rows and normalization."""
        groups: dict[tuple, list[int]] = {}
        for member, own in enumerate(rows):
            key = np.asarray(own, dtype=np.int64).tobytes(), id(self._normalization_of(member))
            groups.setdefault(key, []).append(member)
        return groups.values()

    def _normalization_of(self, member: int | None) -> Normalization | None:
        given = self.normalizations
        if given is None or isinstance(given, Normalization):
            return given
        if member is None:
            raise ConfigError(
                "`PopulationTrainer`: expected one normalization where all members see the same "
                f"rows, got {len(given)}; evaluate with rows=, or leave validation out"
            )
        return given[member]

    def _held_out(self, x: Any, y: Any, member: int | None = None) -> Any:
        return minibatches(
            self.model,
            x,
            y,
            batch_size=max(1, _EVALUATED // (self.model.population or 1)),
            shuffle=False,
            normalization=self._normalization_of(member),
            loss=self.loss,
        )

    def _curves(self, work: Work, figures: EpochFigures, held_out: Any) -> dict[str, np.ndarray]:
        """This epoch's figures of every member (P,); NaN where it does not run any more."""
        found = {"train_loss": figures.loss}
        if figures.accuracy is not None:
            found["train_accuracy"] = figures.accuracy
        if held_out is not None:
            scores = scores_of(work.judged, work.step.loss, held_out.epoch())
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
        sign = 1.0 if monitor.endswith(("accuracy", "r2")) else -1.0
        scores = np.stack([sign * curves[monitor], -curves[validated[0]]])
        return np.where(np.isfinite(scores) & finite, scores, -np.inf)

    def _add_epoch(self, work: Work, figures: EpochFigures, curves: dict[str, np.ndarray]) -> None:
        runs = self.running
        row = self._row(figures)
        row |= {name: _mean(values[runs]) for name, values in curves.items()}
        row["running"] = int(runs.size)
        rates = np.full(self.model.population or 0, np.nan)
        rates[work.members] = last_rate(work.step.optimizer)
        rates[np.setdiff1d(work.members, runs)] = np.nan
        row["lr"] = _mean(rates)
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


def _member_seeds(seed: int | Sequence[int], population: int, shared: bool) -> list[int]:
    """One seed a member; only the first counts where all share an order."""
    if isinstance(seed, int | np.integer):
        return [int(seed) + (0 if shared else member) for member in range(population)]
    if shared:
        raise ConfigError(
            "`PopulationTrainer`: expected one seed for shared minibatches, got "
            f"{len(seed)}; give sampling='own' for an order of its own for each member"
        )
    _check_count("seed", seed, population)
    return [int(own) for own in seed]


def _check_count(name: str, values: Sequence[Any], population: int) -> None:
    if len(values) != population:
        raise ShapeError(
            f"`PopulationTrainer`: expected {name} for each of {population} members, got "
            f"{len(values)}"
        )


def _mean(values: Array) -> float:
    """The mean of what is finite; NaN if nothing is."""
    finite = values[np.isfinite(values)]
    return float(np.mean(finite)) if finite.size else float("nan")
