"""Copies from page-locked memory that run beside the device's work."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import launch

Layout = tuple[tuple[int, ...], np.dtype]


class DoubleBuffer:
    """Two places for a batch, each in page-locked memory and on the device.

    While the device works on one, the other is filled and sent, on a stream of its own.

    Parameters
    ----------
    *layouts : (shape, dtype)
        Of the batch's arrays.
    """

    def __init__(self, *layouts: Layout):
        cupy = launch.library()
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._host = [[_pinned(cupy, *layout) for layout in layouts] for _ in range(2)]
        self._device = [[launch.empty(*layout) for layout in layouts] for _ in range(2)]
        self._arrived = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
        self._used = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
        for place in range(2):
            self.done(place)  # its memory may be in use until here: the current stream's before

    def host(self, place: int) -> list[np.ndarray]:
        """Where to write the next batch, once the last one has left."""
        self._arrived[place].synchronize()
        return self._host[place]

    def send(self, place: int) -> None:
        """Let it travel, once the device is done with what was there."""
        self._stream.wait_event(self._used[place])
        for host, device in zip(self._host[place], self._device[place], strict=True):
            device.set(host, stream=self._stream)
        self._arrived[place].record(self._stream)

    def receive(self, place: int) -> list[Any]:
        """The batch on the device; what is enqueued from now on waits for it."""
        launch.library().cuda.get_current_stream().wait_event(self._arrived[place])
        return self._device[place]

    def done(self, place: int) -> None:
        """Everything that reads the batch has been enqueued."""
        self._used[place].record(launch.library().cuda.get_current_stream())

    def wait(self) -> None:
        """Until nothing travels any more: only then may either memory be given back."""
        self._stream.synchronize()


def free_memory() -> int:
    """Bytes that are free on the current device, those that CuPy holds ready included."""
    cupy = launch.library()
    return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()


def _pinned(cupy: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = cupy.cuda.alloc_pinned_memory(max(1, size))
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)
