"""Whether all of it computes right on this machine: what ``xpmlp selfcheck`` runs.

Gradients against finite differences; published values; and every installed array library, with the
kernels and compiled steps that it has, against the reference: NumPy in float64 without kernels.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import asarray, ops, to_numpy, use_backend
from ..backend import NAMES, backend_problems
from ..choices import FloatName
from ..layers import Layer
from ..models import FullyConnectedNet
from ..ops.dispatch import CANDIDATES, kernel_summary
from ..optim import OPTIMIZERS
from ..step import TrainStep
from . import samples
from .gradcheck import gradcheck
from .published import CHECKS

GRADIENTS = 1e-6
PUBLISHED = 1e-12
AGREEMENT = 2e-5
"""Of float32 with float64, relative to the largest number of an array."""
TRAINED = 1e-3
"""The same of parameters after some steps, each of which makes the error larger."""
_STEPS = 4


@dataclass
class Check:
    """A line of the table.

    Attributes
    ----------
    what : str
    where : str
        On which array library.
    count : int
        How many cases.
    worst, allowed : float
        The largest relative error, and what it may be.
    failures : list of str
        Cases that are wrong, and how.
    seconds : float
    note : str
        What runs there, or why nothing does.
    """

    what: str
    where: str
    count: int = 0
    worst: float = 0.0
    allowed: float = AGREEMENT
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether all of its cases were right; without any, whether the note says why."""
        return not self.failures and bool(self.count or self.note)

    def run(self, cases: dict[str, Callable[[], float]]) -> Check:
        """Try each case, which gives its error or raises."""
        start = time.perf_counter()
        for name, case in cases.items():
            self.count += 1
            try:
                error = case()
            except Exception as problem:
                self.failures.append(f"{name}: {type(problem).__name__}: {problem}")
                continue
            self.worst = max(self.worst, error) if np.isfinite(error) else float("inf")
            if not error <= self.allowed:
                self.failures.append(f"{name}: error {error:.2g}, allowed {self.allowed:.0e}")
        self.seconds = time.perf_counter() - start
        return self


def selfcheck(libraries: tuple[str, ...] = NAMES) -> Iterator[Check]:
    """All checks, one after the other, each as soon as it is done.

    Parameters
    ----------
    libraries : tuple of str
        Which array libraries; those that are not installed are passed over.

    Yields
    ------
    Check
    """
    with warnings.catch_warnings(), use_backend("numpy"):
        warnings.simplefilter("ignore")  # of libraries; a wrong number is what is looked for
        yield Check("gradients of layers", "numpy", allowed=GRADIENTS).run(_layer_gradients())
        yield Check("gradients of losses", "numpy", allowed=GRADIENTS).run(_loss_gradients())
        yield Check("published values (CS231n)", "numpy", allowed=PUBLISHED).run(
            {check.__name__: _published(check) for check in CHECKS}
        )
    problems = backend_problems(libraries)
    for name in libraries:
        if problems[name] is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from _library(name)


def _library(name: str) -> Iterator[Check]:
    """The checks of one array library."""
    with use_backend(name):
        yield Check("layers", name).run(_compared(_layer, _layer_cases(), name))
        losses = {case: (case,) for case in samples.LOSSES}
        yield Check("losses", name).run(_compared(_loss, losses, name))
        rules = {case: (case,) for case in OPTIMIZERS}
        yield Check("optimizers", name).run(_compared(_optimizer, rules, name))
        steps = {case: (case,) for case in _NETWORKS}
        yield Check("training steps", name, allowed=TRAINED).run(_compared(_training, steps, name))
        if any(library == name for _, library in CANDIDATES):
            yield _kernels(name)


def _kernels(name: str) -> Check:
    """Each kernel of a library beside the op's reference there."""
    check, what_runs = Check("kernels", name), kernel_summary(name)
    if what_runs.startswith("array-API reference"):
        check.note = what_runs
        return check
    calls = samples.kernel_calls(np.random.default_rng(0))
    own = dict.fromkeys(op for op, library in CANDIDATES if library == name)
    return check.run({op: _kernel_case(op, *calls[op]) for op in own})


def _kernel_case(op: str, given: tuple[Any, ...], options: dict[str, Any]) -> Callable[[], float]:
    def case() -> float:
        run = getattr(ops, op)
        arrays = tuple(asarray(a) if isinstance(a, np.ndarray) else a for a in given)
        actual = _flat(run(*arrays, **options))
        with ops.without_kernels():
            expected = _flat(run(*arrays, **options))
        return _error(actual, expected)

    return case


def _compared(
    outcome: Callable[..., list[Any]], cases: dict[str, tuple[Any, ...]], name: str
) -> dict[str, Callable[[], float]]:
    """Cases of ``outcome(dtype, …)`` on a library in float32, beside the reference."""

    def of(given: tuple[Any, ...]) -> Callable[[], float]:
        def case() -> float:
            actual = outcome("float32", *given)
            with use_backend("numpy"), ops.without_kernels():
                expected = outcome("float64", *given)
            return _error(actual, expected)

        return case

    return {case: of(given) for case, given in cases.items()}


