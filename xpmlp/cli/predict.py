"""``xpmlp evaluate`` and ``xpmlp predict``: using a run's model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..data import DATASET_NAMES, Dataset, Normalization, load_dataset, load_features
from ..data.features import info_from_dict, read_array_rows, read_rows
from ..data.tables.columns import listed
from ..data.tables.content import form_of, read_content
from ..data.tables.encoder import TableEncoder
from ..data.tables.info import TableInfo
from ..data.tables.reader import digest_of, file_stem
from ..errors import CheckpointError, DataError
from ..files import reading
from ..models import FullyConnectedNet
from ..training import confusion_matrix
from .outputs import check_output, write_rows
from .prepare import identity_of
from .report import leave_report, scored_rows
from .runs import open_run
from .scores import score
from .together import TEMPERATURE, answers, network_inputs


def evaluate(
    run: Path, data: str | None, data_dir: Path | None, download: bool
) -> tuple[dict[str, Any], Callable[[Path], None]]:
    """Score a run's model: on its own test rows, or on all rows of another file.

    Returns
    -------
    result : dict
        run, dataset, samples, loss, accuracy (or r2 and rmse), and for classes the accuracy of
        each (None without rows) and the confusion matrix (rows are true classes). ``notes`` says
        what is to be known beside the figures.
    leave : callable
        ``leave(path)`` writes the page about it.
    """
    with reading(run, "a run of xpmlp train", "train again", CheckpointError):
        return _evaluate(run, data, data_dir, download)


def _evaluate(
    run: Path, data: str | None, data_dir: Path | None, download: bool
) -> tuple[dict[str, Any], Callable[[Path], None]]:
    model, extras, config = open_run(run)
    classes = None if extras["classes"] is None else tuple(extras["classes"])
    test = _find_test(extras, config, data, data_dir, download, classes)
    x = network_inputs(model, test.x, extras, test.name)
    inputs, needed = int(np.prod(x.shape[1:])), model.config["sizes"][0]
    if inputs != needed:
        raise DataError(
            f"expected data like that of {run}: {needed} inputs and "
            f"{'numbers' if classes is None else f'{len(classes)} classes'}, got {test.name} with "
            f"{inputs} inputs; name the data set it was trained on"
        )
    normalization, target_normalization = _normalizations(extras)
    scores = score(model, x, test.y, normalization, target_normalization, *_of_ensemble(extras))
    result: dict[str, Any] = {"run": str(run), "dataset": test.name, "samples": len(x), **scores}

    @cache
    def answered() -> np.ndarray:
        return answers_in_units(model, x, extras)

    if classes is not None:
        matrix = confusion_matrix(test.y, answered().argmax(axis=1), len(classes))
        counts = matrix.sum(axis=1)
        shares = [
            float(matrix[place, place] / count) if count else None
            for place, count in enumerate(counts)
        ]
        if test.unknown:
            others = sum(test.unknown.values())
            result["unknown_classes"] = test.unknown
            result["accuracy_with_unknown"] = float(np.trace(matrix) / (len(x) + others))
        result["class_accuracy"] = dict(zip(classes, shares, strict=True))
        result["confusion_matrix"] = matrix.tolist()
    result["notes"] = test.notes

    def leave(path: Path) -> None:
        scored = scored_rows(test.name, test.x, test.y, answered(), extras)
        leave_report(path, run, model, extras, config, scored, scores, test.notes)

    return result, leave


@dataclass
class _Test:
    """Rows to score on."""

    name: str
    x: np.ndarray
    y: np.ndarray
    notes: list[str] = field(default_factory=list)
    unknown: dict[str, int] | None = None


def _find_test(
    extras: dict[str, Any],
    config: dict[str, Any],
    data: str | None,
    data_dir: Path | None,
    download: bool,
    classes: tuple[str, ...] | None,
) -> _Test:
    options = dict(config.get("data") or {})
    known = str(options.pop("name_or_path", extras["dataset"]))
    wanted = known if data is None else data
    if _is_name(wanted):
        return _of_dataset(load_dataset(wanted, data_dir=data_dir, download=download), classes)
    if data is None:
        return _own_test(extras, config, options, known, classes)
    content = read_content(data)
    identity = config.get("identity") or {}
    same = digest_of(content) == identity.get("sha256") if identity else data == known
    # Where the test part was a file of its own, all rows of the other one were trained on.
    if same and not identity.get("test_sha256"):
        test = _own_test(extras, config, options, data, classes)
        test.notes.insert(
            0, f"{data} is what was trained on: only its {len(test.x)} test rows are scored"
        )
        return test
    if form_of(content) == "npz":
        rows = read_array_rows(data, content, classes)
    else:
        info = _table_info(extras, options, classes, data)
        rows = read_rows(data, info, classes, content=content)
    test = _Test(file_stem(data), rows.x, rows.y, unknown=rows.unknown)
    test.notes = [f"{len(rows.x)} rows of {data} scored{rows.words()}"]
    if same:
        test.notes.append("these rows were trained on: xpmlp evaluate RUN scores those held out")
    if rows.filled:
        test.notes.append(_filled_words(rows.filled))
    return test


def _own_test(
    extras: dict[str, Any],
    config: dict[str, Any],
    options: dict[str, Any],
    known: str,
    classes: tuple[str, ...] | None,
) -> _Test:
    """The test rows of the run's own file, if it is still what was trained on."""
    identity = config.get("identity") or {}
    found = identity.get("path")
    path = (
        found
        if found and Path(found).is_file() and known == config.get("data", {}).get("name_or_path")
        else known
    )
    # What the target is was decided in the training.
    again: dict[str, Any] = options | {"task": _task(classes)}
    try:
        dataset = load_dataset(path, **again)
    except DataError as error:
        raise DataError(
            f"expected the data of the training, {known}, got: {error}; "
            "name the file: xpmlp evaluate RUN FILE"
        ) from error
    now = identity_of(dataset) or {}
    if identity and any(now[key] != identity.get(key) for key in now if key != "path"):
        raise DataError(
            f"expected {path} as it was in the training ({identity.get('rows')} rows), got "
            f"another content ({now['rows']} rows); its test rows are not those that were held "
            "out. Score all rows of a file that was not trained on: xpmlp evaluate RUN FILE"
        )
    notes = [] if identity else ["this run kept no fingerprint of its data: it may have changed"]
    info = dataset.table
    if info is None:
        test = _of_dataset(dataset, classes)
        test.notes = notes
        return test
    file = options.get("test")
    trained = _table_info(extras, options, classes, path)
    rows = read_rows(file or path, trained, classes)
    if info.test_rows is None:
        return _Test(dataset.name, rows.x, rows.y, notes, rows.unknown)
    if len(rows.x) != info.rows:
        raise DataError(f"expected {info.rows} rows with a target in {path}, got {len(rows.x)}")
    return _Test(dataset.name, rows.x[info.test_rows], rows.y[info.test_rows], notes)


