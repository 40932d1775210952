"""What every contestant gives for a case: how to run it, and how to read what came out."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import Case
from .shapes import Race

Arrays = dict[str, np.ndarray]
Results = tuple[Any, ...]


class NotOfferedError(Exception):
    """A library has no way to do a case; it then takes no part in it."""


@dataclass
class Solver:
    """One contestant's way to do a case.

    Attributes
    ----------
    run : callable
        Does the work once, waits for the device, and returns what it got.
    results : callable
        What ``run`` returned, as a tuple of NumPy arrays in the order of the kind (see
        ``referee.py``). Not timed.
    own_clock : bool
        Whether ``run`` returns ``{"seconds": …, "accuracy": …}`` and stops its own time, because it
        does things that do not count (such as testing the network).
    warm_up : callable, optional
        What to do before the first ``run`` is timed, in place of running it.
    context : callable
        A context manager to be inside of while ``run`` runs; not timed.
    kernels : list of str
        For our own: which implementations ran, and why.
    """

    run: Callable[[], Any]
    results: Callable[[Any], Results] = tuple
    own_clock: bool = False
    warm_up: Callable[[], Any] | None = None
    context: Callable[[], AbstractContextManager] = nullcontext
    kernels: tuple[str, ...] = ()


Build = Callable[[Case, Arrays], Solver]
"""Makes a solver of a case from its inputs."""

Training = tuple[Callable[[], None], Callable[[], float]]
"""``train_epoch()``, and ``accuracy()`` on the test rows."""


def epoch_solver(start: Callable[[Case, Arrays, int], Training]) -> Build:
    """From how a library starts a training, what an epoch of it is."""

    def build(case: Case, inputs: Arrays) -> Solver:
        train_epoch, accuracy = start(case, inputs, 0)
        return Solver(train_epoch, lambda _: (accuracy(),))

    return build


def race_solver(start: Callable[[Case, Arrays, int], Training]) -> Build:
    """From how a library starts a training, the time until it is accurate enough.

    Every run has another seed. Testing after each epoch does not count.
    """

    def build(case: Case, inputs: Arrays) -> Solver:
        race: Race = case.settings["race"]
        seeds = iter(range(1, 1_000_000))

        def run() -> dict[str, float]:
            train_epoch, accuracy = start(case, inputs, next(seeds))
            seconds, reached, epochs = 0.0, 0.0, 0
            while epochs < race.most_epochs and reached < race.accuracy:
                begin = time.perf_counter()
                train_epoch()
                seconds += time.perf_counter() - begin
                epochs += 1
                reached = accuracy()
            return {"seconds": seconds, "accuracy": reached, "epochs": epochs}

        def warm_up() -> None:
            train_epoch, accuracy = start(case, inputs, 0)
            train_epoch()
            accuracy()

        return Solver(run, own_clock=True, warm_up=warm_up)

    return build
