"""TableClassifier."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ..calibration import fit_temperature, temper
from ..choices import HiddenActivation
from ..data.tables.recipe import BINS, DECAY, EPOCHS, FOLDS, HIDDEN, MEMBERS, PATIENCE, RATE
from ..errors import DataError
from ..losses import Loss, SoftmaxCrossEntropy
from ..onnx.table import Classes
from .class_weights import with_class_weights
from .table import BaseTable


class TableClassifier(ClassifierMixin, BaseTable):
    """Classes from a table as it is: an ensemble of multilayer perceptrons.

    Numbers, truth values, categories, text and dates may be mixed, and values may be missing; see
    :class:`~xpmlp.data.tables.TableEncoder` and :class:`~xpmlp.data.tables.NumberCodes` for how
    they become inputs. Nothing needs to be scaled or encoded before.

    Parameters
    ----------
    n_members : int
        Networks.
    folds : int
        Each network leaves out one of so many parts of the rows; training stops by how good all of
        them are together on the rows that they left out.
    hidden_layer_sizes : int or sequence of int
    activation : str
        Any that :class:`xpmlp.models.FullyConnectedNet` knows.
    dropout : float
        Probability to drop a hidden unit in training.
    learning_rate_init : float
        Of AdamW.
    alpha : float
        Its weight decay.
    batch_size : int or "auto"
        "auto" is 64 rows, of 2,000 rows and more 128, of 6,400 and more 256.
    max_iter : int
        Epochs at most.
    n_iter_no_change : int
        Epochs without improvement to wait for before stopping, at most; after a best epoch b, it
        waits for max(4, b/4).
    bins : int
        Of each number's piecewise-linear code; 0 for none.
    max_levels : int
        Categories of a column with an input of their own; rarer ones share one.
    time_limit : float, optional
        Seconds of training, after which the best epoch so far is taken.
    class_weight : {None, "balanced"} or dict
        How much rows of each class count, as in scikit-learn.
    calibrate : bool
        Whether probabilities are tempered so that they fit the rows that were left out.
    random_state : int, RandomState or None
    verbose : bool
        Whether to show progress on standard error.
    backend, device : str, optional
        Array library and its device; default: the current ones.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
    temperature_ : float
        Of the calibration.
    feature_importances_ : ndarray, shape (D,)
        How much the log loss grows if a column is shuffled; computed when first asked for.
    history_ : PopulationHistory
        Of the training; ``ensemble_loss`` is what it stops by.
    n_iter_ : int
        Epochs.
    n_features_in_ : int
    feature_names_in_ : ndarray
        If X was a data frame.

    Notes
    -----
    Each row's loss counts ``sample_weight`` times ``class_weight``, in the mean over the rows of a
    batch; rows of weight 0 are as if they were not there.

    Examples
    --------
    >>> model = TableClassifier().fit(frame.drop(columns="income"), frame["income"])
    >>> model.predict_proba(new)
    """

    _output = "softmax"

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
        class_weight: Literal["balanced"] | dict | None = None,
        calibrate: bool = True,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
        backend: str | None = None,
        device: str | None = None,
    ):
        super().__init__(
            n_members=n_members,
            folds=folds,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            dropout=dropout,
            learning_rate_init=learning_rate_init,
            alpha=alpha,
            batch_size=batch_size,
            max_iter=max_iter,
            n_iter_no_change=n_iter_no_change,
            bins=bins,
            max_levels=max_levels,
            time_limit=time_limit,
            random_state=random_state,
            verbose=verbose,
            backend=backend,
            device=device,
        )
        self.class_weight = class_weight
        self.calibrate = calibrate

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TableClassifier:
        """Train on a data frame or array X (N, D) and labels y (N,).

        Raises
        ------
        ConfigError
            For a parameter out of range (a ValueError).
        DataError
            For data that cannot be trained on (a ValueError).
        """
        return self._fit(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label (N,) of every row."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return self.classes_[chosen]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, C) of the classes in ``classes_``."""
        mean = self._members(X).mean(axis=0, dtype=np.float64)
        return temper(mean, self.temperature_)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):  # a probability may round to 0
            return np.log(self.predict_proba(X))

    def _loss(self) -> Loss:
        return SoftmaxCrossEntropy()

    def _set_targets(self, y: Any) -> np.ndarray:
        check_classification_targets(y)
        self.classes_, targets = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                f"`{type(self).__name__}`: expected at least 2 classes, got one class: "
                f"{self.classes_.tolist()}"
            )
        return targets.astype(np.int64)

    def _weights(self, targets: np.ndarray, sample_weight: Any) -> np.ndarray | None:
        return with_class_weights(self, targets, sample_weight)

    def _learn_from_held_out(self, mean: np.ndarray, targets: np.ndarray) -> None:
        self.temperature_ = fit_temperature(mean, targets) if self.calibrate else 1.0

    def _onnx_answer(self) -> Classes:
        return Classes(self.classes_, self.temperature_)

    def _own_state(self) -> dict[str, Any]:
        return {
            "classes": self.classes_,
            "dtype": self.classes_.dtype.str,
            "temperature": self.temperature_,
        }

    def _take_state(self, state: dict[str, Any]) -> None:
        self.classes_ = np.array(state["classes"], dtype=np.dtype(state["dtype"]))
        self.temperature_ = state["temperature"]
