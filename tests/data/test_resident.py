"""Data that stays on the device, or streams to it, with NumPy in the device's place."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.data import resident
from xpmlp.data.resident import ResidentBatches, StreamedBatches, fits_on_device
from xpmlp.errors import ConfigError, DataError, ShapeError
from xpmlp.random import permutation


class Buffers:
    """Two places; what is sent only arrives when it is received."""

    def __init__(self, *layouts):
        self.pinned = [[np.zeros(*layout) for layout in layouts] for _ in range(2)]
        self.device = [[np.zeros(*layout) for layout in layouts] for _ in range(2)]
        self.log = []

    def host(self, place):
        self.log.append(("host", place))
        return self.pinned[place]

    def send(self, place):
        assert ("used", place) in self.log or ("sent", place) not in self.log
        self.log.append(("sent", place))

    def receive(self, place):
        for there, here in zip(self.device[place], self.pinned[place], strict=True):
            there[...] = here
        self.log.append(("received", place))
        return self.device[place]

    def done(self, place):
        self.log.append(("used", place))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("rows", [1, 8, 16, 21])
def test_streamed_batches_are_the_rows_in_order(rng, rows, drop_last):
    x, y = rng.integers(0, 256, (rows, 3), dtype=np.uint8), rng.integers(0, 9, rows)
    streamed = StreamedBatches(x, y, batch_size=8, seed=3, drop_last=drop_last, transfer=Buffers)
    for epoch in (0, 1):
        order = permutation(rows, seed=3, epoch=epoch)
        batches = [(a.copy(), b.copy()) for a, b in streamed.epoch(epoch)]
        assert len(batches) == len(streamed) == (rows // 8 if drop_last else -(-rows // 8))
        for index, (xb, yb) in enumerate(batches):
            np.testing.assert_array_equal(xb, x[order[8 * index : 8 * index + 8]])
            np.testing.assert_array_equal(yb, y[order[8 * index : 8 * index + 8]])


def test_the_next_batch_travels_before_the_last_one_is_used(rng):
    x, y = rng.standard_normal((24, 2)), rng.integers(0, 9, 24)
    streamed = StreamedBatches(x, y, batch_size=8, transfer=Buffers)
    list(streamed.epoch())
    log = [entry for entry in streamed._buffers.log if entry[0] != "host"]
    assert log[:5] == [("sent", 0), ("sent", 1), ("received", 0), ("used", 0), ("sent", 0)]


def test_what_fits():
    data = np.zeros((1000, 784), np.uint8), np.zeros(1000, np.int64)
    assert fits_on_device(*data, free=2 * 792_000)
    assert not fits_on_device(*data, free=2 * 792_000 - 2)


def nothing(*arrays, **options):
    raise AssertionError("nothing is gathered here")


def test_bad_data_is_refused(rng):
    x, y = rng.integers(0, 256, (9, 2, 3), dtype=np.uint8), np.zeros(9, np.int64)

    def make(x=x, y=y, **options):
        return ResidentBatches(x, y, **({"batch_size": 4, "gather": nothing} | options))

    assert len(make()) == 3 and list(make().sizes()) == [4, 4, 1]
    assert list(make(drop_last=True).sizes()) == [4, 4]
    with pytest.raises(DataError, match=r"as many targets.*\(9, 2, 3\).*\(8,\)"):
        make(y=y[:8])
    with pytest.raises(ConfigError, match="batch_size"):
        make(batch_size=0)
    with pytest.raises(ConfigError, match="float32, got float64"):
        make(x=x.astype(np.float64))
    with pytest.raises(ShapeError, match=r"\(2, 3\), got \(3,\)"):
        make(mean=np.zeros(3), std=np.ones(3))


def test_data_goes_where_there_is_room(rng, monkeypatch):
    from types import SimpleNamespace

    x, y = rng.integers(0, 256, (9, 3), dtype=np.uint8), np.zeros(9, np.int64)
    for free, kind in ((10**6, ResidentBatches), (10, StreamedBatches)):
        kernels = SimpleNamespace(
            free_memory=lambda free=free: free, gather=nothing, DoubleBuffer=Buffers
        )
        monkeypatch.setattr(resident, "load_kernels", lambda library, name: kernels)  # noqa: B023
        made = resident.resident_or_streamed(x, y, dtype="float32", batch_size=4, seed=1)
        assert type(made) is kind and made.seed == 1
