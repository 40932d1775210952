"""Training by L-BFGS: SciPy's, on the loss and the gradient of all rows at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize

from ..backend import asarray, asarray_like, to_numpy
from ..errors import DataError
from ..losses import Loss
from ..models import FullyConnectedNet
from ..optim import SGD
from ..penalties import Penalty
from ..training import History, TrainStep


def train_by_lbfgs(
    network: FullyConnectedNet,
    loss: Loss,
    x: np.ndarray,
    y: np.ndarray,
    *,
    penalty: Penalty | None,
    max_iter: int,
    max_fun: int,
    tol: float,
) -> History:
    """Minimize the loss by L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995), as scikit-learn does.

    Parameters
    ----------
    network : FullyConnectedNet
        Has the parameters that were found afterwards.
    loss : Loss
    x, y : ndarray
        All rows, scaled.
    penalty : Penalty or None
    max_iter, max_fun : int
        Iterations, and evaluations of the loss, at most.
    tol : float
        It has converged where no component of the gradient is larger.

    Returns
    -------
    History
        A row an iteration, with the loss at its end.

    Raises
    ------
    DataError
        If a loss is not finite.
    """
    step = TrainStep(network, loss, SGD(0.0))  # a rate of 0 leaves all as it is
    x, y = asarray(x), asarray(y)
    names = list(network.params)
    shapes = [tuple(network.params[name].shape) for name in names]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    like = network.params[names[0]]
    history = History()

    def put(flat: np.ndarray) -> None:
        parts = np.split(flat, ends[:-1])
        network.params = {
            name: asarray_like(part.reshape(shape).astype(network.dtype), like)
            for name, part, shape in zip(names, parts, shapes, strict=True)
        }

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        put(flat)
        value, gradients = float(step(x, y)), dict(network.grads)
        if penalty is not None:
            weights = network.weight_params
            value += float(penalty.forward(network.params, weights))
            for name, gradient in penalty.backward(network.params, weights).items():
                gradients[name] = gradients[name] + gradient
        if not np.isfinite(value):
            raise DataError(
                "`lbfgs`: expected finite losses, got one that is not; scale the inputs "
                "(StandardScaler) or take another solver"
            )
        return value, _flat(gradients, names)

    def note(intermediate_result: Any) -> None:
        row = {"epoch": len(history.rows) + 1, "train_loss": float(intermediate_result.fun)}
        history.rows.append(row)

    result = minimize(
        value_and_gradient,
        _flat(network.params, names),
        method="L-BFGS-B",
        jac=True,
        callback=note,
        options={"maxiter": max_iter, "maxfun": max_fun, "gtol": tol},
    )
    put(result.x)
    if not history.rows:  # it began at a minimum
        history.rows.append({"epoch": 1, "train_loss": float(result.fun)})
    history.ending = "finished" if result.status == 1 else "converged"
    return history


def _flat(arrays: Any, names: list[str]) -> np.ndarray:
    """Arrays in the order of names, one behind the other, in float64."""
    return np.concatenate([to_numpy(arrays[name]).ravel() for name in names]).astype(np.float64)
