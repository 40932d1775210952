"""Sums between the GPUs of several processes, by NCCL: in place, on the device, without the host.

Words, and what lies in host memory, go as without GPUs, by MPI.
"""

from __future__ import annotations

import importlib
import platform
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import BackendError, DTypeError
from .base import Communicator

_TYPES = {
    "float16": "NCCL_FLOAT16",
    "float32": "NCCL_FLOAT32",
    "float64": "NCCL_FLOAT64",
    "int32": "NCCL_INT32",
    "int64": "NCCL_INT64",
}
_RECORDS = 20900  # NCCL's number for 2.9, from which on its sums may be part of a graph


class NCCL(Communicator):
    """Ranks with a GPU each, whose arrays they sum where these are.

    Parameters
    ----------
    words : Communicator
        The same ranks as MPI knows them: what is no array on a GPU goes by it.
    library : module, optional
        CuPy; tests put their own here.

    Attributes
    ----------
    device : int
        The number of this rank's GPU, which is current from now on: the first that no rank before
        it has. Make this before the model, so that its arrays are there.

    Raises
    ------
    BackendError
        On every rank, if CuPy or NCCL are missing on one, or a rank has no GPU to itself.

    Notes
    -----
    A sum is enqueued on the current stream, and is recorded where that records. Every rank must
    then record the same sums, and replay them the same number of times.
    """

    def __init__(self, words: Communicator, *, library: Any = None):
        super().__init__(words.rank, words.size, words.statistics)
        self._words = words
        self._cupy = _cupy() if library is None else library
        problem = next(filter(None, words.everyone(why_not(self._cupy))), None)
        if problem is not None:
            raise BackendError(f"`NCCL`: expected NCCL on every rank, got {problem}")
        self._nccl = _module(self._cupy)
        self.device = self._take_device()
        own_id = words.first(self._nccl.get_unique_id)
        self._between = self._nccl.NcclCommunicator(self.size, own_id, self.rank)
        self._try()

    def allreduce(self, buffer: Any) -> None:
        """The sum over all ranks in the place of a dense array of this rank's GPU, or the host."""
        if type(buffer) is np.ndarray:
            self._words.allreduce(buffer)
            return
        place = getattr(buffer.device, "id", self.device)
        if place != self.device:
            raise BackendError(
                f"`NCCL`: expected an array on GPU {self.device}, which is that of rank "
                f"{self.rank}, got one on GPU {place}; make the ranks before the model: "
                'ranks = communicator("mpi"), then parallel=ranks, or comm=ranks'
            )
        if not (buffer.flags.c_contiguous or buffer.flags.f_contiguous):
            raise BackendError("`NCCL`: expected a dense array, got one with gaps; copy it first")
        code = _TYPES.get(buffer.dtype.name)
        if code is None:
            raise DTypeError(f"`NCCL`: expected {', '.join(_TYPES)}, got {buffer.dtype.name}")
        at, stream = buffer.data.ptr, self._cupy.cuda.get_current_stream().ptr
        number, add = getattr(self._nccl, code), self._nccl.NCCL_SUM
        self._between.allReduce(at, at, buffer.size, number, add, stream)

    def allreduce_each(self, buffers: Sequence[Any]) -> None:
        self._nccl.groupStart()
        try:
            for buffer in buffers:
                self.allreduce(buffer)
        finally:
            self._nccl.groupEnd()

    def takes(self, array: Any) -> bool:
        return isinstance(array, self._cupy.ndarray) or self._words.takes(array)

    def zeros(self, size: int, dtype: Any) -> np.ndarray | None:
        return self._words.zeros(size, dtype)

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return self._words.broadcast(value, root)

    def everyone(self, value: Any) -> list[Any]:
        return self._words.everyone(value)

    def abort(self) -> None:
        self._words.abort()

    def _take_device(self) -> int:
        """Make the first GPU current that no rank before this one has taken."""
        runtime, machine = self._cupy.cuda.runtime, platform.node()
        seen = [
            (machine, runtime.deviceGetPCIBusId(number))
            for number in range(runtime.getDeviceCount())
        ]
        taken: list[tuple[str, str]] = []
        for rank, gpus in enumerate(self._words.everyone(seen)):
            free = [gpu for gpu in gpus if gpu not in taken]
            if not free:
                raise BackendError(
                    f"`NCCL`: expected a GPU for each of {self.size} ranks, got {len(gpus)} that "
                    f"rank {rank} can see, all of them taken by ranks before it; start as many "
                    "ranks on a machine as it has GPUs (mpiexec -n), or let each see others "
                    "(CUDA_VISIBLE_DEVICES)"
                )
            taken.append(free[0])
        device = seen.index(taken[self.rank])
        self._cupy.cuda.Device(device).use()
        return device

    def _try(self) -> None:
        """A first sum, which connects the GPUs: that may not happen while something is recorded."""
        one = self._cupy.ones(1, np.float32)
        self.allreduce(one)
        found = float(one.get()[0])
        if found != self.size:
            raise BackendError(
                f"`NCCL`: expected 1 of each of {self.size} ranks to be {self.size}, got {found}; "
                "NCCL_DEBUG=INFO makes NCCL say what it does"
            )


def why_not(library: Any = None) -> str | None:
    """Why there is no NCCL for this process, in words; or None."""
    try:
        nccl = _module(_cupy() if library is None else library)
    except (ImportError, BackendError) as error:
        return str(error)
    if not nccl.available:
        return (
            "a CuPy that does not find NCCL; install it with pip install nvidia-nccl-cu13, or "
            "nvidia-nccl-cu12 to match CuPy"
        )
    version = nccl.get_version()
    return None if version >= _RECORDS else f"NCCL's version {version}, older than 2.9"


def _cupy() -> Any:
    return importlib.import_module("xpmlp.kernels.cuda.launch").library()


def _module(cupy: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what CuPy has to say if it is missing, we say
        name = f"{cupy.__name__}.cuda.nccl"
        return getattr(cupy.cuda, "nccl", None) or importlib.import_module(name)
