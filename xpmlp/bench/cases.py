"""The cases: what is solved, on which inputs, and how much work that is at the least.

A case is a kind with settings; ``ours.py`` and ``peers/`` say who can solve which kind. Its inputs
are NumPy arrays made from one seed, so that every solver gets the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ConfigError
from . import shapes
from .shapes import FullTraining, Net, Race

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes
    ----------
    kind : str
        What is computed: a key of the solvers' tables.
    name : str
    settings : dict
        Whatever the kind needs.
    group : str
        ``"ops"``, ``"layers"`` or ``"training"``.
    quick : bool
        Whether ``--quick`` measures it.
    checked_calls : int
        After so many calls the results are compared; a training step shows its errors only in the
        losses that follow.
    """

    kind: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    group: str = "ops"
    quick: bool = False
    checked_calls: int = 1

    @property
    def title(self) -> str:
        """Kind and size."""
        return f"{self.kind} {self.name}"

    def for_check(self) -> Case:
        """The same without what is random by nature, so that its results can be compared."""
        net = self.settings.get("net")
        if self.kind == "step" and isinstance(net, Net) and net.dropout:
            return replace(self, settings=self.settings | {"net": replace(net, dropout=0.0)})
        return self

    def inputs(self) -> Arrays:
        """What all solvers are given, float32; the same at every call."""
        return _INPUTS[self.kind](self.settings, np.random.default_rng(231))

    def work(self) -> tuple[float | None, float | None]:
        """(bytes, FLOPs) that no solver can do without: every input read once, every result
        written once, every product computed. None where that says nothing. Of one of ``units``.
        """
        return _WORK[self.kind](self.settings) if self.kind in _WORK else (None, None)

    @property
    def units(self) -> int:
        """Of how many equal parts that follow each other it is made: an epoch, of its steps."""
        if self.kind != "epoch":
            return 1
        return math.ceil(self.settings["rows"] / self.settings["net"].batch)


def all_cases(quick: bool = False) -> list[Case]:
    """Every case, or those of ``--quick``; an epoch then has fewer rows."""
    cases = [*_op_cases(), *_layer_cases(), *_training_cases(quick)]
    return [case for case in cases if case.quick] if quick else cases


def select_cases(only: str | None = None, quick: bool = False) -> list[Case]:
    """The cases whose title has one of the words in ``only`` (separated by commas) in it.

    Raises
    ------
    ConfigError
        If a word fits no case; the message lists the kinds.
    """
    cases = all_cases(quick)
    if only is None:
        return cases
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    for word in words or [only]:
        if not words or not any(word in case.title.lower() for case in cases):
            kinds = ", ".join(dict.fromkeys(case.kind for case in cases))
            raise ConfigError(
                f"`xpmlp bench --only`: expected part of a case's name, got {word!r}; "
                f"{'with --quick ' if quick else ''}there are {kinds}, each with its sizes, "
                f"such as {cases[0].title!r}"
            )
    return [case for case in cases if any(word in case.title.lower() for word in words)]


def _op_cases() -> Iterator[Case]:
    for rows, classes in shapes.SOFTMAX_CROSS_ENTROPY:
        yield Case(
            "softmax_cross_entropy",
            f"{rows}×{classes}",
            {"rows": rows, "classes": classes},
            quick=(rows, classes) in shapes.SOFTMAX_QUICK,
        )
    for size in shapes.MATMUL:
        count, i, k, j = size
        for transposed in shapes.TRANSPOSES:
            yield Case(
                "matmul",
                f"{count}×({i}×{k}×{j}){' ' if transposed else ''}{transposed}",
                {"count": count, "i": i, "k": k, "j": j, "transposed": transposed},
                quick=size in shapes.MATMUL_QUICK and not transposed,
            )
    for sizes in shapes.ADAM:
        yield Case(
            "adam",
            "-".join(map(str, sizes)),
            {"sizes": sizes},
            quick=sizes in shapes.ADAM_QUICK,
            checked_calls=3,
        )


def _layer_cases() -> Iterator[Case]:
    for rows, inputs, outputs in shapes.LINEAR:
        yield Case(
            "linear",
            f"{rows}×{inputs}→{outputs}",
            {"rows": rows, "inputs": inputs, "outputs": outputs},
            group="layers",
            quick=(rows, inputs, outputs) in shapes.LINEAR_QUICK,
        )
    for kind in ("batch_norm", "layer_norm", "dropout"):
        for rows, features in shapes.ROWS:
            yield Case(
                kind,
                f"{rows}×{features}",
                {"rows": rows, "features": features},
                group="layers",
                quick=(rows, features) in shapes.ROWS_QUICK,
            )


