"""What a device can refuse, and how that is said."""

from __future__ import annotations

import numpy as np
import pytest

import xpmlp
from xpmlp import ops, optim
from xpmlp.errors import BackendError, OutOfMemoryError
from xpmlp.layers import Conv2D, Flatten, Linear, Sequential
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.step import CapturedStep

pytestmark = pytest.mark.gpu


def test_too_large_an_array_is_explained(cupy):
    from xpmlp.kernels.cuda import launch

    words = r"expected 134,217,728\.0 MiB of device memory .* MiB that are free, of .* MiB"
    with pytest.raises(OutOfMemoryError, match=words):
        launch.empty((1 << 45,), np.float32)


def test_a_step_that_is_too_large_is_explained_and_a_smaller_one_runs(cupy, rng):
    step = CapturedStep(FullyConnectedNet([8, 1 << 14, 4]), SoftmaxCrossEntropy(), optim.SGD(0.1))
    free, _ = cupy.cuda.runtime.memGetInfo()
    rows = free // (4 << 14)  # the first layer's outputs alone take all of it
    x = cupy.zeros((rows, 8), np.float32)
    with pytest.raises(OutOfMemoryError, match=r"expected .* got .* lower the batch size"):
        step(x, cupy.zeros(rows, np.int64))
    step(x[:64], cupy.zeros(64, np.int64))
    assert step.explain(x[:64], cupy.zeros(64, np.int64)) == "captured"


def test_a_kernel_that_does_not_compile_is_explained(cupy, monkeypatch):
    from xpmlp.kernels.cuda import launch, source

    monkeypatch.setattr(source, "read", lambda op: 'extern "C" __global__ void f() { mistake; }')
    launch._module.cache_clear()
    launch._kernel.cache_clear()
    try:
        with pytest.raises(BackendError, match=r"(?s)dropout.cu does not compile.*mistake"):
            ops.dropout(cupy.ones(8, np.float32), 0.5, xpmlp.random.Generator(0), 1)
    finally:
        launch._module.cache_clear()


def test_arrays_of_two_libraries_are_refused(cupy):
    with pytest.raises(BackendError, match="one library"):
        ops.matmul(cupy.ones((2, 2)), np.ones((2, 2)))
    model = FullyConnectedNet([4, 2])
    step = CapturedStep(model, SoftmaxCrossEntropy(), optim.SGD(0.1))
    with pytest.raises(BackendError, match="x from numpy"):
        step(np.ones((3, 4), np.float32), cupy.zeros(3, np.int64))


def test_capture_refuses_what_waits_for_the_device(cupy):
    """The proof that a captured step never does: the recorder finds a wait."""
    from xpmlp.kernels.cuda.graph import Recorder

    a = cupy.ones(4, np.float32)
    recorder = Recorder()
    recorder.rehearse(lambda: float(a.sum()))
    with pytest.raises(RuntimeError):
        recorder.record(lambda: float(a.sum()))
    replay, total = recorder.record(lambda: a.sum())  # and goes on working
    a[...] = 2
    replay()
    assert float(total) == 8


def test_what_an_op_cannot_record_runs_layer_by_layer(cupy, rng, monkeypatch):
    """Also where the op explains its errors as those of wrong arguments."""
    monkeypatch.setattr("xpmlp.ops.recordable._AT_ONCE", 100)  # nine arrays' addresses are sent
    model = Sequential(Conv2D(1, 2, 3, rng=0), Flatten(), Linear(8, 3, rng=1))
    step = CapturedStep(model, SoftmaxCrossEntropy(), optim.SGD(0.1))
    x = xpmlp.asarray(rng.normal(size=(5, 1, 4, 4)), dtype="float32")
    y = xpmlp.asarray(rng.integers(0, 3, 5))
    with pytest.warns(UserWarning, match="run layer by layer: RuntimeError: .*capturing"):
        first = float(step(x, y))
    assert step.explain(x, y).startswith("layer by layer")
    assert float(step(x, y)) < first
