"""Training by L-BFGS: SciPy's, on the loss and the gradient of all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from ..backend import Array, asarray_like, to_numpy
from ..data import Batches, Normalization
from ..data.sparse_rows import is_sparse
from ..errors import DataError
from ..losses import Loss
from ..models import FullyConnectedNet
from ..optim import SGD
from ..penalties import Penalty
from ..training import History, TrainStep

_SPARSE = 1024  # sparse rows that are dense at a time


def train_by_lbfgs(
    network: FullyConnectedNet,
    loss: Loss,
    batches: Batches,
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
    batches : Batches
        All rows, not shuffled: the loss and the gradient are those of all of them.
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
        value, gradients = _of_all_rows(step, batches)
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


def batches_of_all(data: Sequence[Any], normalization: Normalization, dtype: str) -> Batches:
    """Inputs, targets and perhaps weights as one batch; sparse inputs as several."""
    x, y, *weights = data
    return Batches(
        x,
        y,
        sample_weight=weights[0] if weights else None,
        batch_size=_SPARSE if is_sparse(x) else len(y),
        shuffle=False,
        normalization=normalization,
        dtype=dtype,
        reuse=True,
    )


def _of_all_rows(step: TrainStep, batches: Batches) -> tuple[float, dict[str, Array]]:
    """The mean loss and its gradients, from those of each batch by what its rows count for."""
    total, counted, sums = 0.0, 0.0, {}
    for x, y, *weights in batches.epoch():
        mean = float(step(x, y, *weights))
        gradients = step.model.grads
        if len(batches) == 1:
            return mean, dict(gradients)
        units = float(step.loss.units(step.lent_outputs, y, *weights))
        total, counted = total + units * mean, counted + units
        sums = {
            name: units * gradient + (sums[name] if sums else 0.0)
            for name, gradient in gradients.items()
        }
    return total / counted, {name: gradient / counted for name, gradient in sums.items()}


def _flat(arrays: Any, names: list[str]) -> np.ndarray:
    """Arrays in the order of names, one behind the other, in float64."""
    return np.concatenate([to_numpy(arrays[name]).ravel() for name in names]).astype(np.float64)
