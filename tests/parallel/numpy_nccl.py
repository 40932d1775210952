"""CuPy as :class:`~xpmlp.communication.nccl.NCCL` sees it, on NumPy: ranks are threads.

Arrays are those of step/numpy_graph.py. A sum knows an address, a count and a type; while a step is
recorded it is written down like any other work, and made anew by each replay.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from parallel.ranks import ThreadRank
from step import device_memory, device_streams
from step.numpy_graph import Traced, traced

_CODES = {2: np.int32, 4: np.int64, 6: np.float16, 7: np.float32, 8: np.float64}  # of nccl.h


class Sum(NamedTuple):
    """What a call of ``allReduce`` was given, and whether it was recorded."""

    address: int
    count: int
    code: int
    stream: int
    recorded: bool
    group: int


class Library:
    """The module ``cupy`` of one rank.

    Attributes
    ----------
    sums : list of Sum
        In the order they were asked for.
    """

    ndarray, __name__ = Traced, "cupy"

    def __init__(self, rank: ThreadRank, gpus: int | list[str] = 2, version: int = 22703):
        buses = [f"0000:0{i}:00.0" for i in range(gpus)] if isinstance(gpus, int) else gpus
        self.rank, self.sums, self.groups, self.open = rank, [], 0, False
        self.current: list[int] = []
        nccl = SimpleNamespace(
            available=True,
            NCCL_SUM=0,
            NCCL_INT32=2,
            NCCL_INT64=4,
            NCCL_FLOAT16=6,
            NCCL_FLOAT32=7,
            NCCL_FLOAT64=8,
            get_version=lambda: version,
            get_unique_id=lambda: tuple(range(-64, 64)),
            groupStart=self._start,
            groupEnd=self._end,
            NcclCommunicator=lambda *arguments: Between(self, *arguments),
        )
        self.cuda = SimpleNamespace(
            nccl=nccl,
            Device=lambda number: SimpleNamespace(use=lambda: self.current.append(number)),
            get_current_stream=device_streams.cuda.get_current_stream,
            runtime=SimpleNamespace(
                getDeviceCount=lambda: len(buses), deviceGetPCIBusId=lambda number: buses[number]
            ),
        )

    def ones(self, size: int, dtype: Any) -> Any:
        return traced(np.ones(size, dtype))

    def _start(self) -> None:
        assert not self.open
        self.groups, self.open = self.groups + 1, True

    def _end(self) -> None:
        assert self.open
        self.open = False


class Between:
    """``NcclCommunicator``."""

    def __init__(self, library: Library, size: int, unique: tuple, rank: int):
        assert (size, rank) == (library.rank.size, library.rank.rank)
        assert isinstance(unique, tuple) and len(unique) == 128
        self._library = library

    def allReduce(self, source, target, count, code, operation, stream):
        assert source == target and operation == 0
        assert stream == device_streams.cuda.get_current_stream().ptr
        library, dtype = self._library, np.dtype(_CODES[code])
        recorded, group = device_streams.is_recording(), library.groups if library.open else 0
        library.sums.append(Sum(source, count, code, stream, recorded, group))
        block, at = device_memory.whole(source, "a sum")
        array = np.ndarray((count,), dtype, block, at)  # an error if the block is smaller
        device_streams.launch(library.rank.allreduce, array, name="allReduce")
