"""``xpmlp evaluate`` and ``xpmlp predict``: using a run's model."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from .. import to_numpy
from ..data import DATASET_NAMES, Dataset, Normalization, load_dataset, load_features
from ..errors import DataError
from ..files import write_atomically
from ..models import FullyConnectedNet
from ..training import confusion_matrix
from .runs import open_run
from .train import score


def evaluate(run: Path, data: str | None, data_dir: Path | None, download: bool) -> dict[str, Any]:
    """Score a run's model on the test part of a data set (by default the run's own).

    Returns
    -------
    dict
        run, dataset, samples, loss, accuracy (or r2 and rmse), and for classes the accuracy of
        each and the confusion matrix (rows are true classes).
    """
    model, extras, config = open_run(run)
    dataset = _load_like(config.get("data") or {}, extras["dataset"], data, data_dir, download)
    inputs = int(np.prod(dataset.x_test.shape[1:]))
    classes = extras["classes"]
    if inputs != model.config["sizes"][0] or (classes is None) != (dataset.classes is None):
        raise DataError(
            f"expected data like that of {run}: {model.config['sizes'][0]} inputs and "
            f"{'numbers' if classes is None else f'{len(classes)} classes'}, got {dataset.name} "
            f"with {inputs} inputs; name the data set it was trained on"
        )
    if classes is not None and tuple(classes) != dataset.classes:
        raise DataError(
            f"expected the classes {', '.join(classes)}, got {', '.join(dataset.classes or ())}"
        )
    normalization, target_normalization = _normalizations(extras)
    result: dict[str, Any] = {
        "run": str(run),
        "dataset": dataset.name,
        "samples": len(dataset.x_test),
        **score(model, dataset.x_test, dataset.y_test, normalization, target_normalization),
    }
    if classes is not None:
        x = normalization.apply(dataset.x_test, model.dtype)
        matrix = confusion_matrix(dataset.y_test, model.predict(x), len(classes))
        shares = np.diag(matrix) / np.maximum(1, matrix.sum(axis=1))
        result["class_accuracy"] = dict(zip(classes, shares.tolist(), strict=True))
        result["confusion_matrix"] = matrix.tolist()
    return result


def _load_like(
    options: dict[str, Any],
    trained_on: str,
    data: str | None,
    data_dir: Path | None,
    download: bool,
) -> Dataset:
    """The data set that was trained on, or another with the same target and columns."""
    known = options.get("name_or_path", trained_on)
    # A table's target, columns and task hold for another table as well, and for nothing else.
    table = data is None or Path(data).suffix.lower() in (".csv", ".tsv", ".parquet")
    kept = options if table else {}
    try:
        named = {"name_or_path": data or known, "data_dir": data_dir, "download": download}
        return load_dataset(**kept | named)
    except DataError as error:
        if data is not None or known in DATASET_NAMES:
            raise
        raise DataError(
            f"expected the data of the training, {known}, got: {error}; "
            "name the file: xpmlp evaluate RUN FILE"
        ) from error


def predict(run: Path, file: Path, out: Path | None) -> tuple[list[dict[str, Any]], str]:
    """Predict every row of a file, and write the predictions as CSV if asked for.

    Returns
    -------
    rows : list of dict
        prediction, and the probability of each class.
    summary : str
        What was done, in one line.
    """
    model, extras, _ = open_run(run)
    x = load_features(file, extras["features"], model.config["sizes"][0])
    rows = _predict_rows(model, x, extras)
    if out is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(out, text.getvalue().encode())
    return rows, f"{len(rows)} predictions" + (f" written to {out}" if out is not None else "")


def _predict_rows(
    model: FullyConnectedNet, x: np.ndarray, extras: dict[str, Any]
) -> list[dict[str, Any]]:
    normalization, target_normalization = _normalizations(extras)
    x = normalization.apply(x, model.dtype)
    classes = extras["classes"]
    if classes is None:
        assert target_normalization is not None  # every regression run has one
        values = target_normalization.undo(to_numpy(model.predict(x)).astype(np.float64))
        names = (
            ["prediction"]
            if values.shape[1] == 1
            else [f"prediction_{column}" for column in range(values.shape[1])]
        )
        return [dict(zip(names, row, strict=True)) for row in values.tolist()]
    probabilities = to_numpy(model.predict_proba(x))
    return [
        {"prediction": classes[int(np.argmax(row))]}
        | {f"p({name})": round(float(p), 6) for name, p in zip(classes, row, strict=True)}
        for row in probabilities
    ]


def _normalizations(extras: dict[str, Any]) -> tuple[Normalization, Normalization | None]:
    target = extras["target_normalization"]
    return (
        Normalization.from_dict(extras["normalization"]),
        None if target is None else Normalization.from_dict(target),
    )
