"""What the steps of an epoch bring: collected where they are computed, read when someone asks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import array_namespace, to_numpy
from ..losses import Loss
from .scores import pooled_loss, share, together


@dataclass
class EpochFigures:
    """What came of one epoch of training; (…) is () or (P,).

    Attributes
    ----------
    step_losses : ndarray, shape (steps, …)
    loss, accuracy : ndarray, shape (…)
        Means over the rows; the accuracy is None where targets are not classes.
    samples : int
        Rows that each network saw.
    seconds : float
    """

    step_losses: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    samples: int
    seconds: float


class Tally:
    """The steps of an epoch so far.

    Parameters
    ----------
    before : mapping, optional
        :meth:`state_dict` of the same epoch's first steps, which another process may have made.

    Attributes
    ----------
    losses, hits, units, given, sizes : list
        Of each step: the loss, the right answers, what both are shares of, and the rows. ``hits``
        stays empty where targets are numbers; ``units`` and ``given`` where they are the rows.
    """

    def __init__(self, before: Mapping[str, Any] | None = None):
        self._before: dict[str, Any] = dict(before or {})
        self.losses: list[Any] = []
        self.hits: list[Any] = []
        self.units: list[Any] = []
        self.given: list[Any] = []
        self.sizes: list[int] = list(self._before.get("sizes", ()))
        self._start = time.perf_counter() - self._before.get("seconds", 0.0)

    @property
    def steps(self) -> int:
        """How many there have been."""
        return len(self.sizes)

    def take(self, losses: Any, hits: Any, sizes: Sequence[int]) -> None:
        """All steps at once, of an epoch that ran as a whole; hits may be None."""
        self._before = {"losses": to_numpy(losses)}
        if hits is not None:
            self._before["hits"] = to_numpy(hits)
        self.sizes = list(sizes)

    def state_dict(self) -> dict[str, Any]:
        """All of it on the host; this waits for a device."""
        lists = {"hits": self.hits, "units": self.units, "given": self.given}
        found = {name: together(values) for name, values in lists.items() if values}
        if self.losses:
            found["losses"] = to_numpy(array_namespace(self.losses[0]).stack(self.losses))
        for name in ("losses", *lists):
            before = self._before.get(name)
            if before is not None:
                new = found.get(name)
                found[name] = before if new is None else np.concatenate([before, new])
        seconds = time.perf_counter() - self._start
        return {**found, "sizes": list(self.sizes), "seconds": seconds}

    def figures(self, loss: Loss) -> EpochFigures:
        """Those of all steps together."""
        found = self.state_dict()
        sizes, hits = found["sizes"], found.get("hits")
        return EpochFigures(
            found["losses"],
            pooled_loss(loss, found["losses"], found.get("units", sizes)),
            None if hits is None else share(hits, found.get("given", sizes)),
            sum(sizes),
            found["seconds"],
        )
