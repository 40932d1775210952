"""The parts of ``benchmarks.gpu`` on NumPy in the device's place: small, to see that they run."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu_places, gpu_timing, gpu_training
from benchmarks.gpu import FAILED, Row
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


def fake_times(seconds):
    def times_of(runs, most, record=True):
        for run in runs.values():
            run()
        return {name: gpu_timing.Times(seconds, 2e-6) for name in runs}

    return times_of


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
    for module in (gpu_training, gpu_places):
        monkeypatch.setattr(module, "times_of", fake_times(5e-5))


def by_name(rows):
    return {row.what: row for row in rows}


def test_the_step_part(on_numpy):
    rows = by_name(gpu_training.step(time.perf_counter() + 60))
    assert not [name for name in rows if name.startswith(FAILED)]
    figure = rows["784-512-512-10 at 512"]
    assert figure.met and figure.value == pytest.approx(50) and "plain CuPy" in figure.note
    assert "ours by layers 2.0 µs" in figure.host
    assert rows["against torch"].value is None and rows["against torch"].bar == "≥ 4×"


def test_what_cannot_be_captured_leaves_the_other_figures(on_numpy, monkeypatch):
    class Refused(ByLayers):
        def __init__(self, *arguments, precision=None):
            super().__init__(*arguments)
            self.precision = precision
            if precision == "bf16":
                raise RuntimeError("no bfloat16 here")

        def explain(self, x, y):
            return "captured" if self.precision else "layer by layer (cuBLAS)"

    monkeypatch.setattr(gpu_training, "CapturedStep", Refused)
    rows = by_name(gpu_training.step(time.perf_counter() + 60))
    assert rows[f"{FAILED}capture, precision None"].note == "layer by layer (cuBLAS)"
    assert rows[f"{FAILED}capture, precision bf16"].note == "RuntimeError: no bfloat16 here"
    assert rows["784-512-512-10 at 512"].value is None
    assert "plain CuPy" in rows["784-512-512-10 at 512"].note


def test_one_figure_of_mnist_that_fails_leaves_the_others(on_numpy, monkeypatch, rng):
    def broken(*arguments):
        raise RuntimeError("out of registers")
        yield

    labels = rng.integers(0, 10, 600)
    data = {"x": np.zeros((600, 784), np.uint8), "labels": labels}
    monkeypatch.setattr(gpu_training, "load_race", lambda name: data)
    monkeypatch.setattr(gpu_training, "_epoch", broken)
    monkeypatch.setattr(gpu_training, "_race", broken)
    monkeypatch.setattr(gpu_training, "_recipe", lambda data: [Row("default recipe", 98.6)])
    rows = by_name(gpu_training.mnist(time.perf_counter() + 60))
    assert rows[f"{FAILED}an epoch"].note == "RuntimeError: out of registers"
    assert f"{FAILED}98 % test accuracy" in rows and rows["default recipe"].value == 98.6


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
    assert rows["98.5 % test accuracy, training alone"].value > 0
    assert rows["default recipe"].met and rows["default recipe"].value == pytest.approx(98.71)


def test_a_goal_that_is_not_reached_is_said(on_numpy, monkeypatch, rng):
    labels = rng.integers(0, 10, 300)
    x = np.zeros((300, 784), np.uint8)
    data = {"x": x, "labels": labels, "x_test": x[:50], "labels_test": labels[:50]}
    monkeypatch.setattr(gpu_training, "_MOST_EPOCHS", 2)
    rows = by_name(gpu_training._race(x, labels, data))
    first = rows["98 % test accuracy, training alone"]
    assert first.met is False and "2 epochs; not reached by all three" in first.note


def test_populations_are_compared_with_their_members(on_numpy, monkeypatch):
    monkeypatch.setattr(gpu_training, "_COUNT", 3)
    monkeypatch.setattr(gpu_training, "_MEMBERS", (Net((20, 5, 10), 8, "adam"),))
    (row,) = gpu_training.population(time.perf_counter() + 60)
    assert row.what == "3 × 20-5-10 at 8" and row.value == pytest.approx(1)
    assert "one after another" in row.note
    (row,) = gpu_training.population(0.0)
    assert row.note == "left out: no time was left"


def test_both_places_are_timed_over_batch_and_width(on_numpy, monkeypatch):
    """With NumPy in both."""
    monkeypatch.setattr(gpu_places, "WIDTHS", (8, 1 << 20))
    monkeypatch.setattr(gpu_places, "BATCHES", (4,))
    monkeypatch.setattr(gpu_places, "_CPU_SECONDS", 0.01)
    small, large = gpu_places.places(time.perf_counter() + 60)
    assert small.what == "784-8-8-10 at 4" and small.value == small.data["cpu"] / 5e-5
    assert large.note == "left out: too much for the CPU" and large.data is None
    assert all(row.note.startswith("left out") for row in gpu_places.places(0.0))


class FakeDevice:
    """Events whose clock stands still but for what is run."""

    def __init__(self, monkeypatch):
        self.now, self.recorded = 0.0, []
        event = type("Event", (), {"record": lambda own: setattr(own, "at", self.now)})
        elapsed = lambda begin, end: 1e3 * (end.at - begin.at)  # noqa: E731
        cuda = SimpleNamespace(Event=event, get_elapsed_time=elapsed)
        monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
        monkeypatch.setattr(gpu_timing, "wait_for_both", lambda: None)
        monkeypatch.setattr(gpu_timing, "recording_of", self.recording_of)

    def work(self, seconds):
        def run():
            self.now += seconds

        return run

    def recording_of(self, name, run):
        if name == "stubborn":
            return None
        self.recorded.append(name)
        return lambda: [run() for _ in range(20)]


def test_small_calls_are_recorded_and_large_ones_are_not(monkeypatch):
    device = FakeDevice(monkeypatch)
    runs = {"small": device.work(1e-5), "large": device.work(1e-2), "stubborn": device.work(1e-5)}
    times = gpu_timing.times_of(runs, 0.01)
    assert device.recorded == ["small"]
    assert times["small"].device == pytest.approx(1e-5) and times["small"].recorded
    assert times["large"].device == pytest.approx(1e-2) and times["large"].host is None
    note = gpu_timing.device_note(times)
    assert note == "small 10.0 µs, large 10000.0 µs, stubborn 10.0 µs (call by call)"
    assert gpu_timing.host_note(times).startswith("small ")
    device.recorded.clear()
    gpu_timing.times_of(runs, 0.01, record=False)
    assert device.recorded == []


def fails_once(function):
    answers = iter([RuntimeError("illegal address")])

    def run(*arguments):
        for answer in answers:
            raise answer
        return function(*arguments)

    return run


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
    monkeypatch.setattr(figures, "times_of", fake_times(1e-6))
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
        # One of the others that fails is left out; one of ours is a failure; the next case runs.
        fake.matmul = lambda a, b: 1 / 0
        without = by_name(figures.matmul(deadline))
        assert not [n for n in without if "cupy" in n or n.startswith(FAILED)]
        assert len(without) == 9
        monkeypatch.setattr(figures.ops, "softmax_cross_entropy", fails_once(loss))
        rows = by_name(figures.softmax_cross_entropy(deadline))
        assert rows[f"{FAILED}(16, 30) float32"].note == "RuntimeError: illegal address"
        assert rows["(16, 30) bfloat16"].value
        # A product that is wrong is a failure, not a figure.
        monkeypatch.setattr(figures.ops, "matmul", lambda a, b: 1.1 * matmul(a, b))
        assert all(name.startswith(FAILED) for name in by_name(figures.matmul(deadline)))
    finally:
        sys.modules.pop("benchmarks.gpu_figures", None)
    assert ml_dtypes
