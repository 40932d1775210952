"""What a captured training step needs of CUDA: recording, replay, and updates on the device.

:mod:`xpmlp.step.captured` reaches everything through this module's names, so that tests can
put others in its place where there is no GPU.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import MissingDependencyError
from . import cublas, launch
from .bias_activation import backward as activate_backward
from .bias_activation import forward as activate
from .cublas import tensor_float_32
from .gather import gather
from .linear import input_gradient, linear, weight_gradient
from .softmax_cross_entropy import in_parts as cross_entropy
from .sums import Sum, finish
from .update import Counters, FlatUpdate, LossScale

__all__ = [
    "Counters",
    "FlatUpdate",
    "LossScale",
    "Recorder",
    "Sum",
    "activate",
    "activate_backward",
    "contiguous",
    "cross_entropy",
    "empty",
    "explained_memory",
    "finish",
    "gather",
    "half_dtype",
    "input_gradient",
    "linear",
    "precision_problem",
    "release_memory",
    "tensor_float_32",
    "weight_gradient",
]

contiguous = launch.contiguous
empty = launch.empty
explained_memory = launch.explained_memory


@dataclass(eq=False)
class Replay:
    """A graph, and the memory whose addresses it knows: neither outlives the other."""

    graph: Any
    memory: list[Any]

    def __call__(self) -> None:
        """Enqueue all of it on the current stream."""
        self.graph.launch()


class Recorder:
    """A stream beside the default one, and a memory pool of its own, to rehearse and record in.

    All memory that a recording asks for is its own, until it ends: a graph writes to bare
    addresses, and what runs beside something else must not share memory with it. A rehearsal asks
    for the same memory in the same order, so that the pool has it ready for the recording.

    Parameters
    ----------
    library : module, optional
        CuPy; tests put their own here.

    Attributes
    ----------
    recording : bool
        Whether work is being written down rather than done.
    """

    def __init__(self, library: Any = None) -> None:
        self._cupy = launch.library() if library is None else library
        self._stream, self._side = _streams(self._cupy)
        self._pool = self._cupy.cuda.MemoryPool()
        self._forked = False
        self._travels: list[Callable[[], Any]] = []
        self.recording = False

    def rehearse(self, work: Callable[[], Any]) -> Any:
        """Do the work once, really: kernels are compiled, the pool filled, cuBLAS made ready."""
        self._cupy.cuda.get_current_stream().synchronize()  # what the work reads is there
        with self._inside():
            try:
                return work()
            finally:  # its memory is held until here
                for stream in (self._side, self._stream):
                    stream.synchronize()

    def record(self, work: Callable[[], Any]) -> tuple[Replay, Any]:
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
        self._cupy.cuda.get_current_stream().synchronize()
        gc.collect()
        enabled = gc.isenabled()
        gc.disable()  # what a collection frees might not be freed while recording
        self.recording = True
        try:
            with self._inside() as memory:
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
            travels, self._travels = self._travels, []
            if enabled:
                gc.enable()
        for send in travels:
            send()
        graph.upload()
        return Replay(graph, [*memory, *cublas.workspaces()]), result

    def send(self, copy: Callable[[], Any]) -> None:
        """Copy something from the host: now, or once the recording is over."""
        if self.recording:
            self._travels.append(copy)
        else:
            copy()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """What is enqueued inside may run beside what follows, until :meth:`join`."""
        self._order(self._stream, self._side)
        self._forked = True
        with self._side:
            yield

    def join(self) -> None:
        """What follows comes after everything that was enqueued :meth:`beside`."""
        if self._forked:
            self._order(self._side, self._stream)
        self._forked = False

    def _order(self, first: Any, then: Any) -> None:
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(first)
        then.wait_event(event)

    @contextmanager
    def _inside(self) -> Iterator[list[Any]]:
        """On the stream, with memory from the pool; gives a list of all that was asked for."""
        memory: list[Any] = []

        def malloc(size: int) -> Any:
            pointer = self._pool.malloc(size)
            memory.append(pointer)
            return pointer

        self._forked = False
        with self._stream, self._cupy.cuda.using_allocator(malloc):
            yield memory


_own = threading.local()


def _streams(cupy: Any) -> tuple[Any, Any]:
    """This thread's two streams for recordings on the current device.

    The same for all: each stream that cuBLAS has been used on keeps its workspace.
    """
    by_device = _own.__dict__.setdefault("by_device", {})
    number = cupy.cuda.runtime.getDevice()
    if number not in by_device:
        by_device[number] = tuple(cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    return by_device[number]


def release_memory() -> None:
    """Give back what CuPy's own pool keeps ready: of no use to a recorder's."""
    launch.library().get_default_memory_pool().free_all_blocks()


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
