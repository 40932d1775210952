"""How good a population is together: each row judged by the members that did not train on it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array, to_numpy
from ..data.member_batches import MemberBatches
from ..data.orders import Orders, fold_rows
from ..errors import ConfigError
from ..losses import Loss
from ..metrics import r2
from ..models import FullyConnectedNet

LOSS = "ensemble_loss"
"""The column of the history that is the ensemble's own loss."""


def folds_of(folds: int | Sequence[Any], y: Any, rows: int, seed: int) -> list[np.ndarray]:
    """The rows of each fold; of a number of folds, with every class spread evenly over them.

    Raises
    ------
    ConfigError
        If they are not at least two sets of rows, each row in exactly one.
    """
    if isinstance(folds, int | np.integer):
        labels = np.asarray(to_numpy(y)) if hasattr(y, "dtype") else np.asarray(y)
        classes = labels.ndim == 1 and labels.dtype.kind in "iu"
        return fold_rows(rows, int(folds), seed=seed, labels=labels if classes else None)
    parts = [np.asarray(part, dtype=np.int64) for part in folds]
    every = np.sort(np.concatenate(parts)) if parts else np.zeros(0)
    if len(parts) < 2 or not np.array_equal(every, np.arange(rows)):
        raise ConfigError(
            f"`PopulationTrainer`: expected folds to be two or more sets of the rows 0…{rows - 1}, "
            f"each row in exactly one, got {len(parts)} sets of {len(every)} rows"
        )
    return parts


class OutOfFold:
    """The ensemble of a population on the rows that its members have not been trained on.

    Parameters
    ----------
    folds : sequence of k int arrays
        Member i has not seen those of fold ``i % k``.
    batches : MemberBatches
        That the members are trained on.
    batch_size : int
        Rows of each member at a time.
    weights : ndarray, shape (N,), optional
        How much each row counts.

    Attributes
    ----------
    own : P int arrays
        The rows that each member was not trained on.

    Notes
    -----
    Only these rows are computed: N/k of each member rather than N.
    """

    def __init__(
        self,
        folds: Sequence[np.ndarray],
        batches: MemberBatches,
        batch_size: int,
        weights: np.ndarray | None = None,
    ):
        population = len(batches.orders.rows)
        self.own = own = [folds[member % len(folds)] for member in range(population)]
        longest = max(part.size for part in own)
        # Shorter folds are filled up with their first row, which is then not looked at.
        filled = [np.append(part, np.repeat(part[:1], longest - part.size)) for part in own]
        self.weights = weights
        held = Orders(filled, [0] * population, shuffle=False)
        self.batches = batches.with_orders(held, batch_size)

    def outputs(
        self, model: FullyConnectedNet, members: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mean of the outputs of the members that did not see a row.

        Parameters
        ----------
        model : FullyConnectedNet
            The population, or those of ``members`` alone.
        members : sequence of int, optional
            Which they are.

        Returns
        -------
        mean : ndarray of float64, shape (N, M)
            Of probabilities, or of plain numbers; 0 for rows without such a member.
        known : ndarray of bool, shape (N,)
            Whether there is one.
        """
        numbers = list(range(len(self.own))) if members is None else list(members)
        batches = self.batches if members is None else self.batches.select(numbers)
        parts = [to_numpy(_probabilities(model, model.forward(x))) for x, _ in batches.epoch()]
        found = np.concatenate(parts, axis=1)
        rows_in_all = len(self.batches.y)
        total = np.zeros((rows_in_all, found.shape[-1]))
        seen = np.zeros(rows_in_all)
        for place, member in enumerate(numbers):
            rows = batches.orders.rows[place][: self.own[member].size]
            total[rows] += found[place, : len(rows)]
            seen[rows] += 1.0
        return total / np.maximum(seen, 1.0)[:, None], seen > 0

    def scores(
        self, model: FullyConnectedNet, loss: Loss, members: Sequence[int] | None = None
    ) -> dict[str, float]:
        """``ensemble_loss``, and ``ensemble_accuracy`` or ``ensemble_r2``, by the rows' weights.

        The loss is the log loss of the mean probabilities, or the given loss of the mean numbers.
        """
        mean, known = self.outputs(model, members)
        y = np.asarray(to_numpy(self.batches.y))[known]
        weights = np.ones(len(y)) if self.weights is None else self.weights[known]
        mean = mean[known]
        if model.output == "softmax":
            right = y if y.ndim == 1 else y.argmax(axis=1)
            logs = np.log(np.maximum(mean, 1e-7))
            chosen = y.ndim == 1
            rows = -logs[np.arange(len(y)), y] if chosen else -(logs * y).sum(axis=1)
            hits = mean.argmax(axis=1) == right
            return {LOSS: _mean(rows, weights), "ensemble_accuracy": _mean(hits, weights)}
        if model.output == "sigmoid":
            sure = np.clip(mean, 1e-7, 1.0 - 1e-7)
            rows = -(y * np.log(sure) + (1.0 - y) * np.log1p(-sure)).mean(axis=1)
            hits = ((mean > 0.5) == (y > 0.5)).mean(axis=1)
            return {LOSS: _mean(rows, weights), "ensemble_accuracy": _mean(hits, weights)}
        each = copy.copy(loss)
        each.reduction = "none"
        values = np.asarray(each.forward(mean, y.astype(np.float64)))
        rows = values.reshape(len(y), -1).mean(axis=1)
        return {LOSS: _mean(rows, weights), "ensemble_r2": float(r2(mean, y))}

    def no_scores(self, model: FullyConnectedNet) -> dict[str, float]:
        """The same where no member is left to judge."""
        other = "r2" if model.output == "identity" else "accuracy"
        return dict.fromkeys((LOSS, f"ensemble_{other}"), float("nan"))


def _probabilities(model: FullyConnectedNet, outputs: Array) -> Array:
    if model.output == "identity":
        return outputs
    return ops.softmax(outputs) if model.output == "softmax" else ops.sigmoid(outputs)


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))
