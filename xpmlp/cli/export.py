"""``xpmlp export``: a run's network as ONNX, compared with the network before it is written."""

from __future__ import annotations

import copy
import importlib.util
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Normalization
from ..data.tables import Column, NumberCodes, TableEncoder
from ..data.tables.columns import BOOLEAN, CATEGORY, DATE
from ..ensemble import Ensemble
from ..errors import CheckpointError, ConfigError
from ..files import expanded, write_atomically
from ..layers import Linear
from ..models import FullyConnectedNet
from ..onnx import export_onnx
from ..onnx.graph import import_onnx
from ..onnx.table import Classes, Numbers, export_table
from .predict import answers_in_units
from .runs import open_run
from .together import TEMPERATURE, network_inputs

_ROWS = 64
_TOLERANCE = {"float32": 1e-4, "float64": 1e-8}
_DAY = 86400


def export(run: Path, out: str) -> dict[str, Any]:
    """Write a run's network as an ONNX file that answers as ``xpmlp predict`` does.

    Returns
    -------
    dict
        run, file, inputs, outputs, checked_by, largest_difference and bytes.

    Raises
    ------
    CheckpointError
        If its answers are not the network's; then nothing is written.
    ConfigError
        For a file that does not end in ``.onnx``, or a network that has no graph.
    MissingDependencyError
        Without the ``onnx`` library.
    """
    path = expanded(out)
    if path.suffix.lower() != ".onnx":
        raise ConfigError(f"`xpmlp export`: expected a file ending in .onnx, got {out!r}")
    onnx = import_onnx()
    model, extras, _ = open_run(run)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.onnx"
        if extras.get("codes") is not None and extras.get("table"):
            given, expected = _table(draft, model, extras)
        else:
            given, expected = _arrays(draft, model, extras)
        content = draft.read_bytes()
    answers, by = _run(content, given)
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(answers - expected).max()) / scale
    if not difference <= _TOLERANCE[model.dtype]:
        raise CheckpointError(
            f"`xpmlp export`: expected the answers of the network from its graph, got a relative "
            f"difference of {difference:.2g} in {by}; nothing is written"
        )
    write_atomically(path, content)
    graph = onnx.load_from_string(content).graph
    return {
        "run": str(run),
        "file": str(path),
        "inputs": [value.name for value in graph.input],
        "outputs": [value.name for value in graph.output],
        "checked_by": by,
        "largest_difference": difference,
        "bytes": len(content),
    }


def _run(content: bytes, given: dict[str, np.ndarray]) -> tuple[np.ndarray, str]:
    """The first output of a graph, and who computed it."""
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        by = f"onnxruntime {onnxruntime.__version__}"
        return np.asarray(session.run(None, given)[0], dtype=np.float64), by
    import onnx.reference

    found: Any = onnx.reference.ReferenceEvaluator(onnx.load_from_string(content)).run(None, given)
    return np.asarray(found[0], dtype=np.float64), f"onnx {onnx.__version__} (its own reference)"


