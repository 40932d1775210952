"""What a captured training step needs of CUDA: recording, replay, and updates on the device.

:mod:`xpmlp.training.captured` reaches everything through this module's names, so that tests can
put others in its place where there is no GPU.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ...errors import MissingDependencyError
from . import launch
from .bias_activation import backward as activate_backward
from .bias_activation import forward as activate
from .cublas import tensor_float_32
from .gather import gather
from .linear import backward as linear_backward
from .linear import linear
from .softmax_cross_entropy import with_hits as cross_entropy
from .update import Counters, FlatUpdate, LossScale

__all__ = [
    "Counters",
    "FlatUpdate",
    "LossScale",
    "Recorder",
    "activate",
    "activate_backward",
    "contiguous",
    "cross_entropy",
    "explained_memory",
    "gather",
    "half_dtype",
    "linear",
    "linear_backward",
    "precision_problem",
    "tensor_float_32",
]

contiguous = launch.contiguous
explained_memory = launch.explained_memory


class Recorder:
    """A stream beside the default one, and a memory pool of its own, to rehearse and record in.

    Temporaries of a recording go back to the pool while the graph still writes to them; so the
    pool is private, and lives as long as the recorder. Replays follow each other on one stream,
    so that graphs may share such memory.
    """

    def __init__(self) -> None:
        self._stream = _stream()
        self._pool = launch.library().cuda.MemoryPool()
        self.recording = False

    def rehearse(self, work: Callable[[], Any]) -> Any:
        """Do the work once, really: kernels are compiled, the pool filled, cuBLAS made ready."""
        launch.library().cuda.get_current_stream().synchronize()  # what the work reads is there
        # What CuPy's own pool keeps for later is of no use to this one.
        launch.library().get_default_memory_pool().free_all_blocks()
        with self._inside():
            result = work()
            self._stream.synchronize()
        return result

    def record(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Record the work without doing it.

        Returns
        -------
        replay : callable
            Enqueues all of it on the current stream.
        result
            What the work returned; its arrays are written at each replay.

        Raises
        ------
        RuntimeError
            If something in it cannot be recorded: it waits for the device, copies from or to the
            host, or uses the default stream.
        """
        launch.library().cuda.get_current_stream().synchronize()
        gc.collect()
        enabled = gc.isenabled()
        gc.disable()  # what a collection frees might not be freed while recording
        self.recording = True
        try:
            with self._inside():
                self._stream.begin_capture()
                try:
                    result = work()
                except BaseException:
                    with suppress(RuntimeError):  # the capture is invalid, and ends all the same
                        self._stream.end_capture()
                    raise
                graph = self._stream.end_capture()
        finally:
            self.recording = False
            if enabled:
                gc.enable()
        graph.upload()
        return graph.launch, result

    @contextmanager
    def _inside(self) -> Any:
        with self._stream, launch.library().cuda.using_allocator(self._pool.malloc):
            yield


_streams = threading.local()


def _stream() -> Any:
    """This thread's stream for recordings on the current device.

    One for all: each stream that cuBLAS has been used on keeps its workspace.
    """
    by_device = _streams.__dict__.setdefault("by_device", {})
    number = launch.device_number()
    if number not in by_device:
        by_device[number] = launch.library().cuda.Stream(non_blocking=True)
    return by_device[number]


def half_dtype(precision: str) -> np.dtype:
    """The dtype of ``"fp16"`` or ``"bf16"``."""
    if precision == "fp16":
        return np.dtype(np.float16)
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingDependencyError(
            "precision='bf16' needs NumPy's bfloat16: pip install ml-dtypes"
        ) from error
    return np.dtype(ml_dtypes.bfloat16)


def precision_problem(precision: str | None) -> str | None:
    """Why the current device cannot compute in ``"tf32"``, ``"bf16"`` or ``"fp16"``, or None."""
    least = {"tf32": 80, "bf16": 80, "fp16": 70}.get(precision or "", 0)
    capability = launch.device().capability
    version = launch.library().__version__
    if precision == "bf16" and int(version.partition(".")[0]) < 14:
        return f"CuPy knows bfloat16 from version 14 on, and this is {version}"
    if capability >= least:
        return None
    return (
        f"tensor cores take {precision} from compute capability {least / 10} on, and this device "
        f"has {capability / 10}"
    )
