"""How much memory there is, and how many members fit into it."""

import numpy as np

from xpmlp import memory_budget
from xpmlp.memory_budget import bytes_per_member, free_bytes, members_that_fit, readable
from xpmlp.models import FullyConnectedNet


def test_estimate_covers_what_is_held_for_sure():
    sizes, batch = [20, 30, 5], 16
    net = FullyConnectedNet(sizes)
    weights = sum(array.nbytes for array in net.params.values())
    outputs = 4 * batch * sum(sizes[1:])
    # Parameters, gradients, best ones and Adam's two, and each layer's outputs and gradients.
    assert bytes_per_member(sizes, batch, slots=2) >= 5 * weights + 2 * outputs
    inputs = 4 * batch * sizes[0]
    own = bytes_per_member(sizes, batch, slots=2, own=True)
    assert own >= bytes_per_member(sizes, batch, slots=2) + inputs
    assert bytes_per_member(sizes, batch, itemsize=8) == 2 * bytes_per_member(sizes, batch)


def test_budget_is_divided():
    assert members_that_fit(100, 1050) == 10
    assert members_that_fit(100, 99) == 0


def test_free_memory_is_the_least_that_anybody_allows(monkeypatch):
    monkeypatch.setattr(memory_budget, "_free_of_machine", lambda: 5000)
    monkeypatch.setattr(memory_budget, "_free_of_group", lambda: 2000)
    assert free_bytes() == 2000 and members_that_fit(100) == 16  # some is left for the rest
    monkeypatch.setattr(memory_budget, "_free_of_group", lambda: None)
    assert free_bytes() == 5000
    monkeypatch.setattr(memory_budget, "_free_of_machine", lambda: None)
    assert free_bytes() is None and members_that_fit(100) is None


def test_free_memory_of_this_machine_is_believable():
    free = free_bytes()
    assert free is None or 10**6 < free < 10**14


def test_sizes_for_people():
    assert [readable(size) for size in (12, 1500, 2_340_000, 5e9, 7e15)] == [
        "12 B",
        "1.5 KB",
        "2.34 MB",
        "5 GB",
        "7e+03 TB",
    ]
    assert np.isfinite(free_bytes() or 0)
