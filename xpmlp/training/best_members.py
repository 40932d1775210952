"""The best that each member of a population has been so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import to_numpy
from ..layers.base import Layer

if TYPE_CHECKING:
    from .population_work import Work


class BestMembers:
    """Parameters and running statistics of each member's best epoch, at first of its start.

    Parameters
    ----------
    model : Layer
        The population of P members.

    Attributes
    ----------
    arrays : dict of str to ndarray, shape (P, …)
        For ``model.load_state_dict``.
    scores : ndarray, shape (2, P)
        What larger values of are better; the second decides between equals.
    """

    def __init__(self, model: Layer):
        self.arrays, self._shared = model.state_dict(), set(model.shared_params)
        self.scores = np.full((2, model.population or 0), -np.inf)

    def take(self, work: Work, scores: np.ndarray) -> np.ndarray:
        """Copy the members that have never been better; their numbers.

        Arrays go by their order, not by name: without its widest members a population is narrower,
        and without those that drop units it has fewer layers.
        """
        first, second = scores > self.scores
        better = first | ((scores[0] == self.scores[0]) & second)
        chosen = better[work.members]
        if chosen.any():
            self.scores[:, better] = scores[:, better]
            theirs = work.judged._arrays().values()
            for (name, own), array in zip(self.arrays.items(), theirs, strict=True):
                if name in self._shared:  # such members are judged as one
                    own[...] = to_numpy(array)
                    continue
                part = tuple(slice(size) for size in array.shape[1:])
                own[(work.members[chosen], *part)] = to_numpy(array)[chosen]
        return np.flatnonzero(better)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for :meth:`load_state_dict`."""
        return {"arrays": self.arrays, "scores": self.scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be as :meth:`state_dict` was told, of the same population."""
        own = {name: array.shape for name, array in self.arrays.items()}
        if own != {name: array.shape for name, array in state["arrays"].items()}:
            raise ValueError("other arrays than those of the population")
        self.arrays, self.scores = dict(state["arrays"]), state["scores"]
