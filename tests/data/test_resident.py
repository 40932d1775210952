"""Data that stays on the device, or streams to it, with NumPy in the device's place."""

from __future__ import annotations

from types import SimpleNamespace

import array_api_compat
import numpy as np
import pytest
from step.numpy_graph import DoubleBuffer, gather

from xpmlp.data import Batches, Normalization, resident
from xpmlp.data.resident import ResidentBatches, StreamedBatches, fits_on_device
from xpmlp.errors import ConfigError, DataError, ShapeError


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("rows", [8, 16, 21, 3])
def test_streamed_batches_are_those_of_the_loader(rng, rows, drop_last):
    x, y = rng.integers(0, 256, (rows, 3), dtype=np.uint8), rng.integers(0, 9, rows)
    size = min(8, rows) if drop_last else 8
    options = dict(batch_size=size, seed=3, drop_last=drop_last)
    streamed = StreamedBatches(
        x, y, mean=100.0, std=50.0, transfer=DoubleBuffer, gather=gather, **options
    )
    expected = Batches(x, y, normalization=Normalization(100.0, 50.0), **options)
    assert list(streamed.sizes()) == [len(yb) for _, yb in expected.epoch()]
    for epoch in (0, 1):
        count = 0
        for (xb, yb), (x_wanted, y_wanted) in zip(
            streamed.epoch(epoch), expected.epoch(epoch), strict=True
        ):
            np.testing.assert_array_equal(xb, x_wanted)
            np.testing.assert_array_equal(yb, y_wanted)
            assert xb.dtype == np.float32
            count += 1
        assert count == len(streamed) == len(expected)


def test_the_next_batch_travels_before_the_last_one_is_used(rng):
    x, y = rng.standard_normal((24, 2)).astype(np.float32), rng.integers(0, 9, 24)
    streamed = StreamedBatches(x, y, batch_size=8, transfer=DoubleBuffer, gather=gather)
    list(streamed.epoch())
    log = [entry for entry in streamed._buffers.log if entry[0] != "host"]
    assert log[:5] == [("sent", 0), ("sent", 1), ("received", 0), ("used", 0), ("sent", 0)]
    assert log[-1] == ("waited", None)


def test_an_epoch_that_is_left_waits_for_what_is_on_its_way(rng):
    x, y = rng.integers(0, 256, (24, 3), dtype=np.uint8), rng.integers(0, 9, 24)
    streamed = StreamedBatches(x, y, batch_size=8, transfer=DoubleBuffer, gather=gather)
    epoch = streamed.epoch()
    next(epoch)
    epoch.close()
    assert streamed._buffers.log[-1] == ("waited", None)


@pytest.mark.parametrize("free", [10**6, 10], ids=["resident", "streamed"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["bytes", "wide integers", "doubles"])
@pytest.mark.parametrize("normalized", [None, "one", "each"])
def test_batches_on_a_device_are_those_of_the_loader(
    rng, monkeypatch, free, shuffle, kind, normalized
):
    """Conversions, statistics, targets and order, whichever way the data come."""
    kernels = SimpleNamespace(free_memory=lambda: free, gather=gather, DoubleBuffer=DoubleBuffer)
    monkeypatch.setattr(resident, "load_kernels", lambda library, name: kernels)
    dtype = {"bytes": np.uint8, "wide integers": np.int32, "doubles": np.float64}[kind]
    x = rng.integers(0, 200, (21, 2, 3)).astype(dtype)
    y = rng.standard_normal((21, 2)) if kind == "doubles" else rng.integers(0, 9, 21).tolist()
    options: dict = dict(batch_size=8, shuffle=shuffle, seed=5, dtype="float32")
    if normalized is not None:
        options["normalization"] = Normalization.fit(x, per_feature=normalized == "each")
    found = resident.batches_on_device(x, y, **options)
    assert type(found) is (ResidentBatches if free > 10 else StreamedBatches)
    expected = Batches(x, y, **options)
    for epoch in (0, 3):
        for (xb, yb), (x_wanted, y_wanted) in zip(
            found.epoch(epoch), expected.epoch(epoch), strict=True
        ):
            np.testing.assert_array_equal(xb, x_wanted)
            np.testing.assert_array_equal(yb, y_wanted)
            assert (xb.dtype, yb.dtype) == (x_wanted.dtype, y_wanted.dtype)


def test_data_that_are_on_the_device_stay_there(rng, monkeypatch):
    """Whatever is free; the kernel reads dense rows only."""
    there = SimpleNamespace(is_cupy_array=lambda array: True, device=array_api_compat.device)
    kernels = SimpleNamespace(free_memory=lambda: 0, gather=gather, DoubleBuffer=DoubleBuffer)
    monkeypatch.setattr(resident, "array_api_compat", there)
    monkeypatch.setattr(resident, "load_kernels", lambda library, name: kernels)
    x, y = rng.integers(0, 256, (3, 20), dtype=np.uint8), rng.integers(0, 9, 20)
    dense = np.ascontiguousarray(x.T)
    found = resident.batches_on_device(dense, y, batch_size=8, dtype="float32")
    assert type(found) is ResidentBatches and found.x is dense and found.y is y
    found = resident.batches_on_device(x.T, y[::-1], batch_size=8, dtype="float32")
    assert found.x.flags.c_contiguous and found.y.flags.c_contiguous
    np.testing.assert_array_equal(found.x, x.T)


def test_data_that_turn_out_not_to_fit_stream(rng, monkeypatch):
    def full(values):
        raise MemoryError("in pieces")

    kernels = SimpleNamespace(free_memory=lambda: 10**6, gather=gather, DoubleBuffer=DoubleBuffer)
    monkeypatch.setattr(resident, "load_kernels", lambda library, name: kernels)
    monkeypatch.setattr(resident, "asarray", full)
    x, y = rng.integers(0, 256, (9, 3), dtype=np.uint8), np.zeros(9, np.int64)
    made = resident.resident_or_streamed(x, y, dtype="float32", batch_size=4)
    assert type(made) is StreamedBatches


def test_what_fits():
    data = np.zeros((1000, 784), np.uint8), np.zeros(1000, np.int64)
    assert fits_on_device(*data, free=2 * 792_000)
    assert not fits_on_device(*data, free=2 * 792_000 - 2)


def test_bad_data_is_refused(rng):
    x, y = rng.integers(0, 256, (9, 2, 3), dtype=np.uint8), np.zeros(9, np.int64)

    def make(x=x, y=y, **options):
        return ResidentBatches(x, y, **({"batch_size": 4, "gather": gather} | options))

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
    x, y = rng.integers(0, 256, (9, 3), dtype=np.uint8), np.zeros(9, np.int64)
    for free, kind in ((10**6, ResidentBatches), (10, StreamedBatches)):
        kernels = SimpleNamespace(
            free_memory=lambda free=free: free, gather=gather, DoubleBuffer=DoubleBuffer
        )
        monkeypatch.setattr(resident, "load_kernels", lambda library, name: kernels)  # noqa: B023
        made = resident.resident_or_streamed(x, y, dtype="float32", batch_size=4, seed=1)
        assert type(made) is kind and made.seed == 1