def _layer_cases() -> dict[str, tuple[str, bool]]:
    return {
        f"{name} ({'training' if training else 'evaluation'})": (name, training)
        for name in samples.LAYERS
        for training in ((True, False) if name in samples.MODES else (True,))
    }


def _layer_gradients() -> dict[str, Callable[[], float]]:
    def of(name: str, training: bool) -> Callable[[], float]:
        def case() -> float:
            x = samples.input_of(name, np.random.default_rng(231))
            layer, fixed = samples.LAYERS[name]("float64"), samples.fixed_of(name)
            return gradcheck(layer, x, training=training, fixed=fixed)

        return case

    return {case: of(*given) for case, given in _layer_cases().items()}


def _loss_gradients() -> dict[str, Callable[[], float]]:
    def of(name: str) -> Callable[[], float]:
        def case() -> float:
            outputs, targets = samples.loss_inputs(name, np.random.default_rng(231))
            return gradcheck(samples.LOSSES[name](), outputs, targets)

        return case

    return {name: of(name) for name in samples.LOSSES}


def _published(check: Callable[[], Any]) -> Callable[[], float]:
    def case() -> float:
        return max(_error([ours], [theirs]) for ours, theirs in check().values())

    return case


# What is compared: each function computes the same in either precision, on the current backend.


def _layer(dtype: FloatName, name: str, training: bool) -> list[Any]:
    rng = np.random.default_rng(231)
    layer = _at_home(samples.LAYERS[name], dtype)
    x = _rounded(samples.input_of(name, rng), dtype)
    y = layer.forward(x, training)
    dy = _rounded(rng.normal(size=tuple(y.shape)), dtype)
    dx = layer.backward(dy)
    return [y, dx, *_sorted(layer.grads), *_sorted(layer.state)]


def _loss(dtype: str, name: str) -> list[Any]:
    outputs, targets = samples.loss_inputs(name, np.random.default_rng(231))
    loss = samples.LOSSES[name]()
    numbers = asarray(targets) if targets.dtype.kind in "iu" else _rounded(targets, dtype)
    return [loss.forward(_rounded(outputs, dtype), numbers), loss.backward()]


def _optimizer(dtype: str, name: str) -> list[Any]:
    rng = np.random.default_rng(231)
    optimizer: Any = OPTIMIZERS[name](0.01)
    params = {"w": _rounded(rng.normal(size=(6, 5)), dtype)}
    for _ in range(3):
        params = optimizer.update(params, {"w": _rounded(rng.normal(size=(6, 5)), dtype)})
    return [params["w"]]


_NETWORKS: dict[str, dict[str, Any]] = {
    "relu": {},
    "gelu, layer norm": {"activation": "gelu", "normalization": "layernorm"},
    "batch norm, dropout": {"normalization": "batchnorm", "dropout": 0.3},
    "population": {"population": 3, "dropout": [0.0, 0.2, 0.4]},
}


def _training(dtype: FloatName, name: str) -> list[Any]:
    rng = np.random.default_rng(231)
    net: Any = _at_home(
        lambda kind: FullyConnectedNet([12, 16, 8, 4], seed=0, dtype=kind, **_NETWORKS[name]), dtype
    )
    step = TrainStep(net, samples.CLASSIFIERS["ce"](), OPTIMIZERS["sgd"](0.1, momentum=0.9))
    values = [
        step(_rounded(rng.normal(size=(20, 12)), dtype), asarray(rng.integers(0, 4, 20)))
        for _ in range(_STEPS)
    ]
    return [*map(_copied, values), *_sorted(net.state_dict())]


def _at_home(make: Callable[[FloatName], Layer], dtype: FloatName) -> Layer:
    """A layer of the numbers that it has in float32, on the current backend."""
    with use_backend("numpy"):
        numbers = make("float32").state_dict()
    layer = make(dtype)
    for _, inner in layer.named_layers():
        for group in (inner.params, inner.state):
            group.update({key: asarray(to_numpy(value)) for key, value in group.items()})
    layer.load_state_dict(numbers)
    return layer


def _rounded(values: Any, dtype: str) -> Any:
    """Numbers that float32 has too, on the current backend."""
    return asarray(np.asarray(values, dtype="float32").astype(dtype))


def _copied(value: Any) -> np.ndarray:
    return np.array(to_numpy(value))


def _sorted(arrays: dict[str, Any]) -> list[Any]:
    return [arrays[name] for name in sorted(arrays)]


def _flat(result: Any) -> list[Any]:
    parts = result if isinstance(result, tuple) else (result,)
    return [part for part in parts if part is not None]


def _error(actual: list[Any], expected: list[Any]) -> float:
    """The largest difference, relative to the largest number of its array, at least 1."""
    worst = 0.0
    for ours, theirs in zip(actual, expected, strict=True):
        a, b = (np.asarray(_copied(v) if hasattr(v, "dtype") else v, float) for v in (ours, theirs))
        if a.shape != b.shape or np.isfinite(a).all() != np.isfinite(b).all():
            return float("inf")
        scale = max(1.0, float(np.abs(b).max(initial=0.0)))
        worst = max(worst, float(np.abs(a - b).max(initial=0.0)) / scale)
    return worst
