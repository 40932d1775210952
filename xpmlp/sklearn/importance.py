"""How much the columns matter to an ensemble: permutation importance on rows it did not see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..data.tables import Column
from ..random import permutation

_ROWS = 5_000


def permutation_importances(
    estimator: Any, columns: list[Column], targets: np.ndarray, held: list[np.ndarray]
) -> np.ndarray:
    """The loss with a column shuffled minus the loss as it is, (D,).

    Parameters
    ----------
    estimator : BaseTable
    columns : list of Column
        Of the training rows.
    targets : ndarray
    held : P int arrays
        The rows that each member was not trained on.

    Notes
    -----
    Source: Breiman 2001, "Random forests". Each row is predicted by the members that did not see it
    only, so that what was learnt by heart does not count.
    """
    rows = len(targets)
    chosen = np.sort(permutation(rows, seed=0)[:_ROWS])
    members = np.zeros((len(held), rows), dtype=bool)
    for member, own in enumerate(held):
        members[member, own] = True
    members = members[:, chosen]
    columns = [column.take(chosen) for column in columns]
    targets = targets[chosen]
    known = members.any(axis=0)

    def loss(inputs: list[Column]) -> float:
        outputs = estimator._member_outputs(estimator._inputs(inputs))
        mean = np.einsum("pn,pnm->nm", members, outputs) / np.maximum(members.sum(0), 1)[:, None]
        mean, true = mean[known], targets[known]
        if true.ndim == 1:
            return float(-np.mean(np.log(np.maximum(mean[np.arange(len(true)), true], 1e-7))))
        return float(np.mean((mean - true) ** 2))

    before = loss(columns)
    found = np.zeros(len(columns))
    for place, column in enumerate(columns):
        order = permutation(len(chosen), seed=1 + place)
        shuffled = replace(column, values=column.values[order])
        found[place] = loss([*columns[:place], shuffled, *columns[place + 1 :]]) - before
    return found
