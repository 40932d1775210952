"""The order of copies beside the device's work, with streams that write down what they are told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.kernels.cuda import launch, transfer


class Stream:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_event(self, event):
        self.log.append((self.name, "waits", event.recorded))

    def synchronize(self):
        self.log.append((self.name, "ends"))


class Event:
    def __init__(self, disable_timing):
        self.recorded = None

    def record(self, stream):
        self.recorded = len(stream.log)
        stream.log.append((stream.name, "event"))

    def synchronize(self):
        assert self.recorded is None or self.recorded >= 0


@pytest.fixture
def log(monkeypatch):
    log = []
    main = Stream(log, "main")

    class Array:
        def set(self, host, stream):
            log.append((stream.name, "copies"))

    def empty(shape, dtype):
        log.append(("main", "memory"))
        return Array()

    cuda = SimpleNamespace(
        Stream=lambda non_blocking: Stream(log, "beside"),
        Event=Event,
        get_current_stream=lambda: main,
        alloc_pinned_memory=bytearray,
    )
    monkeypatch.setattr(launch, "library", lambda: SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(launch, "empty", empty)
    return log


def test_the_first_copies_wait_for_what_used_the_memory_before(log):
    """Memory that the main stream's allocator gives may still be in use there."""
    buffers = transfer.DoubleBuffer(((4, 3), np.dtype(np.uint8)), ((4,), np.dtype(np.int64)))
    last = max(at for at, (_, what, *_) in enumerate(log) if what == "memory")
    for place in range(2):
        buffers.send(place)
        stream, what, event = next(entry for entry in reversed(log) if entry[1] == "waits")
        assert (stream, what) == ("beside", "waits") and event is not None and event > last
        assert log[event] == ("main", "event")


def test_a_place_is_sent_to_again_when_its_reader_is_done(log):
    buffers = transfer.DoubleBuffer(((4,), np.dtype(np.float32)))
    buffers.send(0)
    (there,) = buffers.receive(0)
    assert log[-1][:2] == ("main", "waits") and log[log[-1][2]] == ("beside", "event")
    buffers.done(0)
    used = len(log) - 1
    buffers.host(0)[0][...] = 1
    buffers.send(0)
    assert ("beside", "waits", used) in log and there is buffers.receive(0)[0]
    buffers.wait()
    assert log[-1] == ("beside", "ends")
