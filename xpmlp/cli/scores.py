"""How good the network of a run is, or its ensemble, on rows that it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import to_numpy
from ..data import Normalization
from ..losses import MSE, SoftmaxCrossEntropy
from ..metrics import r2
from ..models import FullyConnectedNet
from ..training import Trainer
from .prepare import as_columns
from .together import answers


def score(
    model: FullyConnectedNet,
    x: np.ndarray,
    y: np.ndarray,
    normalization: Normalization,
    target_normalization: Normalization | None,
    temperature: float = 1.0,
    bounds: Any = None,
) -> dict[str, Any]:
    """Loss and accuracy of a classifier, or loss, R² and RMSE (in the targets' units)."""
    if model.population is not None:
        found = answers(model, normalization.apply(x), temperature, bounds).astype(np.float64)
        return _score_together(found, y, target_normalization)
    trainer = Trainer(model, loss_of(0.0, target_normalization), normalization=normalization)
    if target_normalization is None:
        return trainer.evaluate(x, y)
    scores = trainer.evaluate(x, as_columns(target_normalization.apply(y)))
    outputs = to_numpy(model.predict(normalization.apply(x, model.dtype))).astype(np.float64)
    predicted = target_normalization.undo(outputs)
    scores["rmse"] = float(np.sqrt(np.mean((predicted - as_columns(y)) ** 2)))
    return scores


def _score_together(found: np.ndarray, y: Any, targets: Normalization | None) -> dict[str, Any]:
    """The same of an ensemble: of the mean of its members' answers."""
    if targets is None:
        true = np.maximum(found[np.arange(len(y)), y], 1e-7)
        hits = found.argmax(axis=1) == y
        return {"loss": float(-np.mean(np.log(true))), "accuracy": float(np.mean(hits))}
    wanted = as_columns(targets.apply(y)).astype(np.float64)
    errors = targets.undo(found) - as_columns(y)
    return {
        "loss": float(np.mean((found - wanted) ** 2)),
        "r2": float(r2(found, wanted)),
        "rmse": float(np.sqrt(np.mean(errors**2))),
    }


def loss_of(label_smoothing: float, target_normalization: Any) -> SoftmaxCrossEntropy | MSE:
    if target_normalization is not None:
        return MSE()
    return SoftmaxCrossEntropy(label_smoothing=label_smoothing)
