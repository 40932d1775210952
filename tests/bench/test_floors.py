"""The floors: the larger of two times, each speed measured once, the fastest rival counting."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.bench import floors, timing
from xpmlp.bench.floors import Floors


@pytest.fixture
def measured(monkeypatch):
    """Speeds of 10 bytes and 2·n³/10 FLOPs a second, and the sizes that were asked for."""
    sizes = []
    monkeypatch.setattr(floors, "_copy_speed", lambda size, n: sizes.append((size, n)) or 10.0)
    monkeypatch.setattr(floors, "_numpy_product", lambda n: 10.0)
    return sizes


def test_the_slower_of_memory_and_products_is_the_floor(measured):
    machine = Floors(2)
    peak = 2.0 * 2048**3 / 10.0
    assert machine.product_speed() == peak
    assert machine.seconds(100.0, 0.0) == 10.0
    assert machine.seconds(100.0, 20.0 * peak) == 20.0
    assert machine.seconds(None, None) is None


def test_each_size_is_measured_once_and_small_ones_on_one_thread(measured):
    machine = Floors(2)
    for moved in (5000.0, 5001.0, 1e7):
        machine.copy_speed(moved)
    assert measured == [(4096, 1), (1 << 23, 1), (1 << 23, 2)]
    assert machine.to_json()["copy_gb_per_second"] == {"4096": 1e-8, str(1 << 23): 1e-8}


def test_a_faster_rival_lowers_the_floor(measured):
    machine = Floors(1)
    machine.rivals.append(lambda n: 5.0)
    assert machine.product_speed() == 2.0 * 2048**3 / 5.0


@pytest.mark.parametrize("threads", [1, 2])
def test_a_copy_copies_and_has_a_speed(monkeypatch, threads):
    monkeypatch.setattr(timing, "TICK_SECONDS", 0.0)
    copied = []
    monkeypatch.setattr(
        floors.np, "copyto", lambda to, source: copied.append((to.nbytes, source.nbytes))
    )
    assert floors._copy_speed(1 << 16, threads) > 0
    half = (1 << 15) // threads
    repeats = copied[0][0] // half
    assert set(copied) == {(half * repeats, half * repeats)} and repeats > 100
    rows = floors._repeated(8, 3)
    assert rows.shape == (3, 8) and np.shares_memory(rows[0], rows[2])
