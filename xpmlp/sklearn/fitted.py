"""What a trained estimator shows and predicts, and how it is pickled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from ..backend import array_namespace, get_backend, to_numpy
from ..data import Normalization
from ..data.sparse_rows import SparseRows, is_sparse
from ..models import FullyConnectedNet
from ..optim import Optimizer
from .host import numbers_on_host, on_place
from .network import freeze, linear_layers, thaw
from .scaling import change_scaling, no_scaling

_PREDICTED = 1024  # sparse rows that are dense at a time


class FittedMLP(BaseEstimator):
    """Attributes of classifier and regressor after ``fit``, and their network's outputs."""

    _network: FullyConnectedNet
    """Between scaled inputs and, of a regressor, scaled targets."""
    _optimizer: Optimizer
    _inputs: Normalization
    _targets: Normalization
    backend: str | None
    device: str | None
    loss_curve_: list[float]
    n_features_in_: int
    n_outputs_: int
    classes_: np.ndarray

    @property
    def model_(self) -> FullyConnectedNet:
        """The network from inputs to outputs in their own units, as a copy."""
        check_is_fitted(self)
        with self._on_backend():
            network = freeze(self._network, self._optimizer)
            model, _ = thaw(network["_network"], network["_optimizer"])
            change_scaling(
                model,
                (self._inputs, no_scaling(self.n_features_in_)),
                (self._targets, no_scaling(self.n_outputs_)),
            )
        return model

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weight matrices (D, M) of the fully connected layers, on the host."""
        return [to_numpy(layer.W) for layer in linear_layers(self.model_)]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Their biases (M,)."""
        return [to_numpy(layer.b) for layer in linear_layers(self.model_)]

    @property
    def loss_(self) -> float:
        """The training loss of the last epoch."""
        return self.loss_curve_[-1]

    @property
    def n_layers_(self) -> int:
        """The number of layers, the inputs' and the outputs' included."""
        check_is_fitted(self)
        return len(linear_layers(self._network)) + 1

    def __sklearn_is_fitted__(self) -> bool:
        return "_network" in vars(self)

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        if "_network" not in state:
            return state
        # Host arrays only: a model trained on a GPU must load where there is none.
        return state | freeze(state["_network"], state["_optimizer"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_network" in state:
            with self._on_backend():
                self._network, self._optimizer = thaw(state["_network"], state["_optimizer"])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # The outputs.

    def _outputs(self, X: Any) -> np.ndarray:
        """Raw outputs, or probabilities of a classifier, (N, M) on the host."""
        check_is_fitted(self)
        with self._on_backend():
            X = numbers_on_host(self, "X", X)
            X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=self._network.dtype)
            network, _ = self._on_current_library()
            outputs = network.outputs if network.output == "identity" else network.predict_proba
            found = np.concatenate([to_numpy(outputs(part)) for part in self._parts(X)])
            if network.output != "identity":
                return found
            return self._targets.undo(found.astype(np.float64))

    def _parts(self, X: Any) -> Iterator[np.ndarray]:
        """Inputs as the network takes them: all at once, sparse ones some rows after others."""
        if not is_sparse(X):
            yield self._inputs.apply(X)
            return
        rows = SparseRows(X, self._network.dtype, self._inputs)
        for begin in range(0, X.shape[0], _PREDICTED):
            yield rows.dense(np.arange(begin, min(begin + _PREDICTED, X.shape[0])))

    def _on_current_library(self) -> tuple[FullyConnectedNet, Optimizer]:
        """Network and optimizer; copies, if they were trained on another library."""
        if array_namespace(linear_layers(self._network)[0].W) is get_backend().xp:
            return self._network, self._optimizer
        frozen = freeze(self._network, self._optimizer)
        return thaw(frozen["_network"], frozen["_optimizer"])

    def _on_backend(self) -> AbstractContextManager[Any]:
        return on_place(self.backend, self.device)
