"""What a run's networks answer: one alone, or a population as an ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import to_numpy
from ..data.tables import NumberCodes
from ..ensemble import Ensemble
from ..errors import DataError
from ..models import FullyConnectedNet

TEMPERATURE = "temperature"
"""What a model file says of an ensemble of classifiers."""


def answers(
    model: FullyConnectedNet, x: Any, temperature: float = 1.0, bounds: Any = None
) -> np.ndarray:
    """Probabilities of classes, or outputs, (N, M) on the host, of inputs as the network has them.

    Parameters
    ----------
    model : FullyConnectedNet
        A population answers with the mean of its members.
    x : array, shape (N, …)
    temperature : float
        Of an ensemble's probabilities.
    bounds : (M numbers, M numbers), optional
        The least and the largest target of the training, which an ensemble's outputs stay within.
    """
    if model.population is None:
        found = model.predict_proba(x) if model.output == "softmax" else model.predict(x)
        return to_numpy(found)
    ensemble = Ensemble(model, temperature=temperature)
    if model.output == "softmax":
        return ensemble.predict_proba(x)
    outputs = ensemble.predict(x)
    return outputs if bounds is None else np.clip(outputs, *bounds)


def network_inputs(
    model: FullyConnectedNet, x: np.ndarray, extras: dict[str, Any], where: str
) -> np.ndarray:
    """What a run's network takes, of rows as the encoder or a file gives them.

    Raises
    ------
    DataError
        If rows have another length than in the training.
    """
    if extras.get("codes") is None:
        columns = extras.get("columns")
        return x if columns is None else x[:, columns]
    codes = NumberCodes.from_dict(extras["codes"])
    length = int(np.prod(x.shape[1:]))
    if length != len(codes.codes):
        raise DataError(
            f"`{where}`: expected {len(codes.codes)} numbers in a row, as in training, got "
            f"{length}; leave out columns that are no inputs, such as the target"
        )
    return codes.inputs(x.reshape(len(x), length), model.config["columns"])