def _of_dataset(dataset: Dataset, classes: tuple[str, ...] | None) -> _Test:
    if (classes is None) != (dataset.classes is None) or (classes or ()) != (dataset.classes or ()):
        raise DataError(
            f"expected {'numbers' if classes is None else f'the classes {listed(classes)}'}, got "
            f"{dataset.name} with {listed(dataset.classes or ()) or 'numbers'}"
        )
    return _Test(dataset.name, dataset.x_test, dataset.y_test)


def _table_info(
    extras: dict[str, Any],
    options: dict[str, Any],
    classes: tuple[str, ...] | None,
    path: str,
) -> TableInfo:
    """How the run reads a table; for one of before encoders, numbers under their names."""
    if extras.get("table"):
        return info_from_dict(extras["table"])
    if extras["features"] is None:
        raise DataError(
            f"expected arrays as in the training (NPZ with x and y), got the table {path}"
        )
    again: dict[str, Any] = options | {"task": _task(classes)}
    dataset = load_dataset(path, **again)
    assert dataset.table is not None
    return replace(dataset.table, encoder=TableEncoder.of_numbers(extras["features"]), ids=[])


def _task(classes: tuple[str, ...] | None) -> str:
    return "regression" if classes is None else "classification"


def _is_name(data: str) -> bool:
    return data.lower().replace("_", "-") in (*DATASET_NAMES, "fashionmnist", "cifar-10")


