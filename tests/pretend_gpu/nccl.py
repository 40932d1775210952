"""CuPy's module for NCCL, for ranks that have a pretend device each: MPI makes the sums.

:func:`install` puts it in the place of ``cupy.cuda.nccl``. A sum is made now, in the order of all
other work; while its stream records, it becomes a part of the graph.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import cupy
import numpy as np
from mpi4py import MPI

from . import device

available = True
NCCL_SUM = 0
NCCL_INT32, NCCL_INT64, NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64 = 2, 4, 6, 7, 8
_TYPES = {2: np.int32, 4: np.int64, 7: np.float32, 8: np.float64}  # MPI has no half precision

_graph_of = device.library._Z8graph_ofPKv
_graph_of.argtypes, _graph_of.restype = [ctypes.c_void_p], ctypes.c_long
_open: list[Any] | None = None  # what a group has been given so far


def install() -> None:
    cupy.cuda.nccl = sys.modules["cupy.cuda.nccl"] = sys.modules[__name__]


def get_version() -> int:
    return 22703


def get_unique_id() -> tuple[int, ...]:
    return tuple(range(-64, 64))


def groupStart() -> None:
    global _open
    assert _open is None
    _open = []


def groupEnd() -> None:
    """Its sums are made only now, as NCCL's are."""
    global _open
    assert _open is not None
    works, _open = _open, None
    for work in works:
        work()


class NcclCommunicator:
    def __init__(self, size: int, unique: tuple[int, ...], rank: int):
        assert (size, rank) == (MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank)
        assert unique == get_unique_id()

    def allReduce(
        self, source: int, target: int, count: int, code: int, operation: int, stream: int
    ) -> None:
        dtype = np.dtype(_TYPES[code])
        size = count * dtype.itemsize
        assert source == target and operation == NCCL_SUM

        def make() -> int:
            if not device.on_device(source, size):
                device.complain(f"NCCL: a sum of {size} bytes at {source:#x}, which is not there")
                return device.ILLEGAL_ADDRESS
            view = np.frombuffer((ctypes.c_char * size).from_address(source), dtype)
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, view)
            return 0

        def work() -> None:
            if device.do(_graph_of(stream), make):
                raise RuntimeError("NCCL_ERROR_UNHANDLED_CUDA_ERROR: as the pretend device says")

        if _open is None:
            work()
        else:
            _open.append(work)
