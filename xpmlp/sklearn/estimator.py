"""What classifier and regressor share: parameters, the training, pickling."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from ..backend import get_backend, has_wide_types
from ..choices import NormalizationName
from ..errors import ConfigError, DataError
from ..losses import Loss
from ..models import FullyConnectedNet
from ..optim import Optimizer
from ..penalties import L2
from ..training import History
from .class_weights import checked_weights
from .fitted import FittedMLP
from .held_out import hold_out
from .host import numbers_on_host
from .job import SEARCH, Job, once
from .lbfgs import batches_of_all, train_by_lbfgs
from .network import build_network, put_back, snapshot
from .parameters import (
    DECOUPLED,
    Activation,
    Float,
    LearningRate,
    Solver,
    batch_rows,
    check_parameters,
    check_same_network,
    optimizer_of,
)
from .rates import is_open_ended, schedule_of, waiting_of
from .scaling import Moments, change_scaling, no_scaling


class BaseMLP(FittedMLP):
    """Parameters and training; subclasses say what targets and outputs mean."""

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: Activation = "relu",
        *,
        solver: Solver = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: LearningRate = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        normalization: NormalizationName | None = None,
        scale_inputs: bool = True,
        dtype: Float | None = None,
        backend: str | None = None,
        device: str | None = None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver: Solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.normalization = normalization
        self.scale_inputs = scale_inputs
        self.dtype = dtype
        self.backend = backend
        self.device = device

    # What subclasses fill in.

    _output: str
    """The network's ``output``, once targets have been seen."""

    _out_activation: str
    """What makes predictions of the network's outputs, by scikit-learn's name."""
    _scales_targets = False
    """Whether targets are shifted and scaled to mean 0 and standard deviation 1."""

    def _loss(self) -> Loss:
        raise NotImplementedError

    def _monitor(self, targets: np.ndarray) -> str:
        """The column of the history that early stopping on these targets looks at."""
        raise NotImplementedError

    def _encode(self, y: Any, classes: Any, first: bool, incremental: bool) -> np.ndarray:
        """Targets as the loss takes them; ``first`` if the network is about to be built."""
        raise NotImplementedError

    # The training.

    def _weights(
        self, targets: np.ndarray, sample_weight: np.ndarray | None, incremental: bool
    ) -> np.ndarray | None:
        """What each row counts for."""
        return sample_weight

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        classes: Any = None,
        incremental: bool = False,
    ) -> Any:
        """Train: from scratch, or on with ``incremental`` (one epoch) or ``warm_start``."""
        search = SEARCH.get()
        if search is None:
            return self._fit_now(X, y, sample_weight, classes, incremental)
        return search.fit(self, partial(self._fit_now, X, y, sample_weight, classes, incremental))

    def _fit_now(self, X: Any, y: Any, sample_weight: Any, classes: Any, incremental: bool) -> Any:
        check_parameters(self, incremental)
        fitted = self.__sklearn_is_fitted__()
        first = not fitted or not (incremental or self.warm_start)
        with self._on_backend(), self._unchanged_by_failures():
            if not first:
                check_same_network(self, self._network.config)
            X, y = validate_data(
                self,
                numbers_on_host(self, "X", X),
                numbers_on_host(self, "y", y),
                reset=first,
                accept_sparse="csr",
                multi_output=True,
                y_numeric=self._output == "identity",
                dtype=self._dtypes(first),
            )
            targets = self._encode(y, classes, first, incremental)
            weights = checked_weights(self, sample_weight, X.shape[0])
            if weights is not None and not weights.all():  # as if these rows were not there
                counted = np.flatnonzero(weights)
                X, targets, weights = X[counted], targets[counted], weights[counted]
            weights = self._weights(targets, weights, incremental)
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            if first:
                self._build(X, targets, seed)
            else:
                self._network, self._optimizer = self._on_current_library()
                self._optimizer = self._optimizer_to_go_on_with(incremental)
                self.n_iter_ = self.n_iter_ if incremental else 0
            history = self._train(X, targets, weights, seed, incremental)
        if history is not None:
            self._warn(history, incremental)
        return self

    @contextmanager
    def _unchanged_by_failures(self) -> Iterator[None]:
        """After an error everything is as it was before, a trained network too."""
        before, model = dict(vars(self)), vars(self).get("_network")
        kept = {} if model is None else snapshot(model)
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            if model is not None:
                put_back(model, kept)
            raise

    def _optimizer_to_go_on_with(self, incremental: bool) -> Optimizer:
        """With the parameters as they are now, and for partial_fit the memory so far."""
        optimizer, old = optimizer_of(self), self._optimizer
        if not incremental:
            return optimizer
        if type(optimizer) is not type(old) or optimizer.slots != old.slots:
            raise ConfigError(
                f"`{type(self).__name__}.partial_fit`: expected the solver that it began with, "
                f"{old!r}, got {optimizer!r}; for another one call fit"
            )
        optimizer.steps, optimizer.state = old.steps, old.state
        return optimizer

    def _build(self, X: np.ndarray, targets: np.ndarray, seed: int) -> None:
        outputs = targets.shape[1] if targets.ndim == 2 else len(self.classes_)
        hidden: Any = self.hidden_layer_sizes
        hidden = hidden if np.iterable(hidden) else [hidden]
        network = once(
            build_network,
            [X.shape[1], *hidden, outputs],
            self.activation,
            normalization=self.normalization,
            dropout=self.dropout,
            output=self._output,
            seed=seed,
            dtype=X.dtype.name,
        )
        self._network = network if SEARCH.get() is None else deepcopy(network)
        self._optimizer = optimizer_of(self)
        self.n_outputs_ = outputs
        self.out_activation_ = self._out_activation
        self._inputs, self._targets = no_scaling(X.shape[1]), no_scaling(outputs)
        self._input_moments: Moments | None = None
        self._target_moments: Moments | None = None
        self.n_iter_ = 0
        self.t_ = 0
        self.loss_curve_: list[float] = []
        self.best_loss_: float | None = None
        holds_out = self.early_stopping and self.solver != "lbfgs"
        self.validation_scores_: list[float] | None = [] if holds_out else None
        self.best_validation_score_: float | None = None

    def _train(
        self,
        X: Any,
        targets: np.ndarray,
        weights: np.ndarray | None,
        seed: int,
        incremental: bool,
    ) -> History | None:
        """The training's history; None if it has been put off, to be made with others."""
        held_out: Any = None
        self._scale(X, targets, weights, incremental)
        mass = 1.0 if weights is None else float(weights.mean())  # of a row
        data = [X, targets]
        if weights is not None and weights.min() < weights.max():
            data.append(weights / mass)
        rows = X.shape[0]
        if targets.dtype.kind == "f":
            data[1] = self._targets.apply(targets).astype(X.dtype, copy=False)
        if self.solver == "lbfgs":
            history = train_by_lbfgs(
                self._network,
                self._loss(),
                batches_of_all(data, self._inputs, self._network.dtype),
                penalty=L2(self.alpha / (rows * mass)) if self.alpha > 0 else None,
                max_iter=self.max_iter,
                max_fun=self.max_fun,
                tol=self.tol,
            )
            self._record(history, rows, "train_loss")
            return history
        if self.early_stopping:
            data, held_out = hold_out(self, data, seed)
            rows = data[0].shape[0]
        size = batch_rows(self, rows)
        monitor = "train_loss" if held_out is None else self._monitor(held_out[1])
        coupled = self.alpha > 0 and self.solver not in DECOUPLED
        steps = -(-rows // size)
        schedule = schedule_of(self, rows, steps, self._optimizer.steps)
        self._optimizer.schedule = schedule
        job = Job(
            self._network,
            self._loss(),
            self._optimizer,
            data,
            held_out,
            normalization=self._inputs,
            epochs=self.max_iter,
            batch_size=size,
            # As scikit-learn counts it: λ of the mean loss is alpha over what a batch's rows weigh.
            strength=self.alpha / (size * mass) if coupled else 0.0,
            waiting=waiting_of(self, monitor),
            monitor=monitor,
            seed=seed
            + len(self.loss_curve_),  # or every call of partial_fit would repeat one order
            shuffle=self.shuffle,
            schedule=schedule,
            solver=self.solver,
            place=(self.backend, self.device),
            progress=bool(self.verbose),
        )
        search = SEARCH.get()
        if search is not None and search.takes(job):
            return None
        history = job.alone(incremental)
        self._optimizer = job.optimizer
        self._record(history, rows, monitor)
        return history

    def _finish(self, job: Job, history: History, network: FullyConnectedNet) -> None:
        """Take what came of a training that had been put off."""
        self._network = network
        self._record(history, job.rows, job.monitor)
        self._warn(history, False)

    def _scale(
        self, X: Any, targets: np.ndarray, weights: np.ndarray | None, incremental: bool
    ) -> None:
        """Take the scalings from these rows, with ``partial_fit`` from all that have come."""
        before = self._inputs, self._targets
        if self.scale_inputs:
            moments = once(Moments.of, X, weights)
            if incremental and self._input_moments is not None:
                moments = self._input_moments.joined(moments)
            self._input_moments, self._inputs = moments, moments.of_inputs()
        if self._scales_targets:
            moments = once(Moments.of, targets, weights)
            if incremental and self._target_moments is not None:
                moments = self._target_moments.joined(moments)
            self._target_moments, self._targets = moments, moments.of_targets()
        if self.t_ > 0:
            inputs, outputs = zip(before, (self._inputs, self._targets), strict=True)
            change_scaling(self._network, inputs, outputs)

    def _record(self, history: History, rows: int, monitor: str) -> None:
        if history.ending.startswith("diverged"):
            what = history.ending.partition(";")[0]  # its advice is for users of a Trainer
            raise DataError(
                f"`{type(self).__name__}.fit`: expected finite losses, got: {what}; "
                "scale the inputs (StandardScaler) or lower learning_rate_init"
            )
        # With several targets of different spread, each counts by the share of its own variance.
        unit = float(np.mean(self._targets.std**2))
        self.loss_curve_ = [*self.loss_curve_, *(unit * loss for loss in history["train_loss"])]
        self.n_iter_ += len(history)
        self.t_ += rows * len(history)
        if monitor != "train_loss":
            sign = -unit if monitor == "val_loss" else 1.0
            self.validation_scores_ = [
                *(self.validation_scores_ or []),
                *(sign * score for score in history[monitor]),
            ]
            self.best_validation_score_ = max(self.validation_scores_)
        else:
            self.best_loss_ = min(self.loss_curve_)

    def _warn(self, history: History, incremental: bool) -> None:
        """About how the training ended; after it, since a warning may be made an error."""
        if history.interrupted:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        elif history.ending == "finished" and not incremental and is_open_ended(self):
            warnings.warn(
                f"{type(self).__name__}: reached max_iter={self.max_iter} epochs while still "
                "improving; raise max_iter, or tol",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _dtypes(self, first: bool) -> Any:
        """The dtypes that X may have; the first one is what others are converted to."""
        if not first:
            return self._network.dtype
        if self.dtype is not None:
            return self.dtype
        # JAX in its 32-bit mode has no float64.
        return (np.float64, np.float32) if has_wide_types(get_backend().xp) else np.float32
