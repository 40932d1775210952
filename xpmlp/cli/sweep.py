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
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .. import __version__, get_backend
from ..data import Dataset
from ..errors import ConfigError
from ..files import write_atomically
from ..sweep import Settings, SweepCheckpoints, SweepResult, expand, sweep
from ..sweep.settings import show
from ..training import Callback, PopulationTrainer, save_model
from ..training.progress import tell
from ..training.terminal import Unbroken
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
from .train import device_name

_SHOWN = 10  # settings in the table
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def run_sweep(
    dataset: Dataset,
    recipe: Recipe,
    axes: Mapping[str, list[Any]],
    *,
    data_options: dict[str, Any],
    seeds: int = 1,
    seed: int = 0,
    sampling: str = "shared",
    halving: bool = False,
    memory: str | None = None,
    dtype: str = "float32",
    out: Path | None = None,
    progress: bool = True,
    plots: bool = True,
    save_every: float = 30.0,
    resume: Path | None = None,
    strict: bool = True,
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
        "backend": get_backend().name,
        "device": device_name(get_backend()),
    }
    whole = f"{dataset.name}-sweep"
    with new_run(out, whole) if resume is None else old_run(resume) as folder:
        board = _Board(points, grid, default) if progress else None
        if resume is None or not strict:
            write_json(folder / CONFIG, config)
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
                callbacks=None if board is None else board.watch,
                dtype=dtype,
                checkpoints=SweepCheckpoints(
                    folder / STATES, every=save_every, resume=resume is not None, strict=strict
                ),
            )
        finally:
            if board is not None:
                board.close()
        rows = [
            {n: show(value) if isinstance(value, tuple) else value for n, value in row.items()}
            for row in found.rows(list(grid))
        ]
        for row in rows:
            row["setting"] = "default" if row["setting"] == default else row["setting"]
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)  # someone may have removed it meanwhile
        save_model(folder / MODEL, found.models[found.best], data.extras(dataset))
        attempt("the table", write_atomically, folder / "sweep.csv", _as_csv(rows))
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
        if not found.interrupted:
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


class _Board:
    """The live table of a sweep: the best settings so far, all populations together."""

    def __init__(self, points: Sequence[Settings], grid: Mapping[str, list[Any]], default: int):
        self.points, self.names, self.default = points, list(grid), default
        self.values: dict[int, float] = {}
        self.monitor = "val_accuracy"
        self.console = Console(file=Unbroken(sys.stderr))  # type: ignore[arg-type]
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = live = Live(console=self.console, transient=True, auto_refresh=False)
            live.start()

    def watch(self, members: Sequence[tuple[int, int]]) -> list[Callback]:
        """The callback for a population with these settings and seeds."""
        return [_Watch(self, [setting for setting, _ in members])]

    def show(self, line: str) -> None:
        """Draw the table again, or print a line where there is no terminal."""
        if self.live is None:
            tell(line)
        else:
            self.live.update(self._table(line), refresh=True)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()

    def best(self) -> list[int]:
        """Settings by their figures, best first."""
        sign = -1.0 if self.monitor.endswith("accuracy") else 1.0
        return sorted(self.values, key=lambda setting: sign * self.values[setting])

    def text(self, setting: int) -> str:
        """A setting's figure."""
        value = self.values[setting]
        return f"{100 * value:.2f} %" if self.monitor.endswith("accuracy") else f"{value:.4f}"

    def _table(self, caption: str) -> Table:
        table = Table(caption=caption, caption_justify="left")
        for name in (*self.names, self.monitor):
            table.add_column(name, justify="right")
        for setting in self.best()[:_SHOWN]:
            if setting < len(self.points):
                cells = [show(getattr(self.points[setting], name)) for name in self.names]
            else:
                cells = ["default", *[""] * (len(self.names) - 1)]
            table.add_row(*cells, self.text(setting))
        return table


class _Watch(Callback):
    """Tells the board what each epoch of one population brought."""

    def __init__(self, board: _Board, settings: Sequence[int]):
        self.board, self.settings = board, np.asarray(settings)

    def on_epoch(self, trainer: PopulationTrainer, row: dict[str, Any]) -> None:
        board, curves = self.board, trainer.history.curves
        board.monitor = "val_accuracy" if "val_accuracy" in curves else "val_loss"
        values = curves[board.monitor][-1]
        for setting in np.unique(self.settings[np.isfinite(values)]).tolist():
            board.values[setting] = float(np.nanmean(values[self.settings == setting]))
        if not board.values:
            return
        best = board.best()[0]
        names = "default" if best >= len(board.points) else board.points[best].describe(board.names)
        board.show(
            f"epoch {trainer.epoch}/{trainer.epochs}  {row['running']} of {self.settings.size} "
            f"networks running  best {board.text(best)} ({names})"
        )


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


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
