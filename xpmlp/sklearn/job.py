"""A training that an estimator has prepared: made alone, or together with others like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..choices import OptimizerName
from ..data import Normalization
from ..losses import Loss
from ..models import FullyConnectedNet
from ..optim import Optimizer
from ..penalties import L2
from ..training import Callback, History, Trainer
from ..units import EndWhenAsked

if TYPE_CHECKING:
    from .together import Collected, Prepared

SEARCH: ContextVar[Collected | Prepared | None] = ContextVar("SEARCH", default=None)
"""The search, if any, that estimators are fitted for now: it may train them together."""


def once(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """``function(*arguments, **options)``; in a search, what it gave for equal arrays before."""
    search = SEARCH.get()
    if search is None:
        return function(*arguments, **options)
    return search.once(function, *arguments, **options)


@dataclass
class Job:
    """A network, its data and how it is trained.

    Attributes
    ----------
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
    solver : str
    place : (str or None, str or None)
        The array library and its device, None for those that are current.
    progress : bool
    data_number : int
        Equal for equal data and scaling, of the jobs of a search.
    """

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
    solver: OptimizerName
    place: tuple[str | None, str | None]
    progress: bool = False
    data_number: int = 0

    @property
    def rows(self) -> int:
        """That it is trained on."""
        return int(self.data[0].shape[0])

    def alone(self, incremental: bool = False) -> History:
        """Train the network; ``incremental`` for one epoch that goes on. The optimizer is then the
        one that did."""
        trainer = Trainer(
            self.network,
            self.loss,
            self.optimizer,
            epochs=1 if incremental else self.epochs,
            batch_size=self.batch_size,
            penalty=L2(self.strength) if self.strength > 0 else None,
            normalization=self.normalization,
            monitor=self.monitor if self.held_out else None,
            callbacks=() if incremental else (self.waiting, EndWhenAsked()),
            progress=self.progress,
            seed=self.seed,
            shuffle=self.shuffle,
        )
        held_out: Any = self.held_out
        own: dict[str, Any] = {"sample_weight": self.data[2] if len(self.data) > 2 else None}
        train = trainer.resume if incremental else trainer.fit
        history = train(self.data[0], self.data[1], held_out, **own)
        self.optimizer = trainer.optimizer
        return history
