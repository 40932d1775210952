"""The stand-in device refuses what a driver would, from what the compiled kernels say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from kernels.cuda import cubins, nvrtc, stand_in
from kernels.cuda.stand_in import empty

from xpmlp.kernels.cuda import geometry

LAUNCH = geometry.Launch("dropout_f32", (1, 1, 1), (256, 1, 1))
FAULTS = {
    r"512 threads in \(512, 1, 1\)": {"block": (512, 1, 1)},
    r"128 threads in \(1, 1, 128\)": {"block": (1, 1, 128)},
    r"blocks of \(0, 1, 1\) threads": {"block": (0, 1, 1)},
    r"a grid of \(1, 70000, 1\)": {"grid": (1, 70_000, 1)},
    r"a grid of \(0, 1, 1\)": {"grid": (0, 1, 1)},
    r"300000 bytes of dynamic shared memory": {"shared": 300_000},
}


@pytest.fixture(autouse=True)
def compiler():
    if nvrtc.library() is None:
        pytest.skip(nvrtc.MISSING)


@pytest.fixture
def dropout(shim):
    return cubins.compiled("dropout", "f32", "dropout_f32"), shim("dropout", "f32").letters


def test_a_launch_that_is_right(dropout):
    kernel, letters = dropout
    assert list(cubins.refusals(kernel, LAUNCH, letters["dropout_f32"])) == []


@pytest.mark.parametrize("words", FAULTS)
def test_sizes_that_no_device_has(dropout, words):
    kernel, letters = dropout
    fields = {name: getattr(LAUNCH, name) for name in ("kernel", "grid", "block", "shared")}
    plan = geometry.Launch(**fields | FAULTS[words])
    (refusal,) = cubins.refusals(kernel, plan, letters["dropout_f32"])
    assert re.search(words, refusal)


def test_arguments_that_are_not_the_kernels(dropout):
    kernel, letters = dropout
    for wrong in (letters["dropout_f32"][:-1], letters["dropout_f32"].replace("q", "i")):
        (refusal,) = cubins.refusals(kernel, LAUNCH, wrong)
        assert "arguments of [8, " in refusal


def test_clusters_divide_the_grid():
    name = "softmax_cross_entropy_cluster4_f32"
    kernel = cubins.compiled("softmax_cross_entropy", "f32", name)
    assert kernel.cluster == 4
    plan = geometry.Launch(name, (6, 1, 1), (512, 1, 1))
    found = list(cubins.refusals(kernel, plan, ""))
    assert "6 blocks in clusters of 4" in found


def test_the_device_looks_at_every_launch(monkeypatch, shim):
    device = stand_in.put_in_place(monkeypatch, shim)
    x, y = (empty((4, 4), np.float32) for _ in range(2))
    nothing = None, None, None, np.uint32(0), None, 0
    large = geometry.Launch("dropout_f32", (1, 1, 1), (1024, 1, 1))
    with pytest.raises(AssertionError, match=r"dropout_f32: 1024 threads in"):
        device.run("dropout", "f32", large, x, y, 16, np.int32(1), *nothing)
