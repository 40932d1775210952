"""A second process compiles nothing: whatever a first one compiled is found in numba's cache.

What a cached function closes over is part of the cache's key. A compiled function or a class made
on the way is another one in every process; closed over, it would make the cache useless, and
nothing but the seconds that users wait would show it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

PROGRAM = """
import numpy as np
from numba.core import compiler

compiled = []
compile_extra = compiler.compile_extra

def told(typingctx, targetctx, func, *args, **kwargs):
    compiled.append(f"{func.__module__}.{func.__qualname__}")
    return compile_extra(typingctx, targetctx, func, *args, **kwargs)

compiler.compile_extra = told

from xpmlp import ops
from xpmlp.kernels.numba import gemm, instructions
from xpmlp.random import Generator

dtype = np.dtype("float32")
for name in instructions.__all__:
    found = [getattr(instructions, name)]
    while found:
        one = found.pop()
        if isinstance(one, (dict, tuple)):
            found += one.values() if isinstance(one, dict) else one
        elif callable(one):
            one(dtype)
gemm.product(dtype), gemm.square_product(dtype)

x, W, b = (np.ones(shape, dtype) for shape in ((80, 90), (90, 70), 70))
y = ops.linear(x, W, b)
ops.linear_backward(y, x, W)
ops.matmul(x, W)
ops.relu_backward(y, y, ops.relu(y))
ops.dropout(x, 0.5, Generator(0), 0)
for norm in ("batch_norm", "layer_norm"):
    kept = getattr(ops, norm)(y, b, b)[1:]
    getattr(ops, f"{norm}_backward")(y, y, b, *kept)
ops.softmax_cross_entropy(y, np.zeros(80, int))
ops.softmax_cross_entropy(y, y * 0)
ops.sgd_update(W, W, lr=0.1)
ops.adam_update(W, W, W, W, lr=0.1, gain1=0.1, gain2=0.1, correction1=1.0, correction2=1.0, eps=1.0)
ops.gather_rows(np.ones((4, 3), np.uint8), np.array([2, 0]), dtype="float32")
print(len(compiled), *compiled)
"""


def compiled(environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def test_a_second_process_compiles_nothing():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "XPMLP_NUM_THREADS": "2"}
    compiled(environment)
    assert compiled(environment) == "0"
