"""Parts of ``benchmarks.gpu`` that train: one step, MNIST, and many networks at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpmlp import asarray, synchronize, to_numpy
from xpmlp.bench.cases import Case, initial_parameters, load_race
from xpmlp.bench.ours import solvers
from xpmlp.bench.report import duration
from xpmlp.bench.shapes import RECIPE, Net
from xpmlp.bench.timing import time_limit
from xpmlp.data.resident import ResidentBatches
from xpmlp.errors import DataError
from xpmlp.layers import Linear
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam
from xpmlp.step import CapturedStep
from xpmlp.training import TrainStep

from .gpu import FAILED, Row, guarded, sized
from .gpu_timing import device_note, host_note, times_of, torch_on_cuda, without_kernels

_NET = Net((784, *2 * (sized(512, 16),), 10), sized(512, 32))
_EPOCH_ROWS = sized(60_000, 200)
_GOALS: dict[float, float | None] = {0.98: 0.3, 0.985: None}
"""Test accuracy, and in how many seconds it is promised."""

_MOST_EPOCHS = sized(14, 1)
_COUNT = sized(64, 3)
_MEMBERS = (Net((784, 32, 10), sized(128, 16), "adam"), Net(_NET.sizes, _NET.batch, "adam"))
_RACE_NET = Net(_NET.sizes, _NET.batch, "adam", 2e-3)


def _model(net: Net) -> FullyConnectedNet:
    model = FullyConnectedNet(net.sizes)
    parameters = initial_parameters(net.sizes, np.random.default_rng(0))
    linears = [layer for layer in model.layers if isinstance(layer, Linear)]
    for number, layer in enumerate(linears):
        layer.W = asarray(parameters[f"W{number}"])
        layer.b = asarray(parameters[f"b{number}"])
    return model


def step(deadline: float) -> Iterator[Row]:
    """784-512-512-10 at 512: replays equal eager steps, then both are timed, and torch."""
    rng = np.random.default_rng(0)
    x = asarray(np.maximum(rng.standard_normal((512, 784), dtype=np.float32), 0))
    y = asarray(rng.integers(0, 10, 512))
    yield from guarded("replays against eager steps", _replays_equal_eager(x, y))
    yield from guarded("784-512-512-10 at 512", _steps(x, y, deadline))


def _steps(x: Any, y: Any, deadline: float) -> Iterator[Row]:
    runs: dict[str, Callable] = {}
    for precision in (None, "tf32", "bf16"):
        name = "ours" if precision is None else f"ours {precision}"
        try:
            made = CapturedStep(_model(_NET), SoftmaxCrossEntropy(), SGD(0.1), precision=precision)
            made(x, y)
            how = made.explain(x, y)
        except Exception as error:
            how = f"{type(error).__name__}: {error}"
        if how.startswith("captured"):
            runs[name] = lambda made=made: made(x, y)
        else:
            yield Row(f"{FAILED}capture, precision {precision}", note=how[:300])
    eager = TrainStep(_model(_NET), SoftmaxCrossEntropy(), SGD(0.1))
    runs["ours by layers"] = lambda: eager.by_layers(x, y)
    runs["plain CuPy"] = without_kernels(lambda: eager.by_layers(x, y))
    runs |= _torch_steps(x, y, deadline)
    for name in list(runs):
        try:
            runs[name]()
        except Exception as error:
            yield Row(f"{FAILED}{name}", note=f"{type(error).__name__}: {error}"[:300])
            del runs[name]
    times = times_of(runs, min(6.0, deadline - time.perf_counter() - 5), record=False)
    note, host = device_note(times), host_note(times)
    what = "784-512-512-10 at 512"
    if "ours" not in times:
        yield Row(what, bar="≤ 80 µs", note=note, host=host)
        return
    ours = times["ours"].device
    yield Row(what, 1e6 * ours, "µs", "≤ 80 µs", ours <= 80e-6, note, host)
    for name, bar in (("torch", 4.0), ("torch.compile reduce-overhead", 1.0)):
        if name in times:
            ratio = times[name].device / ours
            yield Row(f"against {name}", ratio, "×", f"≥ {bar:g}×", ratio >= bar)
        else:
            yield Row(f"against {name}", bar=f"≥ {bar:g}×", note="torch does not see the device")
    for name in ("ours tf32", "ours bf16"):
        if name in times:
            yield Row(f"{what}, {name}", 1e6 * times[name].device, "µs")


def _replays_equal_eager(x: Any, y: Any) -> Iterator[Row]:
    """A hundred steps of both."""
    net = Net(_NET.sizes, _NET.batch, "adam", 1e-3)
    eager = TrainStep(_model(net), SoftmaxCrossEntropy(), Adam(1e-3))
    replayed = CapturedStep(_model(net), SoftmaxCrossEntropy(), Adam(1e-3))
    gaps = []
    for _ in range(100):
        expected, value = float(eager.by_layers(x, y)), float(replayed(x, y))
        gaps.append(abs(value - expected) / max(abs(expected), 1e-3))
    worst = max(gaps)
    name = "largest gap of the loss, replayed and eager, 100 steps"
    yield Row(name if worst <= 1e-3 else FAILED + name, worst, "", "≤ 1e-3", worst <= 1e-3)


def _torch_steps(x: Any, y: Any, deadline: float) -> dict[str, Callable]:
    if torch_on_cuda() is None:
        return {}
    runs = {}
    for name in ("torch", "torch.compile reduce-overhead"):
        try:
            with time_limit(max(1.0, deadline - time.perf_counter() - 12)):
                runs[name] = _torch_step(to_numpy(x), to_numpy(y), name != "torch")
        except Exception as error:  # its compiler may be missing
            print(f"{name}: {type(error).__name__}: {error}")
    return runs


def _torch_step(x: np.ndarray, y: np.ndarray, compiled: bool) -> Callable[[], Any]:
    """Compiled, warmed up and recorded."""
    import torch

    from xpmlp.bench.peers.torch_eager import torch_solvers

    torch.backends.cuda.matmul.allow_tf32 = False

    def reduced(function: Callable) -> Callable:
        return torch.compile(function, dynamic=False, mode="reduce-overhead")

    lab: Any = torch_solvers(reduced if compiled else None, device="cuda")["step"].__self__
    _, train = lab.network(_NET, initial_parameters(_NET.sizes, np.random.default_rng(0)))
    batch = lab.tensor(x), lab.tensor(y)
    for _ in range(4):
        train(*batch)
    return lambda: train(*batch)


def compile_torchs_step() -> None:
    """For its compiler's cache."""
    if torch_on_cuda() is not None:
        rng = np.random.default_rng(0)
        _torch_step(rng.standard_normal((512, 784), np.float32), rng.integers(0, 10, 512), True)


