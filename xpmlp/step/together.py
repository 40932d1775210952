"""One step of several ranks: each its share of a batch's rows, and all of them the same update.

Gradients are summed between backward and update, and with them, in the same buffer, all that is
told of a step: the loss, right answers, and whether a rank would like to stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, asarray_like, detached, to_numpy
from ..communication import Communicator, Share
from ..errors import ConfigError, DataError
from ..layers.base import Layer
from ..losses import Loss
from ..metrics import answers_given, right_answers
from .by_layers import backward, forward, kept_state, update
from .task import Task

_KINDS = 4  # numbers of each member that are told of a step


@dataclass
class Figures:
    """What all ranks know of a step; (…) is () or (P,).

    Attributes
    ----------
    value : array, shape (…)
        The loss of the whole batch.
    correct : array, shape (…), or None
        How many answers were right; by their weights, where rows have any.
    units, given : array, shape (…)
        What the loss is a mean over, and how many answers there were.
    rows : int
        Of the whole batch.
    stopping : bool
        Whether a rank wished to stop.
    """

    value: Any
    correct: Any
    units: Any
    given: Any
    rows: int
    stopping: bool


class Sums:
    """What a rank adds to a step, beside its gradients.

    Parameters
    ----------
    loss : Loss
    population : int or None
    share : Share
    weighted : bool
        Whether rows have weights.
    """

    def __init__(self, loss: Loss, population: int | None, share: Share, weighted: bool):
        if loss.reduction == "none":
            raise ConfigError(
                f"`TrainStep`: expected a loss that is one number for several ranks, got {loss!r}"
            )
        self.loss, self.population, self.share = loss, population, share
        self.part: Any = share.part if loss.reduction == "mean" else float(share.rows > 0)
        self.known = loss.reduction == "sum" or not (weighted or loss.weighs_rows)
        self._weighted = weighted
        self._units: Any = None
        self._has_hits, self._rows = False, 0
        self._told: np.ndarray | None = None

    def weigh(self, outputs: Array, targets: Array, *weights: Array) -> Any:
        """What the loss of a rank's own rows, and its gradient, count for in that of all."""
        own = _on_host(self.loss.units(outputs, targets, *weights))
        own = np.atleast_1d(np.asarray(own, np.float64))
        own = self._units = own * (self.share.rows > 0)
        if not self.known:
            total = self.share.sum(own.copy())
            self.part = np.divide(own, total, out=np.zeros_like(own), where=total > 0)
        return self.part

    def tell(
        self,
        tail: np.ndarray,
        value: Any,
        outputs: Array,
        targets: Array,
        *weights: Array,
        hits: Any = None,
    ) -> None:
        """Write a rank's own figures where they are summed.

        Of batches whose rows all count the same, only loss and right answers change.
        """
        if self._told is not None and (hits is not None or not self._has_hits):
            tail[:] = self._told
            members = self.population or 1
            if self.share.rows:
                tail[:members] = _on_host(value) * self.part
                if hits is not None:
                    tail[members : 2 * members] = hits
            return
        if self.known:
            self.weigh(outputs, targets, *weights)
        if hits is None or weights:
            hits = right_answers(self.loss, outputs, targets, *weights)
        self._has_hits, real = hits is not None, self.share.rows > 0
        table = self._table(tail)
        table[...] = 0.0
        if real:
            table[0] = _on_host(value) * self.part
            table[2] = self._units
            if hits is not None:
                table[1] = _on_host(hits)
                table[3] = _on_host(answers_given(self.loss, outputs, targets, *weights))
        self._rows = self.share.of_all(outputs.shape[-2])
        if not (self._weighted or self.loss.weighs_rows):
            self._told = tail.copy()

    def read(self, tail: np.ndarray) -> Figures:
        """Those of all ranks, after the sum."""
        if self.population is None:
            value, hits, units, given = tail[:_KINDS]
        else:
            value, hits, units, given = self._table(tail).copy()
        correct = None
        if self._has_hits:
            correct = hits.astype(np.float64 if self._weighted else np.int64)
        return Figures(value, correct, units, given, self._rows, bool(tail[-1] > 0))

    def _table(self, tail: np.ndarray) -> np.ndarray:
        members = self.population or 1
        return tail[: _KINDS * members].reshape(_KINDS, members)


