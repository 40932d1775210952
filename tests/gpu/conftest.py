"""Tests that need a CUDA device. Elsewhere they are skipped, with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import xpmlp


@pytest.fixture
def cupy() -> Iterator:
    """CuPy as the current backend."""
    module = pytest.importorskip("cupy")
    with xpmlp.use_backend("cupy"):
        if os.environ.get("XPMLP_TEST_PLAIN_ALLOCATOR"):  # for compute-sanitizer
            module.cuda.set_allocator(None)
        yield module


@pytest.fixture
def poisoned(cupy, monkeypatch):
    """What launchers allocate is full of NaN bits: what a kernel does not write is seen."""
    from xpmlp.kernels.cuda import launch

    make = launch.empty

    def empty(shape, dtype):
        array = make(shape, dtype)
        if array.size:
            array.reshape(-1).view("uint8")[...] = 0xFF
        return array

    monkeypatch.setattr(launch, "empty", empty)