def _of_ensemble(extras: dict[str, Any]) -> tuple[float, Any]:
    """The temperature of its probabilities, and the bounds of its numbers."""
    return extras.get(TEMPERATURE) or 1.0, extras.get("bounds")


def _filled_words(filled: dict[str, int]) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in list(filled.items())[:8])
    return f"{sum(filled.values())} missing values filled in ({shown})"


def predict(
    run: Path, file: str, out: str | None, ids: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], str]:
    """Predict every row of a file, and write the predictions if asked for.

    Returns
    -------
    rows : list of dict
        The id columns, prediction, and the probability of each class.
    summary : str
        What was done, in one line.
    """
    target = None if out is None else check_output(out, file)
    with reading(run, "a run of xpmlp train", "train again", CheckpointError):
        rows, summary = _predict(run, file, ids)
    if out is not None:
        write_rows(target, rows)
    written = f" written to {out}" if target is not None else ""
    return rows, f"{len(rows)} predictions{written}{summary}"


def _predict(run: Path, file: str, ids: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """The predictions, and what was filled in for them."""
    model, extras, _ = open_run(run)
    filled: dict[str, int] = {}
    carried: dict[str, list[Any]] = {}
    if extras.get("table"):
        info = info_from_dict(extras["table"])
        found = read_rows(file, info, with_target=False, ids=ids)
        x, filled, carried = found.x, found.filled, found.ids
    else:
        x = load_features(file, extras["features"])
    x = network_inputs(model, x, extras, file)
    length, needed = int(np.prod(x.shape[1:])), model.config["sizes"][0]
    if length != needed:
        raise DataError(
            f"`{file}`: expected {needed} numbers in a row, as in training, got {length}; leave "
            "out columns that are no inputs, such as the target"
        )
    rows = _predict_rows(model, x, extras)
    if carried:
        names = list(carried)
        rows = [
            {_free(name, row): value for name, value in zip(names, values, strict=True)} | row
            for row, *values in zip(rows, *carried.values(), strict=True)
        ]
    return rows, f"; {_filled_words(filled)}" if filled else ""


def _free(name: str, row: dict[str, Any]) -> str:
    """A name for an id column that no other column of the predictions has."""
    return f"{name} (id)" if name in row else name


def _predict_rows(
    model: FullyConnectedNet, x: np.ndarray, extras: dict[str, Any]
) -> list[dict[str, Any]]:
    values = answers_in_units(model, x, extras)
    classes = extras["classes"]
    if classes is None:
        names = (
            ["prediction"]
            if values.shape[1] == 1
            else [f"prediction_{column}" for column in range(values.shape[1])]
        )
        return [dict(zip(names, row, strict=True)) for row in values.tolist()]
    return [
        {"prediction": classes[int(np.argmax(row))]}
        | {f"p({name})": round(float(p), 6) for name, p in zip(classes, row, strict=True)}
        for row in values
    ]


def answers_in_units(model: FullyConnectedNet, x: np.ndarray, extras: dict[str, Any]) -> np.ndarray:
    """Probabilities (N, C), or numbers (N, M) in the targets' units, of what the network takes."""
    normalization, target_normalization = _normalizations(extras)
    found = answers(model, normalization.apply(x, model.dtype), *_of_ensemble(extras))
    return found if target_normalization is None else target_normalization.undo(found.astype(float))


def _normalizations(extras: dict[str, Any]) -> tuple[Normalization, Normalization | None]:
    target = extras["target_normalization"]
    return (
        Normalization.from_dict(extras["normalization"]),
        None if target is None else Normalization.from_dict(target),
    )
