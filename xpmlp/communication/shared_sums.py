"""Sums between the ranks of one machine, in memory that all of them see.

MPI's own sum copies what ranks have from one's memory into the other's, by way of a third. In a
shared window of MPI-3 every rank adds up its own part of all ranks' numbers where they lie.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError

_LINE = 64
"""Bytes that two ranks do not write to at once."""
_PIECE = 1 << 16
"""Elements that are added up, and then given to all, while they are in the cache."""


class SharedSums:
    """Of ranks that share a machine.

    Parameters
    ----------
    library : module
        ``mpi4py.MPI``.
    comm : mpi4py.MPI.Comm
    """

    _known: ClassVar[list[SharedSums]] = []

    def __init__(self, library: Any, comm: Any):
        self._library, self._comm = library, comm
        self._windows: dict[int, _Window] = {}  # by the address of this rank's block

    @classmethod
    def of(cls, library: Any, comm: Any) -> SharedSums:
        """Those of a communicator, one for all who ask: they give back each other's memory."""
        for one in cls._known:
            if one._comm == comm:
                return one
        cls._known.append(cls(library, comm))
        return cls._known[-1]

    def zeros(self, size: int, dtype: Any) -> np.ndarray | None:
        """An array which :meth:`sum` is for; None where the machine has no room for those of all.

        All ranks must call it. What they have let go of is given back here.

        Raises
        ------
        ConfigError
            On every rank, if they ask for different sizes.
        """
        dtype = np.dtype(dtype)
        dead = [window.is_unused() for window in self._windows.values()]
        asked, rooms, deaths = zip(
            *self._comm.allgather(((size, dtype.str), _room(), dead)), strict=True
        )
        if len(set(asked)) > 1:
            raise ConfigError(
                "`TrainStep`: expected the same parameters on every rank, got "
                + ", ".join(f"{count} of {name}" for count, name in asked)
            )
        for address, gone in zip(list(self._windows), zip(*deaths, strict=True), strict=True):
            if all(gone):
                self._windows.pop(address).free()
        if not 0 < size * dtype.itemsize * self._comm.Get_size() < min(rooms) / 2:
            return None
        window = _Window(self._library, self._comm, size, dtype)
        lent = window.lend()
        self._windows[_address(lent)] = window
        return lent

    def sum(self, buffer: np.ndarray) -> bool:
        """Put the sum over all ranks in an array's place, if it is one of :meth:`zeros`."""
        window = self._windows.get(_address(buffer))
        if window is None or window.whole != (buffer.size, buffer.dtype):
            return False
        window.sum()
        return True


class _Window:
    """A block for each rank.

    Attributes
    ----------
    whole : (int, dtype)
        Size and type of a block.
    """

    def __init__(self, library: Any, comm: Any, size: int, dtype: np.dtype):
        self.whole = size, dtype
        line = _LINE // dtype.itemsize
        lines = -(-size // line)
        self._window = library.Win.Allocate_shared((lines + 1) * _LINE, 1, comm=comm)
        rank, ranks = comm.Get_rank(), comm.Get_size()
        self._rank = rank
        blocks = [self._block(other) for other in range(ranks)]
        begin, end = (min(size, lines * r // ranks * line) for r in (rank, rank + 1))
        edges = [*range(begin, end, _PIECE), end]
        self._pieces = [[block[a:b] for block in blocks] for a, b in pairwise(edges)]
        self._lent: Any = None
        self._window.Fence()

    def lend(self) -> np.ndarray:
        """This rank's block, of zeros."""
        own = self._block(self._rank)
        own[...] = 0
        self._lent = weakref.ref(own)  # a view of it keeps it, too
        return own

    def is_unused(self) -> bool:
        """Whether nobody has the block any more that was lent."""
        return self._lent() is None

    def _block(self, rank: int) -> np.ndarray:
        size, dtype = self.whole
        memory = self._window.Shared_query(rank)[0]
        begin = -_address(np.frombuffer(memory, np.uint8)) % _LINE
        return np.frombuffer(memory, dtype, size, begin)

    def sum(self) -> None:
        """In the ranks' order; each element by one of them, so that all have the same bits."""
        self._window.Fence()
        with np.errstate(all="ignore"):
            for total, *others in self._pieces:
                for other in others:
                    np.add(total, other, out=total)
                for other in others:
                    other[...] = total
        self._window.Fence()

    def free(self) -> None:
        """On all ranks at once."""
        self._window.Free()


def _room() -> int:
    """Bytes left for memory that processes share: whoever writes beyond them is killed."""
    memory = Path("/dev/shm")
    return shutil.disk_usage(memory if memory.is_dir() else tempfile.gettempdir()).free


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
