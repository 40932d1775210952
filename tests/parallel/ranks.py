"""Ranks as threads of one process, in place of MPI's."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from xpmlp.communication import Communicator

_PATIENCE = 60.0  # seconds that ranks wait for each other before all give up


class Meeting:
    """Where the threads of :func:`run_ranks` meet."""

    def __init__(self, size: int):
        self.size = size
        self.barrier = threading.Barrier(size, timeout=_PATIENCE)
        self.places: list[Any] = [None] * size


class ThreadRank(Communicator):
    """One of several threads. Sums are made in the ranks' order, and so are the same on all."""

    def __init__(self, meeting: Meeting, rank: int, statistics: str = "global"):
        super().__init__(rank, meeting.size, statistics)
        self._meeting = meeting
        self.sums: list[int] = []  # bytes of each

    def _exchange(self, value: Any) -> list[Any]:
        meeting = self._meeting
        meeting.places[self.rank] = value
        meeting.barrier.wait()
        found = list(meeting.places)
        meeting.barrier.wait()
        return found

    def allreduce(self, buffer: np.ndarray) -> None:
        assert buffer.flags.c_contiguous
        self.sums.append(buffer.nbytes)
        parts = self._exchange(buffer.copy())
        assert len({part.shape for part in parts}) == 1, "ranks sum different things"
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        buffer[...] = total

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return pickle.loads(self._exchange(pickle.dumps(value))[root])  # as between processes

    def abort(self) -> None:
        self._meeting.barrier.abort()


def run_ranks(
    size: int, work: Callable[[ThreadRank], Any], statistics: str = "global"
) -> list[Any]:
    """What ``work(rank)`` gives on each; the first error of one ends all and is raised."""
    meeting = Meeting(size)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadRank(meeting, rank, statistics))
        except BaseException as error:
            if not isinstance(error, threading.BrokenBarrierError):
                errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
