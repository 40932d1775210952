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
from ..step import Evaluation

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

    Attributes
    ----------
    own : P int arrays
        The rows that each member was not trained on.

    Notes
    -----
    Only these rows are computed: N/k of each member rather than N.
    """

    def __init__(self, folds: Sequence[np.ndarray], batches: MemberBatches, batch_size: int):
        population = len(batches.orders.rows)
        self.own = own = [folds[member % len(folds)] for member in range(population)]
        longest = max(part.size for part in own)
        # Shorter folds are filled up with their first row, which is then not looked at.
        filled = [np.append(part, np.repeat(part[:1], longest - part.size)) for part in own]
        weights = batches.sample_weight
        self.weights = None if weights is None else to_numpy(weights).astype(np.float64)
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
        found, numbers = self._member_outputs(model, members)
        rows_in_all = int(self.batches.y.shape[0])
        total = np.zeros((rows_in_all, found.shape[-1]))
        for place, member in enumerate(numbers):
            rows = self.own[member]
            total[rows] += found[place, : len(rows)]
        seen = self._seen(numbers)
        return total / np.maximum(seen, 1.0)[:, None], seen > 0

    def scores(
        self, model: FullyConnectedNet, loss: Loss, members: Sequence[int] | None = None
    ) -> dict[str, float]:
        """``ensemble_loss``, and ``ensemble_accuracy`` or ``ensemble_r2``, by the rows' weights.

        Notes
        -----
        The loss is the log loss of mean probabilities, or the given loss of mean numbers. A row is
        held out by few of the P members, and the mean of n members has a larger loss than that of
        all. For squared errors the expected loss is ``a + b/n``, of [1]_ a and b the part that is
        the same for all members and their variance; the loss of one member, ``a + b``, and that of
        the n who share a row are known, and ``a + b/P`` follows. It has its minimum later, since
        more members average away more of what each has learnt by heart. For other losses this is
        an approximation.

        .. [1] Krogh and Vedelsby 1995, "Neural network ensembles, cross validation, and active
           learning".
        """
        found, numbers = self._member_outputs(model, members)
        y = np.asarray(to_numpy(self.batches.y))
        weights = np.ones(len(y)) if self.weights is None else self.weights
        total = np.zeros((len(y), found.shape[-1]))
        alone, counted = 0.0, 0.0
        for place, member in enumerate(numbers):
            rows = self.own[member]
            outputs = found[place, : len(rows)]
            total[rows] += outputs
            alone += float(weights[rows] @ _row_losses(model, loss, outputs, y[rows]))
            counted += float(weights[rows].sum())
        seen = self._seen(numbers)
        known = seen > 0
        mean, y, weights = total[known] / seen[known][:, None], y[known], weights[known]
        together = _mean(_row_losses(model, loss, mean, y), weights)
        share = _mean(1.0 / seen[known], weights)
        if share < 1.0 and counted > 0.0:
            alone /= counted
            together = alone - (alone - together) * (1.0 - 1.0 / len(numbers)) / (1.0 - share)
        if model.output == "identity":
            return {LOSS: together, "ensemble_r2": float(r2(mean, y, weights))}
        if model.output == "softmax":
            hits = mean.argmax(axis=1) == (y if y.ndim == 1 else y.argmax(axis=1))
        else:
            hits = ((mean > 0.5) == (y > 0.5)).mean(axis=1)
        return {LOSS: together, "ensemble_accuracy": _mean(hits, weights)}

    def _member_outputs(
        self, model: FullyConnectedNet, members: Sequence[int] | None
    ) -> tuple[np.ndarray, list[int]]:
        """Probabilities or numbers (P, …, M) of each member's own rows, and the members."""
        numbers = list(range(len(self.own))) if members is None else list(members)
        batches = self.batches if members is None else self.batches.select(numbers)
        evaluation, parts = Evaluation(model), []
        for x, *_ in batches.epoch():
            parts.append(to_numpy(_probabilities(model, evaluation.outputs(x))))
        return np.concatenate(parts, axis=1), numbers

    def _seen(self, members: Sequence[int]) -> np.ndarray:
        """How many of the members have not been trained on each row, (N,)."""
        seen = np.zeros(int(self.batches.y.shape[0]))
        for member in members:
            seen[self.own[member]] += 1.0
        return seen

    def no_scores(self, model: FullyConnectedNet) -> dict[str, float]:
        """The same where no member is left to judge."""
        other = "r2" if model.output == "identity" else "accuracy"
        return dict.fromkeys((LOSS, f"ensemble_{other}"), float("nan"))


def _probabilities(model: FullyConnectedNet, outputs: Array) -> Array:
    if model.output == "identity":
        return outputs
    return ops.softmax(outputs) if model.output == "softmax" else ops.sigmoid(outputs)


def _row_losses(
    model: FullyConnectedNet, loss: Loss, outputs: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """The loss of each row (N,), of probabilities or numbers (N, M)."""
    if model.output == "softmax":
        logs = np.log(np.maximum(outputs, 1e-7))
        return -logs[np.arange(len(y)), y] if y.ndim == 1 else -(logs * y).sum(axis=1)
    if model.output == "sigmoid":
        sure = np.clip(outputs, 1e-7, 1.0 - 1e-7)
        return -(y * np.log(sure) + (1.0 - y) * np.log1p(-sure)).mean(axis=1)
    each = copy.copy(loss)
    each.reduction = "none"
    values = each.forward(outputs.astype(np.float64), y.astype(np.float64))
    return np.asarray(values).reshape(len(y), -1).mean(axis=1)


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))
