"""A suite that is quick to run: no rests, tiny sizes, the peers that are always there."""

from __future__ import annotations

import pytest

from xpmlp.bench import free_choice, shapes, timing


@pytest.fixture(autouse=True)
def nothing_is_forced(monkeypatch):
    """Where the tests run, a variable may keep a library from its own code."""
    for name in free_choice.FORCING:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hasty(monkeypatch):
    """Times that say nothing, got in no time."""
    monkeypatch.setattr(timing, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(timing, "MOST_REST_SECONDS", 0.0)
    monkeypatch.setattr(timing, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(timing, "GROUP_SECONDS", 0.0)


@pytest.fixture
def tiny(monkeypatch, hasty):
    """Few and small cases of every kind; all of them quick."""
    net = shapes.Net((20, 6, 3), 8, quick=True)
    deep = shapes.Net((20, 6, 5, 3), 8, "adamw", 1e-3, batchnorm=True, dropout=0.2, quick=True)
    numbers = shapes.Net((5, 4, 2), 8, lr=0.05, members=3, loss="mse", quick=True)
    classes = shapes.Net((5, 4, 3), 8, members=2)
    replaced = {
        "SOFTMAX_CROSS_ENTROPY": ((6, 3), (4, 50)),
        "SOFTMAX_QUICK": ((6, 3),),
        "MATMUL": ((5, 2, 3, 4),),
        "MATMUL_QUICK": (),
        "LINEAR": ((4, 3, 2),),
        "ROWS": ((64, 8),),
        "ADAM": ((3, 2),),
        "STEPS": (net, deep),
        "POPULATIONS": (numbers, classes),
        "EPOCH_ROWS_QUICK": 4000,
        "RACES": (),
    }
    for name, value in replaced.items():
        monkeypatch.setattr(shapes, name, value)
