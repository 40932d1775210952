"""A training step of a small convolutional network beside PyTorch's and JAX's.

conv(1 → 16, 3 × 3) – ReLU – pool – conv(16 → 32, 3 × 3) – ReLU – pool – linear, on 128 images of
28 × 28, with SGD and momentum. Steps of all take turns in one process, and the shortest counts::

    python benchmarks/convolution.py                # as many threads as there are cores
    python benchmarks/convolution.py --threads 1
    python benchmarks/convolution.py --memory xpmlp # peak memory of a process with one of them
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable

import numpy as np

ROWS, CLASSES = 128, 10


def batch(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and their classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 1, 28, 28)).astype("float32")
    return x, rng.integers(0, CLASSES, rows)


def ours(rows: int = ROWS) -> Callable[[], object]:
    """xpmlp's step."""
    from xpmlp.losses import SoftmaxCrossEntropy
    from xpmlp.models import ConvNet
    from xpmlp.optim import SGD
    from xpmlp.training import TrainStep

    x, y = batch(rows)
    model = ConvNet([(1, 28, 28), 16, 32, CLASSES])
    step = TrainStep(model, SoftmaxCrossEntropy(), SGD(0.01, momentum=0.9))
    return lambda: step(x, y)


def torch_eager(rows: int = ROWS) -> Callable[[], object]:
    """PyTorch's, as its tutorials write it."""
    import torch
    from torch import nn

    x, y = (torch.tensor(array) for array in batch(rows))
    blocks = []
    for before, after in ((1, 16), (16, 32)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32 * 7 * 7, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss = nn.CrossEntropyLoss()

    def step() -> object:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value

    return step


def jax_jit(rows: int = ROWS) -> Callable[[], object]:
    """JAX's, all of a step under one ``jit``."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    x, y = (jnp.asarray(array) for array in batch(rows))
    rng = np.random.default_rng(0)
    shapes = ((16, 1, 3, 3), (32, 16, 3, 3), (32 * 7 * 7, CLASSES))
    biases = (16, 32, CLASSES)
    params = [
        (jnp.asarray(0.1 * rng.normal(size=shape), "float32"), jnp.zeros(size))
        for shape, size in zip(shapes, biases, strict=True)
    ]
    moments = jax.tree.map(jnp.zeros_like, params)

    def loss(params, x, y):
        for W, b in params[:2]:
            x = lax.conv_general_dilated(x, W, (1, 1), "SAME") + b[:, None, None]
            window = (1, 1, 2, 2)
            x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, window, window, "VALID")
        logits = x.reshape(x.shape[0], -1) @ params[2][0] + params[2][1]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)
        return -jnp.mean(chosen)

    @jax.jit
    def step(params, moments):
        value, grads = jax.value_and_grad(loss)(params, x, y)
        moments = jax.tree.map(lambda m, g: 0.9 * m + g, moments, grads)
        params = jax.tree.map(lambda p, m: p - 0.01 * m, params, moments)
        return params, moments, value

    state = [params, moments]

    def run() -> object:
        state[0], state[1], value = step(*state)
        return value.block_until_ready()

    return run


WAYS = {"xpmlp": ours, "torch": torch_eager, "jax.jit": jax_jit}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--memory", choices=tuple(WAYS))
    options = parser.parse_args()
    os.environ["XPMLP_NUM_THREADS"] = str(options.threads)
    if options.threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if options.memory:
        WAYS[options.memory](2)()  # what is loaded and compiled is no part of a step
        before = _peak()
        step = WAYS[options.memory]()
        for _ in range(5):
            step()
        print(f"{options.memory}: {_peak() - before:.0f} MB more than before, {_peak():.0f} in all")
        return
    import torch

    torch.set_num_threads(options.threads)
    steps = {name: make() for name, make in WAYS.items()}
    for step in steps.values():
        for _ in range(3):
            step()
    best = dict.fromkeys(steps, float("inf"))
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        for name, step in steps.items():
            for _ in range(2):
                begin = time.perf_counter()
                step()
                best[name] = min(best[name], time.perf_counter() - begin)
    for name, seconds in best.items():
        print(f"{name:8} {1e3 * seconds:8.2f} ms   {seconds / best['xpmlp']:.2f}×")


if __name__ == "__main__":
    main()
