"""The parts of ``benchmarks.gpu`` on NumPy in the device's place: small, to see that they run."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu_timing, gpu_training
from benchmarks.gpu import FAILED
from xpmlp import ops
from xpmlp.bench.shapes import Net
from xpmlp.data.resident import ResidentBatches
from xpmlp.errors import DataError
from xpmlp.random import permutation
from xpmlp.training import TrainStep


class ByLayers:
    """A captured step without the capture."""

    def __init__(self, model, loss, optimizer, precision=None):
        self._step, self.optimizer = TrainStep(model, loss, optimizer), optimizer

    def __call__(self, x, y):
        return self._step.by_layers(x, y)

    def explain(self, x, y):
        return "captured"

    def run_epoch(self, batches, number=0):
        return np.array([self(x, y) for x, y in batches.epoch(number)]), None


def gather(x, y, x_out, y_out, *, mean, std, rows, batch, batches, seeds, shuffle, step, offset):
    order = permutation(len(x), seed=int(seeds[0]), epoch=offset // batches)
    chosen = order[offset % batches * batch :][:rows]
    x_out[...], y_out[...] = (x[chosen] - mean) / std, y[chosen]


@pytest.fixture
def on_numpy(monkeypatch):
    monkeypatch.setattr(gpu_training, "CapturedStep", ByLayers)
    monkeypatch.setattr(gpu_training, "_NET", Net((784, 12, 10), 64))
    monkeypatch.setattr(gpu_training, "_RACE_NET", Net((784, 12, 10), 64, "adam", 1e-2))
    monkeypatch.setattr(gpu_training, "_EPOCH_ROWS", 300)
    monkeypatch.setattr(gpu_training, "torch_on_cuda", lambda: None)
    monkeypatch.setattr(
        gpu_training, "ResidentBatches", lambda *a, **o: ResidentBatches(*a, gather=gather, **o)
    )
    monkeypatch.setattr(
        gpu_training, "seconds_of", lambda runs, seconds, wait: dict.fromkeys(runs, 5e-5)
    )


def by_name(rows):
    return {row.what: row for row in rows}


def test_the_step_part(on_numpy):
    rows = by_name(gpu_training.step(time.perf_counter() + 60))
    assert not [name for name in rows if name.startswith(FAILED)]
    figure = rows["784-512-512-10 at 512"]
    assert figure.met and figure.value == pytest.approx(50) and "plain CuPy" in figure.note
    assert rows["against torch"].value is None and rows["against torch"].bar == "≥ 4×"


def test_a_captured_step_that_differs_is_a_failure(on_numpy, monkeypatch):
    class Wrong(ByLayers):
        def __call__(self, x, y):
            return super().__call__(x, y) * 1.01

    monkeypatch.setattr(gpu_training, "CapturedStep", Wrong)
    first = next(iter(gpu_training.step(time.perf_counter() + 60)))
    assert first.what.startswith(FAILED) and first.met is False


def test_mnist_that_is_not_there_is_said(on_numpy, monkeypatch):
    def missing(name):
        raise DataError("set XPMLP_DATA")

    monkeypatch.setattr(gpu_training, "load_race", missing)
    rows = by_name(gpu_training.mnist(time.perf_counter() + 60))
    assert rows["an epoch of made-up rows, 300 rows"].bar == "≤ 12 ms"
    assert rows["98 % test accuracy"].note == "left out: set XPMLP_DATA"


def test_mnist_that_is_there(on_numpy, monkeypatch, rng):
    labels = rng.integers(0, 10, 600)
    x = np.zeros((600, 784), np.uint8)
    x[np.arange(600), 7 * labels] = 255
    data = {"x": x, "labels": labels, "x_test": x[:50], "labels_test": labels[:50]}
    monkeypatch.setattr(gpu_training, "load_race", lambda name: data)
    recipe = SimpleNamespace(
        context=nullcontext, run=lambda: {"seconds": 1.5, "accuracy": 0.9871, "epochs": 10}
    )
    monkeypatch.setattr(
        gpu_training, "solvers", lambda backend: {"recipe": lambda case, inputs: recipe}
    )
    rows = by_name(gpu_training.mnist(time.perf_counter() + 60))
    assert "100.00 %" in rows["98 % test accuracy, training alone"].note
    assert rows["default recipe"].met and rows["default recipe"].value == pytest.approx(98.71)


def test_the_suite_part_compares_both(monkeypatch):
    case = {"kind": "step", "name": "a", "wrong": {"torch": "off"}, "not_run": {}}
    case["results"] = {"xpmlp": {"median": 4e-4}, "xpmlp on cupy": {"median": 1e-4}}
    broken = {"kind": "step", "name": "b", "wrong": {}, "not_run": {"xpmlp on cupy": "no"}}
    record = {"cases": [case, broken | {"results": {}}]}
    monkeypatch.setattr(gpu_training, "run_suite", lambda **options: record)
    rows = by_name(gpu_training.suite(0.0))
    assert rows["step a: GPU over CPU"].value == pytest.approx(4)
    assert f"{FAILED}step b, xpmlp on cupy" in rows and "step a, torch" in rows


def test_calls_are_timed_in_groups():
    waits, calls = [], []

    def run():
        calls.append(0)
        time.sleep(1e-3)

    times = gpu_timing.seconds_of({"a": run}, 0.05, lambda: waits.append(0))
    assert 1e-3 <= times["a"] < 3e-3
    assert len(waits) < len(calls)


def test_single_operations_are_measured_and_checked(monkeypatch):
    """With NumPy as CuPy: tiny shapes, no torch."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    names = ["ones", "asarray", "tile", "ascontiguousarray", "multiply", "empty_like", "matmul"]
    fake = SimpleNamespace(**{name: getattr(np, name) for name in names})
    fake.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    sys.modules.pop("benchmarks.gpu_figures", None)
    from benchmarks import gpu_figures as figures

    def matmul(a, b):
        wide = np.matmul(a.astype(np.float32), b.astype(np.float32))
        return wide.astype(a.dtype)

    def loss(logits, labels):
        value, gradient = real(logits.astype(np.float32), labels)
        return np.asarray(value).astype(logits.dtype), gradient.astype(logits.dtype)

    real = ops.softmax_cross_entropy
    monkeypatch.setattr(figures, "ops", SimpleNamespace(matmul=matmul, softmax_cross_entropy=loss))
    monkeypatch.setattr(figures, "copy_speed", lambda: 1e10)
    monkeypatch.setattr(figures, "torch_on_cuda", lambda: None)
    monkeypatch.setattr(figures, "_SOFTMAX", (((16, 30), 0.85), ((64, 10), None)))
    monkeypatch.setattr(figures, "_PRODUCTS", ((3, 4, 5, 6),))
    monkeypatch.setattr(
        figures, "seconds_of", lambda runs, seconds, wait=None: dict.fromkeys(runs, 1e-6)
    )
    deadline = time.perf_counter() + 60
    try:
        rows = by_name(figures.softmax_cross_entropy(deadline))
        assert list(rows) == [
            f"({n}) {t}" for n in ("16, 30", "64, 10") for t in ("float32", "bfloat16")
        ]
        assert "plain CuPy" in rows["(64, 10) float32"].note
        assert rows["(16, 30) float32"].bar == "≥ 0.85 of a copy"
        products = by_name(figures.matmul(deadline))
        assert len([name for name in products if "against cupy.matmul" in name]) == 2
        assert not [name for name in (*rows, *products) if name.startswith(FAILED)]
        assert figures._noise(3, 4).shape == (3, 4)
        late = by_name(figures.matmul(0.0))
        assert all(row.note.startswith("left out") for row in late.values())
        # A product that is wrong is a failure, not a figure.
        monkeypatch.setattr(figures.ops, "matmul", lambda a, b: 1.1 * matmul(a, b))
        assert all(name.startswith(FAILED) for name in by_name(figures.matmul(deadline)))
    finally:
        sys.modules.pop("benchmarks.gpu_figures", None)
    assert ml_dtypes