def _arrays(
    draft: Path, model: FullyConnectedNet, extras: dict[str, Any]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The graph of a network that takes arrays; inputs to try, and its answers."""
    normalization = Normalization.from_dict(extras["normalization"])
    sample = tuple(model.config.get("image") or model.config["sizes"][:1])
    size = math.prod(sample)
    rng = np.random.default_rng(0)
    mean, std = (np.broadcast_to(np.ravel(v), (size,)) for v in _moments(normalization))
    x = (mean + std * rng.normal(size=(_ROWS, size))).astype(model.dtype)
    classifies = extras["classes"] is not None
    network = model if classifies else _in_units(model, extras)
    together: Any = network
    if model.population is not None:
        together = Ensemble(network, temperature=extras.get(TEMPERATURE) or 1.0)
    scale = Normalization(mean.reshape(sample), std.reshape(sample))
    export_onnx(together, draft, input_shape=sample, normalization=scale, probabilities=classifies)
    unbounded = extras | {"bounds": None}  # which the graph does not have
    return {"input": x.reshape(_ROWS, *sample)}, answers_in_units(
        model, x.reshape(_ROWS, *_stored(normalization, size)), unbounded
    )


def _moments(normalization: Normalization) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(normalization.mean), np.asarray(normalization.std)


def _stored(normalization: Normalization, size: int) -> tuple[int, ...]:
    """The shape of a sample in the data that the normalization is of."""
    shape = np.shape(normalization.mean)
    return shape if int(np.prod(shape)) == size else (size,)


def _in_units(model: FullyConnectedNet, extras: dict[str, Any]) -> FullyConnectedNet:
    """The same network, whose last layer answers in the targets' units."""
    targets = Normalization.from_dict(extras["target_normalization"])
    mean, std = _moments(targets)
    model = copy.deepcopy(model)
    last = [layer for _, layer in model.named_layers()][-1]
    if not isinstance(last, Linear) or "b" not in last.params:
        raise ConfigError("`xpmlp export`: expected a network that ends in a Linear with a bias")
    dtype = np.dtype(model.dtype)
    last.params |= {
        "W": last.params["W"] * std.astype(dtype),
        "b": last.params["b"] * std.astype(dtype) + mean.astype(dtype),
    }
    return model


def _table(
    draft: Path, model: FullyConnectedNet, extras: dict[str, Any]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The graph of a table's network, with all that happens to a row; rows to try, its answers."""
    encoder = TableEncoder.from_dict(extras["table"]["encoder"])
    codes = NumberCodes.from_dict(extras["codes"])
    answer: Classes | Numbers
    if extras["classes"] is not None:
        answer = Classes(np.array(extras["classes"]), extras.get(TEMPERATURE) or 1.0)
    else:
        targets = Normalization.from_dict(extras["target_normalization"])
        mean, std = (np.atleast_1d(values) for values in _moments(targets))
        bounds = extras.get("bounds") if model.population is not None else None
        low, high = ([-np.inf], [np.inf]) if bounds is None else bounds
        low, high = (np.asarray(v) * std + mean for v in (low, high))
        answer = Numbers(std, mean, low, high, single=False)
    export_table(draft, encoder, codes, model, answer)
    columns, given = _rows(encoder, codes)
    x = network_inputs(model, encoder.transform(columns), extras, "xpmlp export")
    return given, answers_in_units(model, x, extras)


def _rows(encoder: TableEncoder, codes: NumberCodes) -> tuple[list[Column], dict[str, np.ndarray]]:
    """Rows that the table might have, missing values among them, and the graph's inputs."""
    rng = np.random.default_rng(0)
    columns, given, place = [], {}, 0
    for code in encoder.codes:
        own = codes.codes[place]
        place += len(code.names())
        gone = rng.random(_ROWS) < 0.1
        if code.kind == CATEGORY:
            levels = tuple(level for level in code.levels if level)
            numbers = rng.integers(-1, max(len(levels), 1), _ROWS).astype(np.int32)
            column = Column(code.name, CATEGORY, numbers, levels)
            values = np.array(["" if text is None else text for text in column.texts()], object)
        elif code.kind == DATE:
            days = code.start + rng.integers(0, 2000, _ROWS)
            moments = (days * _DAY).astype(np.int64).astype("M8[s]")
            column = Column(code.name, DATE, moments)
            values = moments.astype(np.int64).astype(np.float64)
        else:
            numbers = own.center + (own.spread or 1.0) * rng.normal(size=_ROWS)
            numbers = numbers > own.center if code.kind == BOOLEAN else numbers
            values = np.where(gone & (code.fill is not None), np.nan, numbers)
            column = Column(code.name, code.kind, values)
        columns.append(column)
        given[code.name] = values[:, None]
    return columns, given
