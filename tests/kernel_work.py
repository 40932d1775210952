"""What a process or thread is made to compute in tests/kernels/test_processes.py.

In a module of its own: a spawned child imports it by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from xpmlp import ops, optim
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.random import Generator
from xpmlp.training import TrainStep


def cross_entropy(rng):
    x, y = rng.normal(size=(20_000, 40)), rng.integers(0, 40, 20_000)
    return ops.softmax_cross_entropy(x, y)


def products(rng):
    a = rng.normal(size=(200, 64, 64)).astype(np.float32)
    b = rng.normal(size=(200, 64, 32)).astype(np.float32)
    return ops.matmul(a, b), ops.matmul(a.swapaxes(-1, -2), b)


def layer(rng):
    x, W, b = rng.normal(size=(300, 200)), rng.normal(size=(200, 90)), rng.normal(size=90)
    y = ops.linear(x, W, b, "tanh")
    return (y, *ops.linear_backward(y, x, W, y, "tanh"))


def gather(rng):
    x = rng.integers(0, 256, (500, 784), dtype=np.uint8)
    return (ops.gather_rows(x, rng.integers(0, 500, 700), 33.0, 78.0, dtype="float32"),)


def adam(rng):
    w, g, m, v = rng.random((4, 1200, 1000)).astype(np.float32)
    gains = {"gain1": 0.1, "gain2": 0.001, "correction1": 0.1, "correction2": 0.001}
    return ops.adam_update(w, g, m, v, lr=0.01, eps=1e-8, **gains)


def dropout(rng):
    x = rng.normal(size=(700, 1001)).astype(np.float32)
    return (ops.dropout(x, 0.3, Generator(3), 7),)


def training(rng):
    model = FullyConnectedNet([300, 64, 10], dropout=0.2, seed=1)
    step = TrainStep(model, SoftmaxCrossEntropy(), optim.AdamW(1e-3))
    x = rng.normal(size=(256, 300)).astype(np.float32)
    y = rng.integers(0, 10, 256)
    losses = [np.array(step(x, y)) for _ in range(5)]
    return (*losses, *model.params.values())


WORK: tuple[Callable, ...] = (cross_entropy, products, gather, adam, dropout, training, layer)


def digests(seeds: tuple[int, ...] = (0, 1)) -> list[str]:
    """A checksum of each piece of work's results on each data, in order."""
    return [digest(work, seed) for seed in seeds for work in WORK]


def digest(work: Callable, seed: int = 0) -> str:
    """A checksum of the bits of what one piece of work gives for the data of a seed."""
    results = work(np.random.default_rng(seed))
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in results)).hexdigest()
