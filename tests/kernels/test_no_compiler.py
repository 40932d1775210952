"""Where numba cannot do its work, references run, and a warning says what that costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpmlp

pytest.importorskip("numba")
pytestmark = pytest.mark.slow

WORK = """
import warnings
import numpy as np
from xpmlp import ops
from xpmlp.errors import XpmlpError
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.random import Generator
from xpmlp.training import TrainStep

a, labels = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4), np.arange(4)
calls = {
    "linear": lambda: ops.linear(a, a, a[0]),
    "linear_backward": lambda: ops.linear_backward(a, a, a),
    "matmul": lambda: ops.matmul(a, a),
    "relu": lambda: ops.relu(a),
    "dropout": lambda: ops.dropout(a, 0.5, Generator(1), 2),
    "batch_norm": lambda: ops.batch_norm(a, a[0], a[1]),
    "layer_norm": lambda: ops.layer_norm(a, a[0], a[1]),
    "softmax_cross_entropy": lambda: ops.softmax_cross_entropy(a, labels),
    "adam_update": lambda: ops.adam_update(
        a, a, a, a * a, lr=0.1, eps=1e-8, gain1=0.1, gain2=0.1, correction1=1.0, correction2=1.0
    ),
    "gather_rows": lambda: ops.gather_rows(a, labels, dtype="float32"),
}
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    for name, call in calls.items():
        for _ in range(2):
            result = call()
            with ops.without_kernels():
                expected = call()
            np.testing.assert_equal(result, expected)
    try:
        ops.sgd_update(a, a, lr="fast")
    except XpmlpError:
        pass
    else:
        raise AssertionError("took a text for a rate")
    net = FullyConnectedNet([4, 8, 4], seed=1)
    loss = SoftmaxCrossEntropy()
    step = TrainStep(net, loss, Adam(0.1))
    values = [float(step(a, labels)) for _ in range(20)]
    assert values[-1] < values[0]
    how = step.explain(a, labels)
print(how)
print(ops.explain("relu", a))
for warning in told:
    print(warning.message)
"""
FAILING = """
import numba.core.compiler as compiler
def fail(*args, **kwargs):
    raise {error}
compiler.compile_extra = fail
"""


def run(code, folder, *first):
    root = str(Path(xpmlp.__file__).parents[1])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, first), root])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError('cannot select: v8f32')",
        "NotImplementedError('no such instruction')",
        "MemoryError()",
        "OSError(12, 'Cannot allocate memory')",
        "__import__('numba').core.errors.LoweringError('no vectors here')",
    ],
)
def test_what_numba_cannot_compile(tmp_path, error):
    how, explained, *told = run(FAILING.format(error=error) + WORK, tmp_path)
    assert how.startswith("layer by layer (numba cannot compile kernels here")
    assert "array-API reference" in explained and "numba cannot compile" in explained
    assert told and all("3 to 20 times" in line and "numba cannot compile" in line for line in told)
    assert len(told) == len(set(told))


@pytest.mark.parametrize("error", ["ImportError('libLLVM')", "AttributeError('x')", "OSError('y')"])
def test_a_numba_that_cannot_be_imported(tmp_path, error):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(f"raise {error}\n")
    how, explained, *told = run(WORK, tmp_path, tmp_path)
    assert how.startswith("layer by layer (numba cannot")
    assert "array-API reference" in explained
    assert told and all("3 to 20 times" in line for line in told)
    if error.startswith("ImportError"):
        assert len(told) == 1


def test_a_threading_layer_that_is_not_there(tmp_path):
    code = """
import warnings
from xpmlp.kernels.numba import threads
threads._count = 2
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    assert not threads.enter_parallel() and not threads.enter_parallel()
assert threads.parallel_threads() == 1
threads._region.acquire(blocking=False) or 1 / 0
print(*[warning.message for warning in told], sep="\\n")
"""
    code = "import numba; numba.config.THREADING_LAYER = 'no such layer'\n" + code
    told = run(code, tmp_path)
    assert told[0].startswith("kernels run on one thread: ") and "layer" in told[0]