def _training_cases(quick: bool) -> Iterator[Case]:
    for net in shapes.STEPS:
        yield Case("step", net.name, {"net": net}, "training", net.quick, checked_calls=5)
    for net in shapes.POPULATIONS:
        settings = {"net": net}
        yield Case("population_step", net.name, settings, "training", net.quick, checked_calls=5)
    rows = shapes.EPOCH_ROWS_QUICK if quick else shapes.EPOCH_ROWS
    net = shapes.EPOCH_NET
    epoch = {"net": net, "rows": rows}
    yield Case("epoch", f"{rows} rows, {net.name}", epoch, "training", quick=True)
    for race in shapes.RACES:
        name = f"{race.data} to {100 * race.accuracy:g} %, {race.net.name}"
        yield Case("time_to_accuracy", name, {"race": race}, "training", race.quick)
    recipe = {"recipe": shapes.RECIPE}
    yield Case("recipe", "mnist, all of xpmlp train mnist", recipe, "training")


# Inputs


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _softmax_inputs(s: dict[str, Any], rng: np.random.Generator) -> Arrays:
    logits = 3.0 * _normal(rng, s["rows"], s["classes"])
    return {"logits": logits, "labels": rng.integers(0, s["classes"], s["rows"])}


def _matmul_inputs(s: dict[str, Any], rng: np.random.Generator) -> Arrays:
    """A transposed operand is stored the other way round; solvers transpose it as a view."""
    a = (s["k"], s["i"]) if s["transposed"] == "aT" else (s["i"], s["k"])
    b = (s["j"], s["k"]) if s["transposed"] == "bT" else (s["k"], s["j"])
    return {"a": _normal(rng, s["count"], *a), "b": _normal(rng, s["count"], *b)}


def _linear_inputs(s: dict[str, Any], rng: np.random.Generator) -> Arrays:
    n, d, m = s["rows"], s["inputs"], s["outputs"]
    W = _normal(rng, d, m) / np.float32(math.sqrt(d))
    return {"x": _normal(rng, n, d), "W": W, "b": _normal(rng, m), "dy": _normal(rng, n, m)}


def _rows_inputs(s: dict[str, Any], rng: np.random.Generator) -> Arrays:
    n, d = s["rows"], s["features"]
    gamma, beta = 1 + 0.1 * _normal(rng, d), _normal(rng, d)
    return {"x": _normal(rng, n, d), "dy": _normal(rng, n, d), "gamma": gamma, "beta": beta}


def _adam_inputs(s: dict[str, Any], rng: np.random.Generator) -> Arrays:
    arrays = initial_parameters(s["sizes"], rng)
    grads = {f"d{name}": _normal(rng, *array.shape) for name, array in arrays.items()}
    return arrays | grads


def _step_inputs(s: dict[str, Any], rng: np.random.Generator) -> Arrays:
    net: Net = s["net"]
    rows, outputs = net.batch, net.sizes[-1]
    x = np.maximum(_normal(rng, rows, net.sizes[0]), 0)
    numbers = net.loss == "mse"
    targets = _normal(rng, rows, outputs) if numbers else rng.integers(0, outputs, rows)
    return initial_parameters(net.sizes, rng, net.members) | {"x": x, "targets": targets}


def _epoch_inputs(s: dict[str, Any], rng: np.random.Generator) -> Arrays:
    """Ten faint patterns under noise: a network learns them in an epoch, but not at once."""
    net: Net = s["net"]
    total = s["rows"] + 1000
    labels = rng.integers(0, 10, total)
    images = rng.integers(0, 160, (total, net.sizes[0]), dtype=np.uint8)
    images += rng.integers(0, 90, (10, net.sizes[0]), dtype=np.uint8)[labels]
    arrays = {"x": images[:-1000], "labels": labels[:-1000]}
    arrays |= {"x_test": images[-1000:], "labels_test": labels[-1000:]}
    return arrays | initial_parameters(net.sizes, rng)


