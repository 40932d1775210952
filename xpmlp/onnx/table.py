"""Estimators of tables as ONNX, with everything that happens to a row before and after the network.

The graph has an input for each column, as the data frame has it: numbers and truth values are
float64 with NaN for a missing one, dates are seconds, categories and text are strings. What is
learnt of the columns is computed in float64, as in Python, so that a number meets the same edge of
a bin.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.tables import NumberCodes, TableEncoder
from ..data.tables.codes import CLIP, NumberCode
from ..data.tables.columns import BOOLEAN, DATE, NUMBER
from ..data.tables.encoder import PERIODS, ColumnCode
from ..errors import ConfigError
from ..files import write_atomically
from ..models import FullyConnectedNet
from .dates import Dates
from .graph import BATCH, Graph, Value, import_onnx
from .layers import WHERE, emit, write_codes

_HUGE = 1e100  # far beyond what the smooth clip tells apart, and squares of it are finite
_LEAST = 1e-300  # as in calibration.temper


@dataclass(frozen=True)
class Classes:
    """What a classifier answers: ``probabilities`` (N, C) and ``label`` (N,).

    Attributes
    ----------
    labels : ndarray, shape (C,)
    temperature : float
        Of the calibration.
    """

    labels: np.ndarray
    temperature: float


@dataclass(frozen=True)
class Numbers:
    """What a regressor answers: ``prediction`` (N, M), or (N,).

    Attributes
    ----------
    scale, center : ndarray, shape (M,)
        What standardized outputs are multiplied by, and then raised by.
    low, high : ndarray, shape (M,)
        Bounds of the prediction.
    single : bool
        Whether it is (N,).
    """

    scale: np.ndarray
    center: np.ndarray
    low: np.ndarray
    high: np.ndarray
    single: bool


def export_table(
    path: str | os.PathLike[str],
    encoder: TableEncoder,
    codes: NumberCodes,
    network: FullyConnectedNet,
    answer: Classes | Numbers,
) -> Path:
    """Write a fitted table estimator as one file; its method ``export_onnx`` calls this.

    Raises
    ------
    ConfigError
        For a column whose empty text may be a missing value or not, for labels that are
        neither text nor numbers, and for names that the graph needs itself.
    CheckpointError
        If the file cannot be written; nothing is left behind then.
    MissingDependencyError
        Without the ``onnx`` library.
    """
    graph = Graph(import_onnx(), "float32")
    x = _inputs(graph, encoder, codes)
    columns = network.config["columns"]
    if columns is None:  # it takes the codes themselves
        x = write_codes(graph, codes.columns, x, "codes")
    y = emit(graph, network, x, "")
    if isinstance(answer, Classes):
        _classes(graph, answer, _mean(graph, graph.node("Softmax", [y], "members", axis=-1)))
    else:
        _numbers(graph, answer, _mean(graph, y))
    write_atomically(path, graph.finish())
    return Path(path)


def _inputs(graph: Graph, encoder: TableEncoder, codes: NumberCodes) -> Value:
    """A column for each of ``codes.columns``, as ``NumberCodes.positions`` gives them."""
    parts: list[Value] = []
    place = 0
    for column in encoder.codes:
        own = codes.codes[place : place + len(column.names())]
        place += len(own)
        parts += WRITERS.get(column.kind, _category)(graph, column, own)
    x = graph.node("Concat", parts, "inputs", (BATCH, len(parts)), axis=1)
    return graph.cast(x, graph.dtype, "inputs")


def _number(graph: Graph, column: ColumnCode, own: Sequence[NumberCode]) -> list[Value]:
    """A number, and whether it is missing."""
    at = column.name
    x = graph.declare(at, (BATCH, 1), "float64")
    missing = graph.node("IsNaN", [x], at)
    if column.fill is not None:
        x = graph.node(
            "Where", [missing, graph.constant(f"{at}/fill", column.fill, "float64"), x], at
        )
    parts = _coded(graph, own[0], x, at) if own[0].kept else []
    if column.flag and own[1].kept:
        parts.append(graph.cast(missing, "float64", at))
    return parts


def _coded(graph: Graph, code: NumberCode, x: Value, at: str) -> list[Value]:
    """Scaled, in bins, and which of the telling values it is."""

    def of(op: str, a: Value, name: str, values: Any) -> Value:
        constant = graph.constant(f"{at}/{name}", values, "float64")
        shape = (BATCH, int(np.size(values)))
        return graph.node(op, [a, constant], at, shape)

    def total(a: Value) -> Value:
        axis = graph.constant(f"{at}/axis", [1], "int64")
        return graph.node("ReduceSum", [a, axis], at, (BATCH, 1), keepdims=1)

    if code.spread == 0.0:
        return [x]
    z = of("Div", of("Sub", x, "center", code.center), "spread", code.spread)
    least, most = (
        graph.constant(f"{at}/{n}", v, "float64") for n, v in (("least", -_HUGE), ("most", _HUGE))
    )
    z = graph.node("Clip", [z, least, most], at)
    ratio = of("Div", z, "clip", CLIP)
    square = of("Add", graph.node("Mul", [ratio, ratio], at), "one", 1.0)
    parts = [graph.node("Div", [z, graph.node("Sqrt", [square], at)], at)]
    if code.edges:
        edges = np.asarray(code.edges)
        inside = of("Div", of("Sub", x, "edges", edges[:-1]), "widths", np.diff(edges))
        bounds = [
            graph.constant(f"{at}/{n}", v, "float64") for n, v in (("empty", 0.0), ("full", 1.0))
        ]
        parts.append(total(graph.node("Clip", [inside, *bounds], at)))
    if code.values:
        equal = graph.cast(of("Equal", x, "values", code.values), "float64", at)
        number = total(of("Mul", equal, "numbers", np.arange(1.0, len(code.values) + 1.0)))
        parts.append(of("Sub", number, "one", 1.0))
    return parts


def _category(graph: Graph, column: ColumnCode, own: Sequence[NumberCode]) -> list[Value]:
    """The number of the level among those that are written, or −1."""
    at = column.name
    x = graph.declare(at, (BATCH, 1), "str")
    kept = [place for place, code in enumerate(own) if code.kept]
    numbers = {place: number for number, place in enumerate(kept)}
    levels = {level: numbers.get(place, -1) for place, level in enumerate(column.levels)}
    if "" in levels and column.missing:
        raise ConfigError(
            f"`{WHERE}`: expected missing values of {at!r} to be the empty text, got a category "
            "of that name too; give it another one"
        )
    other = numbers.get(len(column.levels), -1) if column.rare else -1
    if "" not in levels:
        levels[""] = numbers.get(len(own) - 1, -1) if column.missing else -1
    number = graph.node(
        "LabelEncoder",
        [x],
        at,
        domain="ai.onnx.ml",
        keys_strings=list(levels),
        values_int64s=list(levels.values()),
        default_int64=other,
    )
    number = graph.cast(number, "float64", at)
    if not kept or own[kept[0]].category:
        return [number] if kept else []
    each = graph.constant(f"{at}/levels", np.arange(len(kept)), "float64")
    hot = graph.node("Equal", [number, each], at, (BATCH, len(kept)))
    return [graph.cast(hot, "float64", at)]


def _date(graph: Graph, column: ColumnCode, own: Sequence[NumberCode]) -> list[Value]:
    """Its age, waves of its parts, and whether it is missing."""
    at = column.name
    seconds = graph.declare(at, (BATCH, 1), "float64")
    missing, zero = graph.node("IsNaN", [seconds], at), graph.constant(f"{at}/zero", 0.0, "float64")
    dates = Dates(graph, seconds, at)
    written: list[Value] = []
    if column.aged:
        fill = graph.constant(f"{at}/fill", column.fill or 0.0, "float64")
        start = graph.constant(f"{at}/start", column.start, "float64")
        days = graph.node("Where", [missing, fill, dates.days()], at, (BATCH, 1))
        written.append(graph.node("Sub", [days, start], at))
    for part in column.parts:
        for quarter in (False, True):
            wave = dates.wave(part, PERIODS[part], quarter)
            written.append(graph.node("Where", [missing, zero, wave], at, (BATCH, 1)))
    if column.flag:
        written.append(graph.cast(missing, "float64", at))
    kept = [pair for pair in zip(own, written, strict=True) if pair[0].kept]
    return [value for code, x in kept for value in _coded(graph, code, x, at)]


WRITERS = {NUMBER: _number, BOOLEAN: _number, DATE: _date}
"""By kind; all others are categories."""


def _mean(graph: Graph, y: Value) -> Value:
    """The mean over the members, if there are any, in float64."""
    y = graph.cast(y, "float64", "ensemble")
    if len(y.shape) == 2:
        return y
    return graph.node("ReduceMean", [y], "ensemble", y.shape[1:], axes=[0], keepdims=0)


def _classes(graph: Graph, answer: Classes, p: Value) -> None:
    at = "calibration"
    if answer.temperature != 1.0:
        least = graph.constant(f"{at}/least", _LEAST, "float64")
        logarithm = graph.node("Log", [graph.node("Max", [p, least], at)], at)
        inverse = graph.constant(f"{at}/inverse", 1.0 / answer.temperature, "float64")
        p = graph.node("Softmax", [graph.node("Mul", [logarithm, inverse], at)], at, axis=-1)
    p = graph.output(p, "probabilities", "float64")
    labels = np.asarray(answer.labels)
    kinds = {"U": "str", "i": "int64", "u": "int64", "f": "float64", "b": "bool"}
    kind = kinds.get(labels.dtype.kind, "str" if all(isinstance(v, str) for v in labels) else None)
    if kind is None:
        raise ConfigError(
            f"`{WHERE}`: expected labels that are text or numbers, got {labels[0]!r:.60}"
        )
    table = graph.constant("label/classes", labels, kind)
    best = graph.node("ArgMax", [p], "label", (BATCH,), axis=1, keepdims=0)
    graph.output(graph.node("Gather", [table, best], "label", (BATCH,)), "label", kind)


def _numbers(graph: Graph, answer: Numbers, y: Value) -> None:
    steps = ("Mul", answer.scale), ("Add", answer.center), ("Max", answer.low), ("Min", answer.high)
    for op, values in steps:
        y = graph.node(op, [y, graph.constant(f"units/{op}", values, "float64")], "units")
    if answer.single:
        axis = graph.constant("units/axis", [1], "int64")
        y = graph.node("Squeeze", [y, axis], "units", (BATCH,))
    graph.output(y, "prediction", "float64")