def mnist(deadline: float) -> Iterator[Row]:
    """An epoch, the time to 98 %, and the default recipe; data from ``XPMLP_DATA``."""
    try:
        data = load_race("mnist")
    except DataError as error:
        made_up = np.random.default_rng(0).integers(0, 256, (_EPOCH_ROWS, 784), dtype=np.uint8)
        labels = np.random.default_rng(1).integers(0, 10, _EPOCH_ROWS)
        yield from guarded("an epoch", _epoch(made_up, labels, "made-up rows"))
        yield Row("98 % test accuracy", bar="≤ 0.3 s", note=f"left out: {error}")
        yield Row("default recipe", bar="≥ 98.5 %", note=f"left out: {error}")
        return
    rows = sized(len(data["x"]), _EPOCH_ROWS)
    x, labels = data["x"][:rows], data["labels"][:rows].astype(np.int64)
    yield from guarded("an epoch", _epoch(x, labels, "MNIST"))
    yield from guarded("98 % test accuracy", _race(x, labels, data))
    if rows < len(data["x"]) or time.perf_counter() > deadline - 10:
        yield Row("default recipe", bar="≥ 98.5 %", note="left out: no time was left")
        return
    yield from guarded("default recipe", _recipe(data))


def _recipe(data: dict[str, np.ndarray]) -> Iterator[Row]:
    solver = solvers("cupy")["recipe"](Case("recipe", "mnist", {"recipe": RECIPE}), data)
    with solver.context():
        result = solver.run()
    reached = result["accuracy"]
    note = f"{result['seconds']:.2f} s of training"
    yield Row("default recipe", 100 * reached, "%", "≥ 98.5 %", reached >= 0.985, note)


def _resident(x: np.ndarray, labels: np.ndarray, batch: int, seed: int = 0) -> ResidentBatches:
    options: dict[str, Any] = {"batch_size": batch, "seed": seed, "mean": 0.0, "std": 255.0}
    return ResidentBatches(asarray(x), asarray(labels), **options)


