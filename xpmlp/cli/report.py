"""``report.html`` in a run's folder: from what lies there, and rows that were not trained on."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Dataset
from ..data.tables import TableEncoder
from ..data.tables.reader import file_stem
from ..errors import CheckpointError
from ..files import write_atomically
from ..models import FullyConnectedNet
from ..report import Findings, Scored, comparison_page, report_page
from .runs import RESULT, read_config

REPORT, COMPARISON = "report.html", "comparison.html"
HISTORY = "history.csv"
_SHOWN_CLASSES = 40
_FIGURES = ("test_accuracy", "test_r2", "test_rmse", "test_loss")


def leave_report(
    path: Path,
    folder: Path,
    model: FullyConnectedNet,
    extras: dict[str, Any],
    config: dict[str, Any],
    scored: Scored,
    figures: dict[str, Any],
    notes: Sequence[str] = (),
) -> None:
    """Write a run's page.

    Parameters
    ----------
    path : path
        Of the page.
    folder : path
        Of the run.
    model, extras, config
        As :func:`~xpmlp.cli.runs.open_run` gives them.
    scored : Scored
    figures : mapping of str to number
        The scores on it.
    notes : sequence of str
        What is to be known beside the figures.
    """
    findings = findings_of(folder, config)
    findings.scored, findings.model = scored, model
    findings.figures = {"rows": len(scored.x)} | figures
    findings.warnings += notes
    if not findings.data and extras["classes"] is not None:
        findings.data = [("classes", ", ".join(extras["classes"][:_SHOWN_CLASSES]))]
    # Beside the network, a picture of which can be made again.
    write_atomically(path, report_page(findings).encode("utf-8", "replace"), on_disk=False)


def findings_of(folder: Path, config: dict[str, Any]) -> Findings:
    """What a run's folder tells without its network and data."""
    result = read_result(folder)
    title = f"{result.get('dataset', 'run')}: {folder.name or folder.resolve().name}"
    return Findings(
        title,
        read_history(folder),
        result.get("best_epoch"),
        settings=_settings(config, result),
        data=[(str(heading), str(text)) for heading, text in config.get("summary") or []],
        warnings=[str(line) for line in result.get("warnings") or []],
    )


def scores_of(result: dict[str, Any]) -> dict[str, Any]:
    """The scores that a run's result holds, under their names without the part of the data."""
    found = {name.removeprefix("test_"): result.get(name) for name in _FIGURES}
    return {name: value for name, value in found.items() if value is not None}


def scored_rows(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    answers: np.ndarray,
    extras: dict[str, Any],
) -> Scored:
    """Rows and what was answered, for the page."""
    classes, describe = extras["classes"], None
    if extras.get("table"):
        describe = TableEncoder.from_dict(extras["table"]["encoder"]).describe
    elif extras.get("features"):
        describe = TableEncoder.of_numbers(extras["features"]).describe
    return Scored(name, x, y, answers, None if classes is None else tuple(classes), describe)


def summary_of(dataset: Dataset) -> list[tuple[str, str]]:
    """What was understood of the data, in words."""
    if dataset.table is not None:
        return dataset.table.summary
    shape = "×".join(map(str, dataset.x_train.shape[1:]))
    rows = [
        ("data", dataset.source),
        ("rows", f"{len(dataset.x_train):,} to train on, {len(dataset.x_test):,} to test on"),
        ("inputs", f"{shape}, {dataset.x_train.dtype}"),
    ]
    if dataset.classes is not None:
        counts = np.bincount(dataset.y_train, minlength=len(dataset.classes)).tolist()
        pairs = zip(dataset.classes[:_SHOWN_CLASSES], counts, strict=False)
        rows.append(("classes", ", ".join(f"{name} ({count:,})" for name, count in pairs)))
    return rows


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``history.csv``; none where there is no such file, as in a sweep's folder."""
    try:
        text = (folder / HISTORY).read_text(encoding="utf-8")
    except OSError:
        return []
    return list(csv.DictReader(text.splitlines()))


def read_result(folder: Path) -> dict[str, Any]:
    """``result.json``; empty where there is none."""
    try:
        found = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _settings(config: dict[str, Any], result: dict[str, Any]) -> list[tuple[str, str]]:
    """What was asked for, and how the training went."""
    asked = {**(config.get("recipe") or {}), **(config.get("axes") or {})}
    asked["seed"] = config.get("seed", config.get("seeds"))
    went = ("ending", "epochs_done", "best_epoch", "steps", "parameters", "train_seconds")
    ran = ("backend", "device", "kernels", "version")
    result = result | {"epochs_done": result.get("epochs")}
    rows = {**asked, **{name: result.get(name) for name in (*went, *ran)}}
    return [
        (name.replace("_", " "), _words(value)) for name, value in rows.items() if value is not None
    ]


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def report_of_run(run: Path, out: Path | None, data_dir: Path | None, download: bool) -> Path:
    """Make a run's page anew, from its folder and its own test rows."""
    from .predict import evaluate  # which leaves pages as well

    if not run.is_dir():
        raise CheckpointError(f"expected the folder of a run, got {run}")
    path = run / REPORT if out is None else out
    _, leave = evaluate(run, None, data_dir, download)
    leave(path)
    return path


def page_of(run: Path, data: str | None) -> Path:
    """Where the page of an evaluation goes: of other rows than the run's own, beside its page."""
    return run / (REPORT if data is None else f"report-{file_stem(data)}.html")


def compare(runs: Sequence[Path], path: Path) -> Path:
    """Write a page on several runs."""
    pages = []
    for run in runs:
        findings = findings_of(run, read_config(run))
        findings.title = str(run)
        findings.figures = scores_of(read_result(run))
        pages.append(findings)
    write_atomically(path, comparison_page("Runs", pages).encode("utf-8", "replace"))
    return path


def histories_of(runs: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """The history of each run by its folder.

    Raises
    ------
    CheckpointError
        If one has none.
    """
    found = {str(run): read_history(run) for run in runs}
    for run, rows in found.items():
        if not rows:
            raise CheckpointError(
                f"expected the folder of a run of xpmlp train, with {HISTORY} in it, got {run}"
            )
    return found
