"""``xpmlp sweep``: a grid of settings trained together, and what came of it in a folder.

======================  =========================================================
``config.json``         what was asked for
``checkpoints``         all that an unfinished sweep needs to go on
``sweep.csv``           a row for each setting and seed
``sweep.png``           the same as a picture, where matplotlib is there
``model.safetensors``   the best network, for ``xpmlp evaluate`` and ``predict``
``result.json``         the figures at the end
======================  =========================================================
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, get_backend
from ..choices import FloatName, Sampling
from ..data import Dataset
from ..errors import ConfigError
from ..files import write_atomically
from ..sweep import Settings, SweepCheckpoints, SweepResult, expand, sweep
from ..sweep.settings import show
from ..training import save_model
from .prepare import count_outputs, identity_of, prepare
from .recipes import Recipe
from .runs import (
    CONFIG,
    MODEL,
    RESULT,
    STATES,
    attempt,
    finish_run,
    new_run,
    old_run,
    write_json,
)
from .scores import score
from .sweep_board import Board
from .train import device_name

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def run_sweep(
    dataset: Dataset,
    recipe: Recipe,
    axes: Mapping[str, list[Any]],
    *,
    data_options: dict[str, Any],
    seeds: int = 1,
    seed: int = 0,
    sampling: Sampling = "shared",
    halving: bool = False,
    memory: str | None = None,
    dtype: FloatName = "float32",
    out: Path | None = None,
    progress: bool = True,
    plots: bool = True,
    save_every: float = 30.0,
    resume: Path | None = None,
    strict: bool = True,
    executor: Callable[[], Executor] | None = None,
    shard: tuple[int, int] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Train a grid around a recipe, and the recipe itself beside it.

    Parameters
    ----------
    dataset : Dataset
    recipe : Recipe
        What the axes leave open.
    axes : mapping of str to list
        As :func:`xpmlp.sweep.parse_axes` gives them; none means a grid of 64 around the recipe.
    data_options : dict
        How the data set was loaded, for ``xpmlp evaluate`` to load it again.
    seeds, seed : int
        How many seeds for each setting, and the first one.
    sampling, halving, dtype
        As for :func:`xpmlp.sweep.sweep`.
    memory : str, optional
        Such as 4GB.
    out : path, optional
    progress, plots : bool
    save_every, resume, strict
        As for :func:`xpmlp.cli.train.train`.
    executor, shard
        As for :func:`xpmlp.sweep.sweep`; :mod:`xpmlp.cli.shards` merges what shards leave.

    Returns
    -------
    folder : path
    result : dict
        What ``result.json`` holds.
    """
    if recipe.validation <= 0:
        raise ConfigError(
            "`sweep`: expected validation data to compare settings on, got --validation 0"
        )
    if seeds < 1:
        raise ConfigError(f"`--seeds`: expected at least 1, got {seeds}")
    budget = None if memory is None else parse_bytes(memory)
    base = settings_of(recipe)
    grid = dict(axes) if axes else default_axes(base)
    points = expand(grid, base)
    default = points.index(base) if base in points else len(points)
    numbers = [seed + number for number in range(seeds)]
    data = prepare(dataset, recipe, seed)
    assert data.validation is not None  # recipe.validation is above 0
    config = {
        "xpmlp": __version__,
        "data": data_options,
        "identity": identity_of(dataset),
        "recipe": asdict(recipe),
        "axes": grid,
        "seeds": numbers,
        "sampling": sampling,
        "halving": halving,
        "memory": memory,
        "shard": shard,
        "backend": get_backend().name,
        "device": device_name(get_backend()),
    }
    whole = f"{dataset.name}-sweep"
    with new_run(out, whole) if resume is None else old_run(resume) as folder:
        board = Board(points, grid, default) if progress else None
        if resume is None or not strict:
            write_json(folder / CONFIG, config)

        def take(found: SweepResult) -> None:
            if not found.trials:
                return
            attempt("the table", _write_table, folder / "sweep.csv", found, list(grid), default)
            if board is not None and executor is not None:
                board.take(found, (max(len(points), default + 1)) * seeds)

        try:
            found = sweep(
                data.x,
                data.y,
                data.validation,
                points if default < len(points) else [*points, base],
                outputs=count_outputs(dataset),
                output="identity" if dataset.classes is None else "softmax",
                seeds=numbers,
                sampling=sampling,
                normalization=data.normalization,
                halving=halving,
                patience=recipe.patience,
                memory=budget,
                keep=(default,),
                callbacks=None if board is None or executor is not None else board.watch,
                dtype=dtype,
                checkpoints=SweepCheckpoints(
                    folder / STATES, every=save_every, resume=resume is not None, strict=strict
                ),
                executor=executor,
                shard=shard,
                on_population=take,
            )
        finally:
            if board is not None:
                board.close()
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)  # someone may have removed it meanwhile
        save_model(folder / MODEL, found.models[found.best], data.extras(dataset))
        attempt("the table", _write_table, folder / "sweep.csv", found, list(grid), default)
        result = _result(dataset, found, points, grid, default, data)
        attempt("the result", write_json, folder / RESULT, result)
        if plots and importlib.util.find_spec("matplotlib") is not None:
            from ..plots import plot_sweep

            attempt(
                "the picture",
                plot_sweep,
                [row for row in found.rows(list(grid)) if row["setting"] < len(points)],
                list(grid),
                folder / "sweep.png",
                value=found.monitor,
                title=f"{dataset.name}: {len(points)} settings, {seeds} seed{'s' * (seeds > 1)}",
            )
        if not (found.interrupted or found.failed or shard):
            finish_run(folder)
    return folder, result