def _epoch(x: np.ndarray, labels: np.ndarray, what: str) -> Iterator[Row]:
    batches = _resident(x, labels, _NET.batch)
    for precision in (None, "tf32"):
        made = CapturedStep(_model(_NET), SoftmaxCrossEntropy(), SGD(0.1), precision=precision)
        made.run_epoch(batches, 0)
        times = []
        for number in range(1, 8):
            synchronize()
            begin = time.perf_counter()
            losses, _ = made.run_epoch(batches, number)
            values = to_numpy(losses)  # fetched once, at the end
            times.append(time.perf_counter() - begin)
            assert np.isfinite(values).all()
        median = float(np.median(times))
        name = f"an epoch of {what}, {len(x)} rows" + (f", {precision}" if precision else "")
        bar, met = ("≤ 12 ms", median <= 12e-3) if precision is None else ("", None)
        yield Row(name, 1e3 * median, "ms", bar, met, f"{duration(median / len(batches))} a step")


def _race(x: np.ndarray, labels: np.ndarray, data: dict[str, np.ndarray]) -> Iterator[Row]:
    """Training alone: compiling, recording and testing do not count."""
    test = asarray((data["x_test"] / np.float32(255)).astype(np.float32))
    found: dict[float, list[tuple[float, float, int]]] = {goal: [] for goal in _GOALS}
    for seed in (1, 2, 3):
        batches = _resident(x, labels, _RACE_NET.batch, seed)
        model = _model(_RACE_NET)
        made = CapturedStep(model, SoftmaxCrossEntropy(), Adam(_RACE_NET.lr), precision="tf32")
        start = model.state_dict()
        made.run_epoch(batches, 0)  # records
        model.load_state_dict(start)
        made.optimizer.steps, made.optimizer.state = 0, {}
        seconds, missing = 0.0, list(_GOALS)
        for epoch in range(_MOST_EPOCHS):
            synchronize()
            begin = time.perf_counter()
            made.run_epoch(batches, epoch)
            synchronize()
            seconds += time.perf_counter() - begin
            predicted = to_numpy(model.predict(test, batch_size=10_000))
            reached = float((predicted == data["labels_test"]).mean())
            last = epoch + 1 == _MOST_EPOCHS
            for goal in [goal for goal in missing if reached >= goal or last]:
                found[goal].append((seconds, reached, epoch + 1))
                missing.remove(goal)
            if not missing:
                break
    for goal, bar in _GOALS.items():
        seconds = sorted(found[goal])[1][0]
        reached = all(accuracy >= goal for _, accuracy, _ in found[goal])
        met = (seconds <= bar and reached) if bar else None
        note = ", ".join(f"{s:.3f} s, {100 * r:.2f} %, {e} epochs" for s, r, e in found[goal])
        what = f"{100 * goal:g} % test accuracy, training alone"
        if not reached:
            note += "; not reached by all three"
        yield Row(what, seconds, "s", f"≤ {bar} s" if bar else "", met, note)


def population(deadline: float) -> Iterator[Row]:
    """One captured step of 64 networks against 64 captured steps, one after another."""
    for net in _MEMBERS:
        what = f"{_COUNT} × {'-'.join(map(str, net.sizes))} at {net.batch}"
        if time.perf_counter() > deadline - 4:
            yield Row(what, note="left out: no time was left")
            continue
        yield from guarded(what, _population(what, net))


def _population(what: str, net: Net) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    x = asarray(rng.standard_normal((_COUNT, net.batch, net.sizes[0]), dtype=np.float32))
    y = asarray(rng.integers(0, net.sizes[-1], (_COUNT, net.batch)))
    seeds = list(range(_COUNT))
    together = CapturedStep(
        FullyConnectedNet(net.sizes, population=_COUNT, seed=seeds), SoftmaxCrossEntropy(), Adam()
    )
    alone = [
        CapturedStep(FullyConnectedNet(net.sizes, seed=seed), SoftmaxCrossEntropy(), Adam())
        for seed in seeds
    ]

    def one_after_another() -> None:
        for number, step in enumerate(alone):
            step(x[number], y[number])

    runs = {"together": lambda: together(x, y), "one after another": one_after_another}
    for run in runs.values():
        run()
    if not (how := together.explain(x, y)).startswith("captured"):
        yield Row(f"{FAILED}{what}", note=how)
    times = times_of(runs, 1.0, record=False)
    ratio = times["one after another"].device / times["together"].device
    yield Row(what, ratio, "× as fast", note=device_note(times), host=host_note(times))