def tail_size(population: int | None) -> int:
    """How many numbers a step tells beside the gradients, the wish to stop last."""
    return _KINDS * (population or 1) + 1


def share_of_batch(x: Array, population: int | None, ranks: Communicator) -> Share:
    """A rank's share of a batch of which it has these rows."""
    shared = population is None or x.ndim == 2
    share = Share.found(int(x.shape[0 if shared else 1]), ranks)
    if not share.total:
        raise DataError("`TrainStep`: expected a batch with rows, got none on any rank")
    return share


def with_a_row(array: Array, share: Share) -> Array:
    """A rank's part of a batch; one row of zeros, which will not count, where it has none."""
    if share.rows:
        return array
    xp = array_namespace(array)
    return xp.zeros([size or 1 for size in array.shape], dtype=array.dtype)


@contextmanager
def divided(model: Layer, share: Share | None) -> Iterator[None]:
    """Inside, layers know which rows of the batch they have."""
    layers = [layer for _, layer in model.named_layers()]
    try:
        for layer in layers:
            layer.share = share
        yield
    finally:
        for layer in layers:
            layer.share = None


def by_layers_together(
    task: Task, x: Array, y: Array, weight: Array | None, share: Share, wish: bool
) -> tuple[Figures, Array]:
    """:func:`~xpmlp.step.by_layers` of all ranks: what is known of it, and this rank's outputs."""
    model, x, y = task.model, detached(x), detached(y)
    weight = None if weight is None else detached(weight)
    layers = dict(model.named_layers())
    sums = Sums(task.loss, model.population, share, weight is not None)
    with kept_state(model):
        with divided(model, share):
            outputs, rows, targets, weights, value = forward(task, x, y, weight)
            part = sums.weigh(rows, targets, *weights)
            dy = task.loss.backward()
            dy = dy * (part if np.ndim(part) == 0 else asarray_like(part[:, None, None], dy))
            backward(task, dy, outputs)
        own = [
            (layer, name, grad) for layer in layers.values() for name, grad in layer.grads.items()
        ]
        tail = np.zeros(tail_size(model.population))
        sums.tell(tail, value, rows, targets, *weights)
        tail[-1] = wish
        grads, tail = _summed([grad for _, _, grad in own], tail, share)
        for (layer, name, _), grad in zip(own, grads, strict=True):
            layer.grads = {**layer.grads, name: grad}
        figures = sums.read(tail)
        figures.value = update(task, asarray_like(figures.value, value))
    return figures, outputs


def _summed(grads: list[Array], tail: np.ndarray, share: Share) -> tuple[list[Array], np.ndarray]:
    """Gradients of all ranks' rows and what all tell: on a device that sums, else on the host."""
    if grads and type(grads[0]) is not np.ndarray and share.ranks.takes(grads[0]):
        return _summed_in_place(grads, tail, share)
    parts = [np.ravel(to_numpy(grad)) for grad in grads]
    dtype = np.result_type(np.float32, *(part.dtype for part in parts))
    buffer = np.concatenate([part.astype(dtype) for part in [*parts, tail]])
    if not share.rows:
        buffer[: -len(tail)] = 0.0
    share.ranks.allreduce(buffer)
    ends = np.cumsum([part.size for part in parts])
    summed = np.split(buffer, ends)
    shaped = zip(summed, grads, strict=False)
    return [asarray_like(s.reshape(tuple(g.shape)), g) for s, g in shaped], summed[-1]


def _summed_in_place(
    grads: list[Array], tail: np.ndarray, share: Share
) -> tuple[list[Array], np.ndarray]:
    told = array_namespace(grads[0]).asarray(tail)
    grads = own_memory(grads)
    if not share.rows:
        for grad in grads:
            grad[...] = 0.0
    share.ranks.allreduce_each([*grads, told])
    return grads, to_numpy(told)


def own_memory(grads: list[Array]) -> list[Array]:
    """The same gradients, each dense and in memory that no other one is in: sums are in place."""
    found: list[Array] = []
    for grad in grads:
        dense = grad.flags.c_contiguous or grad.flags.f_contiguous
        again = any(grad is other for other in found)
        found.append(grad if dense and not again else grad.copy())
    return found


def _on_host(value: Any) -> Any:
    known = isinstance(value, np.ndarray | np.generic) or not hasattr(value, "dtype")
    return value if known else to_numpy(value)
