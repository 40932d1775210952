"""The mean of a population's parameters over epochs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..models import FullyConnectedNet


class Average:
    """Networks with the mean of the parameters that others had, in which later epochs count more.

    Parameters
    ----------
    model : FullyConnectedNet
        A population.
    keep : float
        c in [0, 1): after epoch t the mean moves by ``max(1/t, 1 − c)`` towards the parameters of
        that epoch, so that it is a plain mean at first and then an exponential one.

    Attributes
    ----------
    model : FullyConnectedNet
        With the mean parameters.

    Notes
    -----
    Source: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, model: FullyConnectedNet, keep: float):
        self.model = copy.deepcopy(model)
        self.keep, self.epochs = keep, 0

    def add(self, model: FullyConnectedNet) -> None:
        """Take another epoch's parameters, and running statistics, into the mean."""
        self.epochs += 1
        share = max(1.0 / self.epochs, 1.0 - self.keep)
        mean, now = self.model.state_dict(), model.state_dict()
        for name, values in mean.items():
            if values.dtype.kind == "f":
                values += np.asarray(share, values.dtype) * (now[name] - values)
            else:
                values[...] = now[name]
        self.model.load_state_dict(mean)

    def select(self, places: Sequence[int]) -> Average:
        """The mean of some members."""
        chosen = object.__new__(Average)
        chosen.model, chosen.keep = self.model.select(places), self.keep
        chosen.epochs = self.epochs
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """All of it, for :meth:`load_state_dict`."""
        return {"arrays": self.model.state_dict(), "epochs": self.epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be as :meth:`state_dict` was told, of the same members."""
        self.model.load_state_dict(state["arrays"])
        self.epochs = int(state["epochs"])
