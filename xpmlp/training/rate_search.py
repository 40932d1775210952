"""Which learning rate to try first: losses while the rate rises from step to step."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np

from ..backend import to_numpy
from ..data.normalization import Normalization
from ..errors import ConfigError, DataError
from ..layers.base import Layer
from ..losses import Loss, loss_for
from ..optim import Adam, Optimizer
from ..options import Number
from ..step import TrainStep
from .minibatches import minibatches

_KEPT = 0.8  # of the running mean of losses, from step to step
_TOO_MUCH = 4.0  # times the least loss, where the search ends
_LEAST = 10  # steps without which there is no curve
_RATE, _STEPS = Number("(0, inf)"), Number(f"[{_LEAST}, inf)", whole=True)


@dataclass(frozen=True)
class RateSearch:
    """What :func:`search_rate` found; :func:`xpmlp.plots.plot_rates` draws it.

    Attributes
    ----------
    rates, losses : ndarray, shape (K,)
        Of each step: the learning rate, and the loss of its batch before the update.
    smooth : ndarray, shape (K,)
        The mean of the running means of the losses from both ends.
    suggestion : float
        The rate at which that falls most steeply: where to begin. Twice or half of it is as good
        a guess.
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    suggestion: float


@dataclass(frozen=True)
class _Rising:
    """From ``lowest`` to ``highest``, each step by the same factor; a schedule."""

    lowest: float
    highest: float
    steps: int

    def __call__(self, step: int) -> float:
        return self.lowest * (self.highest / self.lowest) ** (step / (self.steps - 1))


def search_rate(
    model: Layer,
    x: Any,
    y: Any,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int = 128,
    normalization: Normalization | None = None,
    seed: int = 0,
) -> RateSearch:
    """Train a copy of a network while the learning rate rises, until the loss does (Smith 2017).

    Parameters
    ----------
    model : Layer
        One network, which stays as it is.
    x, y : array_like
        As for :meth:`Trainer.fit`.
    loss : Loss, optional
        Default: what goes with the model's ``output``.
    optimizer : Optimizer, optional
        Whose rate is looked for; its own, and its schedule, are not used. Default: Adam.
    lowest, highest : float
        Between which rates to search.
    steps : int
        At most so many.
    batch_size : int
    normalization : Normalization, optional
        Applied to every batch.
    seed : int
        Of the batches' order.

    Returns
    -------
    RateSearch

    Raises
    ------
    ConfigError
        For a population, or rates that do not rise.
    DataError
        If the loss is not finite from the first steps on.

    Notes
    -----
    L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017.

    Examples
    --------
    >>> found = search_rate(model, x, y, optimizer=AdamW())
    >>> trainer = Trainer(model, optimizer=AdamW(found.suggestion))
    """
    where = "search_rate"
    lowest = _RATE.check(where, "lowest", lowest)
    highest = _RATE.check(where, "highest", highest)
    steps = _STEPS.check(where, "steps", steps)
    if lowest >= highest:
        raise ConfigError(f"`{where}`: expected lowest < highest, got {lowest:g} and {highest:g}")
    if model.population is not None:
        raise ConfigError(
            f"`{where}`: expected one network, got a population of {model.population}; give its "
            "members rates of their own and compare, as a sweep does"
        )
    loss = loss_for(getattr(model, "output", None)) if loss is None else copy.copy(loss)
    optimizer = (Adam() if optimizer is None else optimizer).fresh()
    optimizer.lr, optimizer.schedule = 1.0, _Rising(lowest, highest, steps)
    step = TrainStep(copy.deepcopy(model), loss, optimizer)
    batches = minibatches(
        model, x, y, loss=loss, batch_size=batch_size, normalization=normalization, seed=seed
    )
    return _read(_losses(step, batches, steps), optimizer.schedule)


def _losses(step: TrainStep, batches: Any, steps: int) -> list[float]:
    """Of each step, as long as the running mean has not left the least one far behind."""
    losses: list[float] = []
    for x, y in chain.from_iterable(map(batches.epoch, count())):
        losses.append(float(to_numpy(step(x, y))))
        smooth = _smoothed(np.asarray(losses))
        far = smooth[-1] > _TOO_MUCH * smooth.min() and len(losses) >= _LEAST
        if len(losses) == steps or far or not np.isfinite(losses[-1]):
            break
    return losses


def _read(losses: list[float], rate_of: Any) -> RateSearch:
    values = np.asarray(losses)
    values = values[np.isfinite(values)]
    if len(values) < _LEAST:
        raise DataError(
            f"`search_rate`: expected finite losses for {_LEAST} steps, got {len(values)} of them; "
            "scale the inputs, or lower lowest="
        )
    rates = np.array([rate_of(step) for step in range(len(values))])
    # From both ends: a running mean comes late, and so would the place where it falls.
    smooth = (_smoothed(values) + _smoothed(values[::-1])[::-1]) / 2
    before = max(2, int(smooth.argmin()) + 1)  # what comes after the least loss is no descent
    slopes = np.gradient(smooth, np.log(rates))[:before]
    return RateSearch(rates, values, smooth, float(rates[slopes.argmin()]))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """``m ← k m + (1 − k) v``, each divided by ``1 − kⁿ``, as Adam's means are."""
    mean, found = 0.0, np.empty(len(values))
    for n, value in enumerate(values, 1):
        mean = _KEPT * mean + (1.0 - _KEPT) * value
        found[n - 1] = mean / (1.0 - _KEPT**n)
    return found