def settings_of(recipe: Recipe) -> Settings:
    """A recipe as a sweep's setting."""
    names = [field.name for field in fields(Settings) if field.name != "momentum"]
    return Settings(**{name: getattr(recipe, name) for name in names})


def default_axes(base: Settings) -> dict[str, list[Any]]:
    """64 settings around a recipe: learning rates, decays, and with or without dropout."""
    rates = [float(f"{base.lr * factor:.3g}") for factor in np.geomspace(0.1, 10.0, 8)]
    return {
        "lr": rates,
        "weight_decay": [0.0, 1e-3, 1e-2, 1e-1],
        "dropout": [0.0, base.dropout or 0.2],
    }


def parse_bytes(text: str) -> int:
    """``4GB``, ``500M`` or ``1e9`` as a number of bytes."""
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"`--memory`: expected a size such as 4GB or 500MB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _result(
    dataset: Dataset,
    found: SweepResult,
    points: Sequence[Settings],
    grid: Mapping[str, list[Any]],
    default: int,
    data: Any,
) -> dict[str, Any]:
    best = found.best
    settings = next(t.settings for t in found.trials if t.setting == best)
    result = {
        "dataset": dataset.name,
        "settings": len(points),
        "networks": len(found.trials),
        "populations": found.populations,
        "seconds": round(found.seconds, 3),
        "ending": found.ending,
        "diverged": sum(t.ending.startswith("diverged") for t in found.trials),
        "failed": len(found.failed),
        "monitor": found.monitor,
        "best": {name: getattr(settings, name) for name in grid},
        "best_is_default": best == default,
        "version": __version__,
    }
    for label, setting in (("", best), ("default_", default)):
        if setting not in found.models:
            continue  # interrupted before it was trained
        scores = score(
            found.models[setting],
            data.select(dataset.x_test),
            dataset.y_test,
            data.normalization,
            data.target_normalization,
        )
        result[f"{label}{found.monitor}"] = float(np.mean(found.values(setting)))
        result |= {f"{label}test_{name}": value for name, value in scores.items()}
    return result


def verdict(result: Mapping[str, Any]) -> str:
    """Whether the best setting beats the default recipe, in a sentence."""
    if result["best_is_default"]:
        return "nothing beats the default recipe"
    name = "accuracy" if "test_accuracy" in result else "r2"
    if f"default_test_{name}" not in result:
        return "the default recipe was not trained"
    ours, theirs = result[f"test_{name}"], result[f"default_test_{name}"]
    shown: Callable[[float], str] = (
        (lambda value: f"{100 * value:.2f} %") if name == "accuracy" else "R² {:.4f}".format
    )
    relation = "beats" if ours > theirs else "equals" if ours == theirs else "does not beat"
    return (
        f"on the test data it {relation} the default recipe: {shown(ours)}, default {shown(theirs)}"
    )


def _write_table(file: Path, found: SweepResult, names: Sequence[str], default: int) -> None:
    text = io.StringIO()
    rows = found.rows(names)
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        row["setting"] = "default" if row["setting"] == default else row["setting"]
        writer.writerow({n: show(v) if isinstance(v, tuple) else v for n, v in row.items()})
    write_atomically(file, text.getvalue().encode())
