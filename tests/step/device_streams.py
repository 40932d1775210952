"""Streams, events and graphs of a device that is not there, as far as a recorder needs them.

While a stream is recorded, work is written down with the addresses it reads and writes
(device_memory.py), and nothing is done; a graph does it as often as it is launched.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from step import device_memory


class Capture:
    """What is being recorded: the work of each stream, in order, and its waits for the others."""

    def __init__(self, origin: Stream):
        self.origin = origin
        self.work: dict[Stream, list[tuple[str, Any]]] = {origin: []}

    def add(self, stream: Stream, kind: str, what: Any) -> None:
        if kind == "wait" and any(("event", what) in own for own in self.work.values()):
            self.work.setdefault(stream, [])
        assert stream in self.work, "work on a stream that is not part of the recording"
        self.work[stream].append((kind, what))

    def end(self) -> Graph:
        waited_for = {what for kind, what in self.work[self.origin] if kind == "wait"}
        for stream, own in self.work.items():
            if stream is not self.origin and own and own[-1][1] not in waited_for:
                raise RuntimeError("cudaErrorStreamCaptureUnjoined")
        return Graph(list(self.work.values()))


class Graph:
    """Recorded work, as often as it is wanted.

    Attributes
    ----------
    side_first : bool
        Of work that may be done in any order, whether that of the other stream comes first.
    """

    side_first = False

    def __init__(self, work: list[list[tuple[str, Any]]]):
        self._work = work

    @property
    def nodes(self) -> list[str]:
        """The names of everything that is done, copies included."""
        return [what[0] for own in self._work for kind, what in own if kind == "do"]

    def upload(self) -> None:
        pass

    def launch(self) -> None:
        streams = [deque(own) for own in self._work]
        if Graph.side_first:
            streams.reverse()
        happened: set[Any] = set()
        with np.errstate(all="ignore"):
            while any(streams):
                # The first that can go on: an event may let an earlier stream go on again.
                own = next(
                    s for s in streams if s and not (s[0][0] == "wait" and s[0][1] not in happened)
                )
                kind, what = own.popleft()
                if kind == "event":
                    happened.add(what)
                elif kind == "do":
                    what[1]()


class Stream:
    def __init__(self, non_blocking: bool = False):
        self.ptr = id(self)

    def __enter__(self) -> Stream:
        _own.current.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        assert _own.current.pop() is self

    def synchronize(self) -> None:
        assert _own.capture is None, "the host cannot wait while recording"

    def begin_capture(self) -> None:
        assert _own.capture is None
        _own.capture = Capture(self)

    def end_capture(self) -> Graph:
        ended, _own.capture = _own.capture, None
        assert ended is not None
        return ended.end()

    def wait_event(self, event: Event) -> None:
        if _own.capture is not None:
            _own.capture.add(self, "wait", event.happening)


class Event:
    def __init__(self, disable_timing: bool = False):
        self.happening: Any = None

    def record(self, stream: Stream) -> None:
        self.happening = object()  # an event is recorded anew each time
        if _own.capture is not None:
            _own.capture.add(stream, "event", self.happening)


class MemoryPool:
    """Memory comes back to a pool when its last array ends: here, it is gone then."""

    def malloc(self, size: int) -> device_memory.Owner:
        return device_memory.allocate(size)


@contextmanager
def using_allocator(malloc: Callable[[int], Any]):
    _own.allocators.append(malloc)
    try:
        yield
    finally:
        _own.allocators.pop()


class _OfThisThread(threading.local):
    """What is recorded, the current streams and where memory comes from."""

    def __init__(self) -> None:
        self.capture: Capture | None = None
        self.current = [Stream()]
        self.allocators: list[Callable[[int], Any]] = [device_memory.allocate]


_own = _OfThisThread()
cuda = SimpleNamespace(
    Stream=Stream,
    Event=Event,
    MemoryPool=MemoryPool,
    using_allocator=using_allocator,
    get_current_stream=lambda: _own.current[-1],
    runtime=SimpleNamespace(getDevice=lambda: "NumPy"),
)
library = SimpleNamespace(cuda=cuda)


def is_recording() -> bool:
    return _own.capture is not None


def allocate(size: int) -> Any:
    """Memory from the current allocator."""
    return _own.allocators[-1](size)


def launch(kernel: Callable[..., Any], *arguments: Any, name: str = "kernel") -> None:
    """Call a function now, or at each replay; by then, of arrays it has the addresses only."""
    if _own.capture is None:
        kernel(*arguments)
        return
    known = device_memory.addresses(arguments)

    def work() -> None:
        kernel(*device_memory.arrays(known, name))

    _own.capture.add(_own.current[-1], "do", (name, work))
