"""Dropout: in training, each unit is dropped with probability p and the rest scaled up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array
from ..ops.dropout import RATE, check_rates
from ..random import Generator, as_generator
from .base import Layer


class Dropout(Layer):
    """``y = x ⊙ keep / (1 − p)`` in training, ``y = x`` otherwise.

    Parameters
    ----------
    p : float in [0, 1), or P of them
        The probability to drop.
    population : int, optional
        P: x (P, …), each member with the mask it would have alone.
    rng : Generator, int or P ints, optional
        Where masks come from. None takes the next stream of the process-wide generator.

    Attributes
    ----------
    step : int
        The number of training forwards so far. Each takes a new mask; set it back to repeat one.

    Notes
    -----
    No mask is stored: the backward pass computes it again. Source: Srivastava et al. 2014.
    """

    counter_names = ("step",)
    p: Any = RATE

    def __init__(
        self,
        p: float | Sequence[float] = 0.5,
        *,
        population: int | None = None,
        rng: Generator | int | Sequence[int] | None = None,
    ):
        super().__init__()
        self.p = p
        check_rates(self.p, population)
        self.population = population
        self.rng = as_generator(rng, population).spawn()
        self.step = 0

    def describe(self) -> str:
        if not np.ndim(self.p):
            return f"p={self.p}"
        rates = np.asarray(self.p)
        return f"p={rates.min():.3g} … {rates.max():.3g}"

    def forward(self, x: Array, training: bool = False) -> Array:
        """x of any shape to the same shape."""
        if not training:
            self._saved = "evaluated"
            return x
        self.step += 1
        first = 0
        if self.share is not None:  # the mask is that of all ranks' rows
            own = x.shape[1:] if self.population is None else x.shape[2:]
            first = self.share.first * math.prod(own)
        self._saved = self.step, first
        return ops.dropout(x, self.p, self.rng, *self._saved)

    def backward(self, dy: Array) -> Array:
        """dy with the same mask and scale."""
        saved = self._recall()
        return dy if saved == "evaluated" else ops.dropout(dy, self.p, self.rng, *saved)
