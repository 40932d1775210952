"""A training that an estimator has prepared: made alone, or together with others like it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Normalization
from ..data.sparse_rows import is_sparse
from ..losses import Loss
from ..models import FullyConnectedNet
from ..optim import Optimizer
from ..penalties import L2
from ..training import Callback, History, Trainer

if TYPE_CHECKING:
    from .estimator import BaseMLP
    from .together import Collected, Prepared

SEARCH: ContextVar[Collected | Prepared | None] = ContextVar("SEARCH", default=None)
"""The search, if any, that estimators are fitted for now: it may train them together."""


@dataclass
class Job:
    """A network, its data and how it is trained.

    Attributes
    ----------
    estimator : BaseMLP
        Whose network it is.
    network, loss, optimizer
    data, held_out : sequence of arrays
        Inputs, targets and, where rows have any, weights; to train on and to be judged by.
    normalization : Normalization
        Of inputs.
    epochs, batch_size : int
    strength : float
        λ of the L2 penalty, or 0.
    waiting : Callback
        What ends the training when it no longer improves.
    monitor : str
        The column of the history that it looks at.
    seed : int
        Of the order of rows.
    shuffle : bool
    schedule : Schedule or str
    """

    estimator: BaseMLP
    network: FullyConnectedNet
    loss: Loss
    optimizer: Optimizer
    data: Sequence[Any]
    held_out: Sequence[Any] | None
    normalization: Normalization
    epochs: int
    batch_size: int
    strength: float
    waiting: Callback
    monitor: str
    seed: int
    shuffle: bool
    schedule: Any

    @property
    def rows(self) -> int:
        """That it is trained on."""
        return int(self.data[0].shape[0])

    @cached_property
    def data_fingerprint(self) -> str:
        """Equal for equal data, to train on and to be judged by, with the same scaling."""
        code = hashlib.blake2b(digest_size=16)
        norm = self.normalization
        for values in (*self.data, *(self.held_out or ()), norm.mean, norm.std):
            own: Any = values
            parts = (own.data, own.indices, own.indptr) if is_sparse(own) else (own,)
            for part in map(np.ascontiguousarray, parts):
                code.update(repr((part.shape, part.dtype)).encode())
                code.update(part.data)
        return code.hexdigest()

    def alone(self, incremental: bool = False) -> History:
        """Train the network; ``incremental`` for one epoch that goes on. The estimator's optimizer
        is then the one that did."""
        trainer = Trainer(
            self.network,
            self.loss,
            self.optimizer,
            epochs=1 if incremental else self.epochs,
            batch_size=self.batch_size,
            penalty=L2(self.strength) if self.strength > 0 else None,
            normalization=self.normalization,
            monitor=self.monitor if self.held_out else None,
            callbacks=() if incremental else (self.waiting,),
            progress=bool(self.estimator.verbose),
            seed=self.seed,
            shuffle=self.shuffle,
        )
        held_out: Any = self.held_out
        own: dict[str, Any] = {"sample_weight": self.data[2] if len(self.data) > 2 else None}
        train = trainer.resume if incremental else trainer.fit
        history = train(self.data[0], self.data[1], held_out, **own)
        self.estimator._optimizer = trainer.optimizer
        return history
