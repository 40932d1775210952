"""What processes that train one network together send each other: sums, and one rank's words.

Each of them is a *rank*. A :class:`Communicator` is all that the rest of the package knows of how
they are connected: :class:`MPI` here, :class:`~xpmlp.communication.nccl.NCCL` between GPUs, or an
object of your own with the same two calls.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import array_namespace, get_backend, set_backend, to_numpy
from ..errors import BackendError, ConfigError
from ..shared_sums import SharedSums

STATISTICS = ("global", "rank")
ROWS_APART = 4
"""Shares of a batch begin at multiples of so many rows: a mask's random words come in fours."""


class Communicator:
    """Ranks that work in step.

    Parameters
    ----------
    rank : int
        This process's number, from 0.
    size : int
        How many there are.
    statistics : {"global", "rank"}
        What batch normalization standardises by: mean and variance of all ranks' rows together, as
        one process would, or those of each rank's own rows, which saves sums between ranks.

    Notes
    -----
    Every rank must make the same calls in the same order; a rank that stays away leaves the others
    waiting. All must get the same bits from a sum.
    """

    def __init__(self, rank: int, size: int, statistics: str = "global"):
        if statistics not in STATISTICS:
            raise ConfigError(
                f"`{type(self).__name__}`: expected statistics to be one of "
                f"{', '.join(STATISTICS)}, got {statistics!r}"
            )
        self.rank, self.size, self.statistics = rank, size, statistics

    def allreduce(self, buffer: np.ndarray) -> None:
        """Put the sum over all ranks, element by element, in the place of a contiguous array."""
        raise NotImplementedError

    def allreduce_each(self, buffers: Sequence[Any]) -> None:
        """The same of several arrays, at once where that is faster."""
        for buffer in buffers:
            self.allreduce(buffer)

    def takes(self, array: Any) -> bool:
        """Whether ``allreduce`` sums such an array where it is: those of NumPy, by default."""
        return isinstance(array, np.ndarray)

    def zeros(self, size: int, dtype: Any) -> np.ndarray | None:
        """An array that is summed faster than others, if there is any such memory."""
        return None

    def broadcast(self, value: Any, root: int = 0) -> Any:
        """What rank ``root`` gives, on every rank."""
        raise NotImplementedError

    def abort(self) -> None:
        """End all ranks at once, if this one cannot go on."""

    def gather(self, values: Any) -> np.ndarray:
        """Numbers of one shape (…) from each rank, as (size, …) in float64; on every rank alike."""
        own = np.asarray(values, np.float64)
        everyone = np.zeros((self.size, *own.shape))
        everyone[self.rank] = own
        self.allreduce(everyone)
        return everyone

    def first(self, function: Callable[[], Any]) -> Any:
        """What a function gives on rank 0, which alone calls it, on every rank; or its error."""
        found: Any = None
        if self.rank == 0:
            try:
                found = True, function()
            except Exception as error:
                found = False, error
        fine, value = self.broadcast(found)
        if not fine:
            raise value
        return value

    def after_first(self, function: Callable[[], Any]) -> Any:
        """What a function gives on each rank, which rank 0 calls before the others; or its error.

        So files that a data set lacks are downloaded once, by rank 0, and the others find them.
        """
        own: list[Any] = []
        self.first(lambda: own.append(function()))
        return own[0] if own else function()

    def everyone(self, value: Any) -> list[Any]:
        """What each rank gives, in their order, on every rank."""
        return [self.broadcast(value, root) for root in range(self.size)]


