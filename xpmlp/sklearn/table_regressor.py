"""TableRegressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import check_array, column_or_1d

from ..errors import ConfigError, DataError
from ..losses import MSE, Loss
from ..onnx.table import Numbers
from .table import BaseTable

_QUANTILES = 1_000  # of the residuals, that are kept


class TableRegressor(RegressorMixin, BaseTable):
    """Numbers from a table as it is: an ensemble of multilayer perceptrons.

    As :class:`TableClassifier`, for one target or several. Targets are standardized inside;
    predictions are the mean of the networks' and within the range of the targets trained on.

    Parameters
    ----------
    n_members, folds, …
        As in :class:`TableClassifier`.

    Attributes
    ----------
    feature_importances_ : ndarray, shape (D,)
        How much the mean squared error of the standardized targets grows if a column is shuffled;
        computed when first asked for.
    history_, n_iter_, n_features_in_, feature_names_in_
        As in :class:`TableClassifier`.

    Examples
    --------
    >>> model = TableRegressor().fit(frame.drop(columns="price"), frame["price"])
    >>> low, high = model.predict_quantiles(new, (0.05, 0.95)).T
    """

    _output = "identity"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TableRegressor:
        """Train on a data frame or array X (N, D) and targets y (N,) or (N, M).

        Raises
        ------
        ConfigError
            For a parameter out of range (a ValueError).
        DataError
            For data that cannot be trained on (a ValueError).
        """
        return self._fit(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """Predictions, float64 of shape (N,) or (N, M) as the targets were."""
        return self._as_given(self._in_units(self._members(X).mean(axis=0, dtype=np.float64)))

    def predict_std(self, X: Any) -> np.ndarray:
        """How far off predictions are, as a standard deviation of the targets' unit.

        Returns
        -------
        ndarray, shape (N,) or (N, M)
            ``√(v(x) + s²)``: v(x), the variance over the members, large for rows unlike those of
            the training, and s², the mean squared error on rows that were left out. Rather too
            large than too small, since s² has the members' usual variance in it.
        """
        variance = self._members(X).var(axis=0, dtype=np.float64)
        return self._as_given(np.sqrt(variance + self._noise) * self._scale)

    def predict_quantiles(self, X: Any, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> Any:
        """Values that targets are below of with given probabilities.

        Parameters
        ----------
        X : data frame or array_like, shape (N, D)
        quantiles : sequence of float
            In (0, 1).

        Returns
        -------
        ndarray, shape (N, Q), or (N, M, Q) for several targets
            The prediction plus that quantile of the errors on rows that were left out, as in
            [1]_: right on average over all rows, with intervals of the same length for each.

        Raises
        ------
        ConfigError
            For quantiles outside of (0, 1).

        References
        ----------
        .. [1] Barber, Candès, Ramdas and Tibshirani 2021, "Predictive inference with the
           jackknife+".
        """
        wanted = np.asarray(quantiles, dtype=np.float64)
        if wanted.ndim != 1 or not np.all((wanted > 0) & (wanted < 1)):
            raise ConfigError(
                f"`{type(self).__name__}.predict_quantiles`: expected quantiles between 0 and 1, "
                f"got {quantiles!r}"
            )
        mean = self._members(X).mean(axis=0, dtype=np.float64) * self._scale + self._center
        errors = np.quantile(self._residuals, wanted, axis=0).T * self._scale[:, None]
        return self._as_given(mean[..., None] + errors)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def _loss(self) -> Loss:
        return MSE()

    def _set_targets(self, y: Any) -> np.ndarray:
        if y is None:
            raise DataError(
                f"`{type(self).__name__}`: expected targets, got none; it "
                "requires y to be passed, but the target y is None"
            )
        y = np.asarray(
            check_array(y, ensure_2d=False, dtype="float64", input_name="y", estimator=self)
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._single = y.ndim == 1
        columns = y.reshape(len(y), -1)
        self._center, std = columns.mean(axis=0), columns.std(axis=0)
        # Of targets that are all equal, what rounding leaves is no spread.
        rounding = 4.0 * np.finfo(np.float64).eps * np.abs(self._center)
        self._scale = np.where(std > rounding, std, 0.0)
        self._low, self._high = columns.min(axis=0), columns.max(axis=0)
        return (columns - self._center) / np.where(self._scale > 0, self._scale, 1.0)

    def _in_units(self, mean: np.ndarray) -> np.ndarray:
        return np.clip(mean * self._scale + self._center, self._low, self._high)

    def _as_given(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self._single else values

    def _learn_from_held_out(self, mean: np.ndarray, targets: np.ndarray) -> None:
        errors = targets - mean
        places = np.linspace(0.0, 1.0, min(len(errors), _QUANTILES))
        self._residuals = np.quantile(errors, places, axis=0)
        self._noise = np.mean(errors**2, axis=0)

    def _onnx_answer(self) -> Numbers:
        return Numbers(self._scale, self._center, self._low, self._high, self._single)

    def _own_state(self) -> dict[str, Any]:
        names = ("center", "scale", "low", "high", "residuals", "noise")
        return {"single": self._single} | {name: getattr(self, f"_{name}") for name in names}

    def _take_state(self, state: dict[str, Any]) -> None:
        self._single = bool(state.pop("single"))
        for name, values in state.items():
            setattr(self, f"_{name}", np.array(values))
