"""Ranks that ``mpiexec`` has started, by mpi4py."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import BackendError
from .base import Communicator
from .guard import Guard
from .shared_sums import SharedSums


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
            Guard.of(self)

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