@dataclass(frozen=True)
class Share:
    """The rows of a batch that a rank has: ``rows`` from number ``first`` on, of ``total``.

    A rank without rows is given one that counts for nothing, so that it makes the same sums.
    ``even`` is whether all ranks know from ``total`` alone who has which rows: :meth:`of` says so.
    """

    first: int
    rows: int
    total: int
    ranks: Communicator = field(compare=False)
    even: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, total: int, ranks: Communicator) -> Share:
        """An even share of so many rows, the same on every machine."""
        begin, end = (cls._begin(total, rank, ranks.size) for rank in (ranks.rank, ranks.rank + 1))
        return cls(begin, end - begin, total, ranks, even=True)

    @staticmethod
    def _begin(total: int, rank: int, size: int) -> int:
        """Where the even share of a rank begins."""
        return min(total, -(-total // ROWS_APART) * rank // size * ROWS_APART)

    @classmethod
    def found(cls, rows: int, ranks: Communicator) -> Share:
        """That of a rank which has so many rows, behind those of the ranks before; asks them."""
        begins = [0, *map(int, np.cumsum(ranks.gather(rows)))]
        total = begins[-1]
        even = begins == [cls._begin(total, rank, ranks.size) for rank in range(ranks.size + 1)]
        return cls(begins[ranks.rank], rows, total, ranks, even)

    @property
    def slice(self) -> slice:
        """Of the batch."""
        return slice(self.first, self.first + self.rows)

    def of_all(self, own: int) -> int:
        """How many rows, or pixels, or steps, all ranks have where this one is given ``own``."""
        return own // max(1, self.rows) * self.total

    def on_average(self, own: int) -> int:
        """How many a rank has, two at least: the same number on all."""
        return max(2, self.of_all(own) // self.ranks.size)

    def wide(self, *values: Any) -> Any:
        """Arrays of one shape, stacked, in float64, where the ranks sum them: at best in place."""
        if not self.ranks.takes(values[0]):
            values = tuple(map(to_numpy, values))
        if type(values[0]) is np.ndarray:
            return np.array(values, np.float64)
        xp = array_namespace(*values)
        return xp.stack([xp.astype(each, xp.float64) for each in values])

    def sum(self, values: Any) -> Any:
        """The sum over all ranks of float64 numbers, in their place."""
        if not self.rows:
            values[...] = 0.0
        self.ranks.allreduce(values)
        return values

    def statistics(self, mean: Any, var: Any) -> tuple[Any, Any]:
        """Mean and biased variance of all ranks' rows, of those of this rank's.

        Chan, Golub and LeVeque 1979.
        """
        own, var = self.wide(mean, var)
        mean = self.sum(self.part * own)
        return mean, self.sum(self.part * (var + (own - mean) ** 2))

    def average(self, *values: Any) -> Any:
        """The mean of numbers over the ranks, weighted by their rows."""
        return self.sum(self.wide(*values) * self.part)

    @property
    def part(self) -> float:
        """Of all rows."""
        return self.rows / self.total


class MPI(Communicator):
    """Ranks that ``mpiexec`` has started, by mpi4py.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        Default: all of them.
    statistics : {"global", "rank"}
        As for :class:`Communicator`.

    Raises
    ------
    BackendError
        If mpi4py, or the MPI library that it needs, is missing.

    Notes
    -----
    The ranks of a machine divide its processors: unless ``XPMLP_NUM_THREADS`` says otherwise, each
    uses as many threads as the processors it may run on have for one rank. An error that nobody
    catches ends all ranks, with its message and an exit status that is not 0.
    """

    def __init__(self, comm: Any = None, *, statistics: str = "global"):
        # Open MPI 5 complains of UCX whenever it makes a window (open-mpi/ompi, issue 14086).
        os.environ.setdefault("OMPI_MCA_osc", "^ucx")
        try:
            self._library: Any = importlib.import_module("mpi4py.MPI")
        except (ImportError, RuntimeError) as error:
            raise BackendError(
                f"`MPI`: expected mpi4py and an MPI library, got {error}; install both with "
                'pip install "xpmlp[mpi]" mpich'
            ) from error
        self._comm = self._library.COMM_WORLD if comm is None else comm
        super().__init__(self._comm.Get_rank(), self._comm.Get_size(), statistics)
        self._shared: SharedSums | None = None
        if self.size > 1:
            local = self._comm.Split_type(self._library.COMM_TYPE_SHARED)
            _divide_processors(local)
            if local.Get_size() == self.size:
                self._shared = SharedSums.of(self._library, self._comm)
            local.Free()
            _Guard.of(self)

    def allreduce(self, buffer: np.ndarray) -> None:
        if self._shared is None or not self._shared.sum(buffer):
            self._comm.Allreduce(self._library.IN_PLACE, buffer)

    def zeros(self, size: int, dtype: Any) -> np.ndarray | None:
        return None if self._shared is None else self._shared.zeros(size, dtype)

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return self._comm.bcast(value, root)

    def everyone(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def abort(self) -> None:
        self._comm.Abort(1)


def _divide_processors(local: Any) -> None:
    """Take one part of the processors that ranks on this machine share."""
    threads: Any = importlib.import_module("xpmlp.kernels.thread_count")
    if os.environ.get(threads.VARIABLE, "").strip():
        return
    usable = getattr(os, "sched_getaffinity", None)
    own = tuple(sorted(usable(0))) if usable else (os.cpu_count(),)
    sharers = local.allgather(own).count(own)
    threads.own_threads(max(1, threads.thread_count()[0] // sharers))


class _Guard:
    """A rank that ends by an error, or in the middle of a training, ends the others with it.

    They would wait for its share of a sum for ever.
    """

    _one: _Guard | None = None

    def __init__(self, ranks: Communicator):
        self.ranks, self.training = ranks, False
        self._before = sys.excepthook
        sys.excepthook = self._report
        atexit.register(self._at_exit)  # after mpi4py's own, and so run before it

    @classmethod
    def of(cls, ranks: Communicator) -> _Guard:
        """That of this process."""
        if cls._one is None:
            cls._one = cls(ranks)
        return cls._one

    def _report(self, *error: Any) -> None:
        let_first_speak()
        print(f"xpmlp: rank {self.ranks.rank} of {self.ranks.size} ends all:", file=sys.stderr)
        self._before(*error)
        self._abort()

    def _at_exit(self) -> None:
        if self.training:
            print(
                f"xpmlp: rank {self.ranks.rank} of {self.ranks.size} has left a training, which "
                "ends all",
                file=sys.stderr,
            )
            self._abort()

    def _abort(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.ranks.abort()


_LET_FIRST = 1.0  # seconds


class training_together:
    """For as long as this lasts, a process that ends ends all ranks; after an error, from then on.

    Parameters
    ----------
    ranks : Communicator or None
    """

    def __init__(self, ranks: Communicator | None):
        self._guard = _Guard._one if ranks is not None else None

    def __enter__(self) -> None:
        if self._guard is not None:
            self._guard.training = True

    def __exit__(self, kind: Any, *error: Any) -> None:
        if self._guard is not None and kind is None:
            self._guard.training = False


def let_first_speak() -> None:
    """Wait a little, on another rank than the first: where all fail alike, it ends all."""
    if _Guard._one is not None and _Guard._one.ranks.rank:
        time.sleep(_LET_FIRST)


def end_all_ranks() -> None:
    """End the other ranks, if this process is one of several: it has failed, and said why."""
    if _Guard._one is not None:
        _Guard._one._abort()


def ranks_started(environment: Mapping[str, str] | None = None) -> int:
    """How many ranks a launcher says it has started this process as one of; 1 without a launcher.

    Looks at the environment alone, which mpiexec, mpirun and srun write; no library is loaded.
    """
    known = os.environ if environment is None else environment
    if not any(name in known for name in _LAUNCHED):
        return 1
    sizes = [known[name] for name in _SIZES if known.get(name, "").isdigit()]
    return int(sizes[0]) if sizes else 1


_LAUNCHED = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def is_first(ranks: Communicator | None) -> bool:
    """Whether this process is the one that draws and writes."""
    return ranks is None or ranks.rank == 0


def between_gpus(ranks: Communicator, library: Any = None) -> Communicator:
    """The same ranks by NCCL, if new arrays are CuPy's; where there is no NCCL, as they are.

    ``library`` is CuPy; tests put their own here.

    Warns
    -----
    UserWarning
        On the first rank, if sums go through host memory for want of NCCL.
    """
    if ranks.size == 1 or get_backend().name != "cupy":
        return ranks
    from .nccl import NCCL, why_not

    problem = next(filter(None, ranks.everyone(why_not(library))), None)
    if problem is None:
        found = NCCL(ranks, library=library)
        set_backend("cupy", str(found.device))
        return found
    if ranks.rank == 0:
        warnings.warn(
            f"`MPI`: CuPy arrays are summed through host memory, for want of NCCL: {problem}",
            stacklevel=3,
        )
    return ranks


def communicator(parallel: Any) -> Communicator | None:
    """The ranks that ``parallel=`` stands for; None where there is only one.

    With CuPy as the backend, ``"mpi"`` is :class:`~xpmlp.communication.nccl.NCCL` between the
    ranks' GPUs where there is one, and takes this rank's GPU: ask before the model is made.

    Parameters
    ----------
    parallel : None, "mpi" or Communicator

    Raises
    ------
    ConfigError
        If it is something else.
    """
    if parallel is None:
        return None
    if parallel == "mpi":
        parallel = between_gpus(MPI())
    if not isinstance(parallel, Communicator):
        raise ConfigError(
            f'`parallel`: expected None, "mpi" or a Communicator, got {parallel!r:.100}'
        )
    return parallel if parallel.size > 1 else None