def initial_parameters(
    sizes: Sequence[int], rng: np.random.Generator, members: int | None = None
) -> Arrays:
    """``W0 (D, M)``, ``b0 (M,)``, ``W1``, …: He's normal weights and no biases.

    With members, there is a leading axis of so many networks that differ.
    """
    arrays, lead = {}, () if members is None else (members,)
    for number, (d, m) in enumerate(pairwise(sizes)):
        arrays[f"W{number}"] = _normal(rng, *lead, d, m) * np.float32(math.sqrt(2 / d))
        arrays[f"b{number}"] = np.zeros((*lead, m), np.float32)
    return arrays


_INPUTS = {
    "softmax_cross_entropy": _softmax_inputs,
    "matmul": _matmul_inputs,
    "linear": _linear_inputs,
    "batch_norm": _rows_inputs,
    "layer_norm": _rows_inputs,
    "dropout": _rows_inputs,
    "adam": _adam_inputs,
    "step": _step_inputs,
    "population_step": _step_inputs,
    "epoch": _epoch_inputs,
    "time_to_accuracy": lambda s, rng: load_race(s["race"].data),
    "recipe": lambda s, rng: load_race("mnist"),
}


def load_race(data: str) -> Arrays:
    """A real data set as it is stored, flat uint8 rows; DataError if it is not on this machine."""
    from ..data import load_dataset

    found = load_dataset(data, download=False)
    return {
        "x": found.x_train.reshape(len(found.x_train), -1),
        "labels": found.y_train,
        "x_test": found.x_test.reshape(len(found.x_test), -1),
        "labels_test": found.y_test,
    }


# Work that cannot be avoided: (bytes, FLOPs). Elementwise FLOPs are left out, since memory and not
# arithmetic limits them.


def _softmax_work(s: dict[str, Any]) -> tuple[float, float]:
    return 4.0 * s["rows"] * (2 * s["classes"] + 2), 0.0


def _matmul_work(s: dict[str, Any]) -> tuple[float, float]:
    i, k, j = s["i"], s["k"], s["j"]
    return 4.0 * s["count"] * (i * k + k * j + i * j), 2.0 * s["count"] * i * k * j


def _linear_work(s: dict[str, Any]) -> tuple[float, float]:
    """x, W, dy read; y, dx, dW, db written; three products."""
    n, d, m = s["rows"], s["inputs"], s["outputs"]
    return 4.0 * (2 * n * d + 2 * d * m + 2 * n * m), 6.0 * n * d * m


def _rows_work(s: dict[str, Any]) -> tuple[float, float]:
    """x and dy read, y and dx written."""
    return 4.0 * 4 * s["rows"] * s["features"], 0.0


def parameter_count(sizes: Sequence[int]) -> int:
    """Weights and biases of a fully connected network."""
    return sum((d + 1) * m for d, m in pairwise(sizes))


def _adam_work(s: dict[str, Any]) -> tuple[float, float]:
    """w, g, m, v read; w, m, v written."""
    return 4.0 * 7 * parameter_count(s["sizes"]), 0.0


def _step_work(s: dict[str, Any]) -> tuple[float, float]:
    """The batch read, parameters and what the optimizer remembers read and written; three products
    a layer, but two in the first, whose input needs no gradient. A population shares its batch."""
    net: Net = s["net"]
    members = net.members or 1
    products = sum(d * m for d, m in pairwise(net.sizes))
    flops = 2.0 * members * net.batch * (3 * products - net.sizes[0] * net.sizes[1])
    passes = 2 if net.optimizer == "sgd" else 6
    parameters = members * parameter_count(net.sizes)
    return 4.0 * (net.batch * net.sizes[0] + passes * parameters), flops


def _epoch_work(s: dict[str, Any]) -> tuple[float, float]:
    """A step whose images are read as bytes."""
    net: Net = s["net"]
    moved, flops = _step_work(s)
    return moved - 3.0 * net.batch * net.sizes[0], flops


_WORK = {
    "softmax_cross_entropy": _softmax_work,
    "matmul": _matmul_work,
    "linear": _linear_work,
    "batch_norm": _rows_work,
    "layer_norm": _rows_work,
    "dropout": _rows_work,
    "adam": _adam_work,
    "step": _step_work,
    "population_step": _step_work,
    "epoch": _epoch_work,
}


def settings_as_json(case: Case) -> dict[str, Any]:
    """A case's settings as JSON gives them back: numbers, texts, lists and dicts."""
    return {name: _plain(value) for name, value in case.settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Net | Race | FullTraining):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value
