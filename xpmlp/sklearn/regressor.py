"""MLPRegressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from ..errors import ConfigError, DataError
from ..losses import HalfSSE, Loss, PoissonNLL
from .estimator import BaseMLP
from .host import as_given
from .parameters import Activation, RegressionLoss, with_more
from .rates import goes_by_batches


class MLPRegressor(RegressorMixin, BaseMLP):
    """A fully connected network as a scikit-learn regressor, for one target or several.

    It minimises half the mean squared error of targets that it shifts and scales to mean 0 and
    standard deviation 1, each for itself, so that their unit does not matter: ``alpha`` and ``tol``
    are for standardized targets. Predictions and losses are in the targets' own units.
    ``partial_fit`` goes by all targets that have come so far.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}
        "poisson" is for counts and other targets ≥ 0, which are not scaled: predictions are
        ``exp`` of the network's outputs, and the loss is ``mean [ŷ − y ln ŷ]``, scikit-learn's but
        for a constant.
    hidden_layer_sizes, activation, …
        As in :class:`MLPClassifier`.

    Attributes
    ----------
    model_ : FullyConnectedNet
        The network, for example for :func:`xpmlp.onnx.export_onnx`: a copy between inputs and
        targets in their own units, with the scalings as a part of its first and last layer. In
        float32 it cannot tell apart targets around 10⁸; ``predict``, which scales back in float64,
        can.
    coefs_, intercepts_ : list of ndarray
        Weights (D, M) and biases (M,) of each of its fully connected layers.
    loss_curve_ : list of float
        The mean training loss of every epoch, penalty included, in the targets' unit squared: the
        loss of the standardized targets times their mean variance. For one target that is half the
        mean squared error; of several, each counts by the share of its own variance.
    loss_, best_loss_ : float
        The last and the smallest of them; ``best_loss_`` is None with early stopping.
    validation_scores_, best_validation_score_
        With early stopping: R² of every epoch (minus the loss, if the targets held out are all
        the same), and the best of them; else None.
    n_iter_, t_ : int
        Epochs, and rows seen.
    n_features_in_, n_outputs_, n_layers_ : int
    feature_names_in_ : ndarray
        If X was a data frame.
    out_activation_ : str
        ``"identity"``, or ``"exp"`` with the Poisson loss.
    """

    _output = "identity"

    def __init__(
        self,
        loss: RegressionLoss = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: Activation = "relu",
        **others: Any,
    ):
        super().__init__(hidden_layer_sizes, activation, **others)
        self.loss = loss

    # Which scikit-learn reads parameters from: those of both, the loss first, as there.
    __init__.__signature__ = with_more(BaseMLP.__init__, first={"loss": "squared_error"})  # type: ignore

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train on X (N, D), dense or sparse, and targets y (N,) or (N, M).

        ``sample_weight`` (N,) is what each row counts for, as for :class:`MLPClassifier`.

        Raises
        ------
        ConfigError
            For a parameter out of range (a ValueError).
        DataError
            If the loss does not stay finite (a ValueError).
        """
        return self._fit(X, y, sample_weight)

    @available_if(goes_by_batches)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One epoch over X (N, D) and y, going on from where the last call ended."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> np.ndarray:
        """Predictions, float64 of shape (N,) or (N, M) as the targets were.

        With scikit-learn's ``array_api_dispatch``, of the library and on the device of X.
        """
        outputs = self._outputs(X)
        outputs = np.exp(outputs) if self.out_activation_ == "exp" else outputs
        return as_given(X, outputs[:, 0] if self._single else outputs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @property
    def _out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    @property
    def _scales_targets(self) -> bool:
        return self.loss == "squared_error"

    def _loss(self) -> Loss:
        return PoissonNLL() if self.loss == "poisson" else HalfSSE(reduction="mean")

    def _monitor(self, targets: np.ndarray) -> str:
        # R² of constant targets is 0 until all are met exactly: it would tell no epochs apart.
        return "val_loss" if (targets == targets[:1]).all() else "val_r2"

    def _encode(self, y: Any, classes: Any, first: bool, incremental: bool) -> np.ndarray:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        single = y.ndim == 1
        y = y[:, None] if single else y
        if not first and self._out_activation != self.out_activation_:
            raise ConfigError(
                f"`{type(self).__name__}`: expected the loss that training began with, got "
                f"{self.loss!r}; for another one call fit with warm_start=False"
            )
        if first:
            self._single = single
        elif single != self._single or y.shape[1] != self.n_outputs_:
            raise DataError(
                f"`{type(self).__name__}`: expected {self.n_outputs_} targets a row as before, got "
                f"{y.shape[1]}"
            )
        return y.astype(np.float64, copy=False)
