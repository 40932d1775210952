"""Part of ``benchmarks.gpu``: the same training step on CPU and GPU, over batch and width."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpmlp import asarray, use_backend
from xpmlp.bench.report import duration
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.training import TrainStep

from .gpu import Row, guarded, sized
from .gpu_timing import times_of

WIDTHS = tuple(sized(width, width // 16) for width in (64, 256, 1024, 4096))
BATCHES = tuple(sized(batch, batch // 8) for batch in (16, 128, 1024, 8192))
_INPUTS, _CLASSES = 784, 10
_MOST_WORK = 3e12  # floating-point operations of a step, about ten seconds of a CPU
_CPU_SECONDS, _GPU_SECONDS = 0.5, 0.15


def places(deadline: float) -> Iterator[Row]:
    """784-width-width-10 under Adam: how many times as long the CPU takes."""
    for width in WIDTHS:
        for batch in BATCHES:
            what = f"784-{width}-{width}-10 at {batch}"
            work = 6.0 * batch * width * (_INPUTS + width + _CLASSES)
            if work > _MOST_WORK or time.perf_counter() > deadline - 3:
                why = "too much for the CPU" if work > _MOST_WORK else "no time was left"
                yield Row(what, note=f"left out: {why}")
                continue
            yield from guarded(what, _both(what, width, batch))


def _both(what: str, width: int, batch: int) -> Iterator[Row]:
    with use_backend("numpy"):
        cpu = _on_cpu(_step(width, batch))
    run = _step(width, batch)
    run()
    gpu = times_of({"gpu": run}, _GPU_SECONDS, record=False)["gpu"].device
    note = f"CPU {duration(cpu)}, GPU {duration(gpu)}"
    data = {"width": width, "batch": batch, "cpu": cpu, "gpu": gpu}
    yield Row(what, cpu / gpu, "×", note=note, data=data)


def _step(width: int, batch: int) -> Callable[[], Any]:
    """A step as a training makes it, on the current backend."""
    rng = np.random.default_rng(0)
    x = asarray(rng.standard_normal((batch, _INPUTS), dtype=np.float32))
    y = asarray(rng.integers(0, _CLASSES, batch))
    model = FullyConnectedNet([_INPUTS, width, width, _CLASSES])
    step = TrainStep(model, SoftmaxCrossEntropy(), Adam(1e-3))
    return lambda: step(x, y)


def _on_cpu(run: Callable[[], Any]) -> float:
    """The least of a few: nobody else is to count."""
    run()
    values: list[float] = []
    begin = time.perf_counter()
    while not values or (len(values) < 200 and time.perf_counter() - begin < _CPU_SECONDS):
        start = time.perf_counter()
        run()
        values.append(time.perf_counter() - start)
    return float(np.median(values))


def warm_up() -> None:
    """Compiles what the CPU's steps need."""
    with use_backend("numpy"):
        for batch in BATCHES[:2]:
            _step(WIDTHS[0], batch)()
