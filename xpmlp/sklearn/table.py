"""What the estimators of tables share: from a data frame to an ensemble, and back from a file."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples, check_is_fitted

from ..backend import get_backend, to_numpy, use_backend
from ..choices import HiddenActivation, Output
from ..data.tables import Column, NumberCodes, TableEncoder
from ..data.tables.recipe import (
    AVERAGE,
    BINS,
    DECAY,
    EPOCHS,
    FOLDS,
    HIDDEN,
    MEMBERS,
    PATIENCE,
    PATIENCE_SHARE,
    RATE,
    batch_rows,
    drops_last,
)
from ..errors import CheckpointError, DataError
from ..losses import Loss
from ..models import FullyConnectedNet
from ..onnx.table import Classes, Numbers, export_table
from ..optim import AdamW
from ..training import EarlyStopping, PopulationTrainer, TimeLimit, load_model, save_model
from ..training.out_of_fold import LOSS
from .class_weights import checked_weights
from .frames import columns_of
from .table_parameters import check_parameters

_KEY = "table_estimator"
_PREDICTED = 16_384  # rows at a time, of all members together


class BaseTable(BaseEstimator):
    """Preprocessing, training and files; subclasses say what targets and outputs mean."""

    n_features_in_: int
    feature_names_in_: np.ndarray
    classes_: np.ndarray
    _network: FullyConnectedNet
    _encoder: TableEncoder
    _codes: NumberCodes
    _output: Output

    def __init__(
        self,
        *,
        n_members: int = MEMBERS,
        folds: int = FOLDS,
        hidden_layer_sizes: int | tuple[int, ...] = HIDDEN,
        activation: HiddenActivation = "relu",
        dropout: float = 0.0,
        learning_rate_init: float = RATE,
        alpha: float = DECAY,
        batch_size: int | str = "auto",
        max_iter: int = EPOCHS,
        n_iter_no_change: int = PATIENCE,
        bins: int = BINS,
        max_levels: int = 100,
        time_limit: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
        backend: str | None = None,
        device: str | None = None,
    ):
        self.n_members = n_members
        self.folds = folds
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation: HiddenActivation = activation
        self.dropout = dropout
        self.learning_rate_init = learning_rate_init
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.n_iter_no_change = n_iter_no_change
        self.bins = bins
        self.max_levels = max_levels
        self.time_limit = time_limit
        self.random_state = random_state
        self.verbose = verbose
        self.backend = backend
        self.device = device

    # What subclasses fill in.

    def _loss(self) -> Loss:
        raise NotImplementedError

    def _set_targets(self, y: Any) -> np.ndarray:
        """Class numbers, or standardized numbers (N, M); what undoes it is kept."""
        raise NotImplementedError

    def _weights(self, targets: np.ndarray, sample_weight: Any) -> np.ndarray | None:
        """How much each row counts."""
        return sample_weight

    def _learn_from_held_out(self, mean: np.ndarray, targets: np.ndarray) -> None:
        """Take what the ensemble's predictions (N, M) of rows that it did not see can tell."""
        raise NotImplementedError

    def _own_state(self) -> dict[str, Any]:
        """What the subclass has learnt, as JSON can hold it."""
        raise NotImplementedError

    def _take_state(self, state: dict[str, Any]) -> None:
        """Undo :meth:`_own_state`."""
        raise NotImplementedError

    def _onnx_answer(self) -> Classes | Numbers:
        """What an exported file answers."""
        raise NotImplementedError

    # The training.

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        check_parameters(self)
        columns = columns_of(self, X, reset=True)
        sample_weight = checked_weights(self, sample_weight, len(columns[0]))
        if y is not None and _num_samples(y) != len(columns[0]):
            raise DataError(
                f"`{type(self).__name__}`: expected a target for each of {len(columns[0])} rows, "
                f"got {_num_samples(y)}; inconsistent numbers of samples"
            )
        if sample_weight is not None and y is not None and not np.all(sample_weight):
            # Rows that do not count are as if they were not there.
            counted = np.flatnonzero(sample_weight)
            columns = [column.take(counted) for column in columns]
            y, sample_weight = np.asarray(y)[counted], sample_weight[counted]
        targets = self._set_targets(y)
        weights = self._weights(targets, sample_weight)
        if weights is not None and weights.min() == weights.max():
            weights = None
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with self._on_backend():
            self._learn(columns, targets, weights, seed)
        return self

    def _learn(
        self, columns: list[Column], targets: np.ndarray, weights: np.ndarray | None, seed: int
    ) -> None:
        rows = len(targets)
        self._encoder = TableEncoder(max_levels=self.max_levels).fit(columns)
        raw = self._encoder.transform(columns, "X")
        self._codes = NumberCodes(self.bins).fit(
            raw,
            targets,
            numbers=self._encoder.numbers,
            names=self._encoder.names,
            categories=self._encoder.categories,
        )
        x = self._codes.positions(raw)
        hidden = self.hidden_layer_sizes
        hidden = [hidden] if isinstance(hidden, int | np.integer) else list(hidden)
        outputs = targets.shape[1] if targets.ndim == 2 else len(self.classes_)
        self._network = FullyConnectedNet(
            [x.shape[1], *map(int, hidden), outputs],
            activation=self.activation,
            dropout=self.dropout,
            output=self._output,
            population=int(self.n_members),
            seed=seed,
            columns=self._codes.of_network,
        )
        folds = min(int(self.folds), int(self.n_members), rows)
        seen = rows - -(-rows // folds)
        size = min(batch_rows(rows) if self.batch_size == "auto" else int(self.batch_size), seen)
        callbacks: list[Any] = [
            EarlyStopping(self.n_iter_no_change, monitor=LOSS, share=PATIENCE_SHARE)
        ]
        if self.time_limit is not None:
            callbacks.append(TimeLimit(self.time_limit))
        trainer = PopulationTrainer(
            self._network,
            self._loss(),
            AdamW(self.learning_rate_init, weight_decay=self.alpha),
            folds=folds,
            average=AVERAGE,
            epochs=int(self.max_iter),
            batch_size=size,
            drop_last=drops_last(seen, size),
            callbacks=callbacks,
            progress=bool(self.verbose),
            seed=seed,
        )
        history = trainer.fit(x, targets, sample_weight=weights)
        if not np.isfinite(history.rows[-1]["train_loss"]):
            raise DataError(
                f"`{type(self).__name__}.fit`: expected finite losses, got {history.endings[0]}"
            )
        self.history_ = history
        self.n_iter_ = len(history)
        held = trainer.out_of_fold
        assert held is not None
        mean, known = held.outputs(self._network)
        self._learn_from_held_out(mean[known], targets[known])
        self._held = columns, targets, held.own
        vars(self).pop("_importances", None)

    # The outputs.

    def _inputs(self, columns: list[Column]) -> np.ndarray:
        raw = self._encoder.transform(columns, "X")
        return self._codes.inputs(raw, self._network.config["columns"])

    def _members(self, X: Any) -> np.ndarray:
        """Probabilities of classes, or standardized numbers, of each member, (P, N, M)."""
        check_is_fitted(self)
        columns = columns_of(self, X, reset=False)
        with self._on_backend():
            return self._member_outputs(self._inputs(columns))

    def _member_outputs(self, x: np.ndarray) -> np.ndarray:
        if self._output == "softmax":
            return to_numpy(self._network.predict_proba(x, batch_size=_PREDICTED))
        return to_numpy(self._network.outputs(x, batch_size=_PREDICTED))

    @property
    def feature_importances_(self) -> np.ndarray:
        """How much worse the loss gets if a column is shuffled, (D,).

        Of at most 5,000 rows, each judged by members that were not trained on it. Computed when
        first asked for, from the training data, which is not part of pickles and files.
        """
        check_is_fitted(self)
        if "_importances" not in vars(self):
            if "_held" not in vars(self):
                raise AttributeError(
                    f"`{type(self).__name__}.feature_importances_`: expected the data of fit, "
                    "which is not kept in files; use sklearn.inspection.permutation_importance, "
                    "or look at it before saving"
                )
            from .importance import permutation_importances

            with self._on_backend():
                self._importances = permutation_importances(self, *self._held)
        return self._importances

    def __sklearn_is_fitted__(self) -> bool:
        return "_network" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.non_deterministic = False
        return tags

    # Files.

    def __getstate__(self) -> dict[str, Any]:
        inherited: Any = super().__getstate__()
        state: dict[str, Any] = dict(inherited)
        state.pop("_held", None)
        if "_network" in state:
            network = state["_network"]
            state["_network"] = {"config": dict(network.config), "arrays": network.state_dict()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_network" in state:
            with self._on_backend():
                self._network = FullyConnectedNet(**state["_network"]["config"])
                self._network.load_state_dict(state["_network"]["arrays"])

    def save(self, path: str | Path) -> None:
        """Write all that predictions need as one file, ``.safetensors`` or ``.npz``, no pickle.

        Raises
        ------
        CheckpointError
            If it cannot be written, or labels are neither text nor numbers.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        parameters = self.get_params(deep=False)
        if not isinstance(parameters["random_state"], int | None):
            parameters["random_state"] = None
        state = {
            "class": type(self).__name__,
            "parameters": parameters,
            "encoder": self._encoder.to_dict(),
            "codes": self._codes.to_dict(),
            "n_features_in": self.n_features_in_,
            "feature_names_in": None if names is None else list(map(str, names)),
            "n_iter": self.n_iter_,
            "own": self._own_state(),
        }
        save_model(path, self._network, {_KEY: json.loads(json.dumps(state, default=_plain))})

    def export_onnx(self, path: str | Path) -> Path:
        """Write all that predictions need as ONNX, to make them where there is no Python.

        Parameters
        ----------
        path : path-like
            By convention it ends in ``.onnx``.

        Returns
        -------
        Path
            ``path``.

        Raises
        ------
        ConfigError
            For labels that are neither text nor numbers, a column in which empty text may be a
            missing value or not, or a column's name that the graph needs itself.
        CheckpointError
            If the file cannot be written.
        MissingDependencyError
            Without the ``onnx`` library.

        Notes
        -----
        The graph has an input (N, 1) for each column, under its name: float64 for numbers and truth
        values, NaN for a missing one; seconds since 1970-01-01, float64 too, for dates; text for
        categories, without spaces around it and empty for a missing one. A classifier has the
        outputs ``probabilities`` (N, C) and ``label`` (N,), a regressor ``prediction``.
        """
        check_is_fitted(self)
        return export_table(path, self._encoder, self._codes, self._network, self._onnx_answer())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        CheckpointError
            If it is missing, damaged, or of another estimator.
        """
        network, extras = load_model(path)
        state = extras.get(_KEY, {})
        if state.get("class") != cls.__name__:
            raise CheckpointError(
                f"`{cls.__name__}.load`: expected a file that {cls.__name__}.save wrote, got "
                f"{state.get('class') or 'another model'} in {path}"
            )
        parameters = state["parameters"]
        if isinstance(parameters["hidden_layer_sizes"], list):
            parameters["hidden_layer_sizes"] = tuple(parameters["hidden_layer_sizes"])
        estimator = cls(**parameters)
        estimator._network = network
        estimator._encoder = TableEncoder.from_dict(state["encoder"])
        estimator._codes = NumberCodes.from_dict(state["codes"])
        estimator.n_features_in_ = state["n_features_in"]
        if state["feature_names_in"] is not None:
            estimator.feature_names_in_ = np.array(state["feature_names_in"], dtype=object)
        estimator.n_iter_ = state["n_iter"]
        estimator._take_state(state["own"])
        return estimator

    def _on_backend(self) -> AbstractContextManager[Any]:
        if self.backend is None and self.device is None:
            return nullcontext()
        return use_backend(self.backend or get_backend().name, self.device)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise CheckpointError(
        f"`save`: expected labels and parameters that are numbers or text, got {value!r:.60}"
    )
