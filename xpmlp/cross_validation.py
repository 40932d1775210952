"""Cross-validation: every fold, seed and setting is a member of one population.

A member trains on gathers of its own rows only, with inputs normalized by statistics of these rows,
and is scored on the rows of its fold, which it has never seen in any way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .choices import FloatName, Output
from .data import Normalization
from .data.orders import Orders, fold_rows
from .errors import ConfigError, DTypeError, WorkerError
from .sweep import AXES, Settings
from .sweep.grid import check_points
from .sweep.plan import plan
from .sweep.run import check_seeds, trainer_for
from .sweep.settings import build_loss
from .units import EndWhenAsked, Pool, Units


@dataclass
class CrossValidation:
    """What came of a cross-validation.

    Attributes
    ----------
    settings : list of Settings
    cv_results_ : dict of str to ndarray or list
        As scikit-learn's GridSearchCV has it, a value for each setting: ``params``,
        ``param_<name>`` for options that differ, ``split<i>_test_score``, ``mean_test_score``,
        ``std_test_score``, ``rank_test_score``, ``mean_test_loss``, ``diverged`` (how many of its
        networks) and ``mean_fit_time``, a network's share of the time that all took together.
        Split i is fold ``i % folds`` with seed number ``i // folds``.
    folds : list of int arrays
        The rows held out in each fold.
    seeds : list of int
    scoring : str
        What the scores are: ``"accuracy"``, ``"r2"`` or ``"neg_loss"``.
    seconds : float
    failures : dict of int to str
        Settings that no worker could train, and why.
    """

    settings: list[Settings]
    cv_results_: dict[str, Any]
    folds: list[np.ndarray]
    seeds: list[int]
    scoring: str
    seconds: float
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def best_index_(self) -> int:
        """The setting with the best mean score."""
        return int(np.argmin(self.cv_results_["rank_test_score"]))

    @property
    def best_settings_(self) -> Settings:
        """That setting itself."""
        return self.settings[self.best_index_]

    @property
    def best_score_(self) -> float:
        """Its mean score over folds and seeds."""
        return float(self.cv_results_["mean_test_score"][self.best_index_])

    def table(self) -> Any:
        """The results, best first: a DataFrame where pandas is installed, else a list of dicts."""
        order = np.argsort(self.cv_results_["rank_test_score"], kind="stable").tolist()
        rows = [{name: values[i] for name, values in self.cv_results_.items()} for i in order]
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows, index=order)


def cross_validate(
    x: Any,
    y: Any,
    settings: Settings | Sequence[Settings],
    *,
    outputs: int | None = None,
    output: Output = "softmax",
    folds: Any = 5,
    seeds: int | Sequence[int] = 1,
    split_seed: int = 0,
    stratify: bool | None = None,
    normalize: bool = True,
    memory: int | None = None,
    dtype: FloatName = "float32",
    progress: bool = False,
    executor: Executor | Callable[[], Executor] | None = None,
    groups: Any = None,
) -> CrossValidation:
    """Train every setting with every seed on every fold's complement, and score it on the fold.

    Parameters
    ----------
    x : array_like, shape (N, …)
    y : array_like, shape (N,) of class numbers, or (N, M)
    settings : Settings or sequence of them
        Networks and how to train them; see :func:`xpmlp.sweep.expand` for grids.
    outputs : int, optional
        M. Default: the number of classes, or of y's columns.
    output : {"softmax", "sigmoid", "identity"}
    folds : int, sequence of int arrays or of pairs of them, or splitter
        How many; or the rows held out in each, all others being trained on; or the rows trained on
        and those held out, ``(train, test)``; or what gives such pairs by ``split(x, y, groups)``,
        as scikit-learn's splitters do.
    seeds : int or sequence of int
        How many networks for each fold and setting, from seed 0, or which seeds. A seed fixes
        weights, masks and batch order.
    split_seed : int
        Of the division into folds.
    stratify : bool, optional
        Whether every class is spread evenly over the folds. Default: for classes, yes.
    normalize : bool
        Whether inputs are normalized by the statistics of each fold's training rows: feature by
        feature for tables (N, D), all together for images.
    memory : int, optional
        Bytes that may be used. Default: most of what is free.
    dtype : str
    progress : bool
        Only without an executor.
    executor : concurrent.futures.Executor, or a function that makes one, optional
        Whose workers train the populations: settings are divided, each with all its folds and
        seeds. See :mod:`xpmlp.units`. The same populations give the same bits.
    groups : array_like, shape (N,), optional
        For a splitter that goes by groups of rows.

    Returns
    -------
    CrossValidation
        A network that diverges scores NaN, and its setting comes last; so does one that no worker
        could train.

    Raises
    ------
    ConfigError
        If there are no settings, seeds or folds, or the same ones twice; if folds are not rows of
        x; if not even one setting fits into memory.
    DTypeError
        If classes are not numbered.
    WorkerError
        If no worker could train any setting.

    Notes
    -----
    Every epoch has as many steps as the smallest training set allows; if folds differ by a row, a
    network of a larger one leaves out one row an epoch, another one each time. All epochs are
    trained: choosing the best one by the held-out rows would make their score a lie.

    Examples
    --------
    >>> grid = expand({"lr": [1e-3, 1e-2], "dropout": [0.0, 0.2]}, Settings(epochs=20))
    >>> found = cross_validate(x, y, grid, folds=5, seeds=3)      # 60 networks at once
    >>> found.table()[["param_lr", "param_dropout", "mean_test_score", "std_test_score"]]
    """
    settings = [settings] if isinstance(settings, Settings) else list(settings)
    check_points(settings)
    x, y = np.asarray(x), np.asarray(y)
    if output == "softmax" and y.dtype.kind not in "bui":
        raise DTypeError(
            f"`cross_validate`: expected class numbers as integers, got {y.dtype}; names become "
            "numbers with classes, y = numpy.unique(y, return_inverse=True); for a regression "
            "give output='identity'"
        )
    if output == "identity" and y.ndim == 1:
        y = y[:, None]
    if outputs is None:
        outputs = int(y.max()) + 1 if output == "softmax" else int(y.shape[1])
    numbers = check_seeds("cross_validate", seeds)
    labels = y if (output == "softmax" if stratify is None else stratify) else None
    if isinstance(folds, int | np.integer):
        parts: Any = fold_rows(len(x), int(folds), seed=split_seed, labels=labels)
    elif hasattr(folds, "split") and hasattr(folds, "get_n_splits"):
        # Yes or no and numbers in one column are (N,) to a splitter.
        parts = folds.split(x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y, groups)
    else:
        parts = folds
    trained_on, held_out = _check_folds(parts, len(x))
    work = _Work(x, y, outputs, output, trained_on, held_out, numbers, normalize, dtype, settings)
    work.progress = progress and executor is None
    start = time.perf_counter()
    found = np.full((3, len(settings), len(work.splits)), np.nan)  # scores, losses, seconds
    failures: dict[int, str] = {}
    with Pool(executor) as pool:
        groups = plan(
            settings,
            len(work.splits),
            work.options["inputs"],
            outputs,
            "own",
            dtype,
            memory,
            workers=pool.workers,
            sharing=pool.sharing,
        )
        units = Units(_Work.train, groups, work, pool)
        for outcome in units:
            group = groups[outcome.number]
            if outcome.failure is not None:
                failures |= dict.fromkeys(group, outcome.failure)
            elif outcome.result is None:
                raise KeyboardInterrupt
            else:
                found[:, group] = outcome.result
    if units.interrupted:
        raise KeyboardInterrupt
    if len(failures) == len(settings):
        raise WorkerError(f"`cross_validate`: no setting could be trained; {failures[0]}")
    results = _results(settings, *found)
    results["diverged"][list(failures)] = 0
    seconds = time.perf_counter() - start
    return CrossValidation(settings, results, held_out, numbers, work.scoring, seconds, failures)


class _Work:
    """The data of a cross-validation, its folds, and how a group of settings is trained on them."""

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        outputs: int,
        output: Output,
        trained_on: list[np.ndarray],
        held_out: list[np.ndarray],
        seeds: list[int],
        normalize: bool,
        dtype: FloatName,
        settings: list[Settings],
    ):
        self.settings, self.progress = settings, False
        self.scoring = {"softmax": "accuracy", "identity": "r2"}.get(output, "neg_loss")
        self.x, self.y, self.held_out = x, y, held_out
        self.splits = [(fold, seed) for seed in seeds for fold in range(len(held_out))]
        self.trained_on = trained_on
        self.norms = None
        if normalize:
            self.norms = [
                Normalization.fit(x[rows], per_feature=x.ndim == 2) for rows in self.trained_on
            ]
        self.output: Output = output
        self.options: dict[str, Any] = {
            "inputs": int(np.prod(x.shape[1:])),
            "outputs": outputs,
            "output": output,
            "dtype": dtype,
        }

    def train(self, group: list[int]) -> np.ndarray | None:
        """Scores, losses and seconds of a group's settings, (3, settings, splits).

        None if it was interrupted.
        """
        start = time.perf_counter()
        own = [self.settings[number] for number in group for _ in self.splits]
        splits = [split for _ in group for split in self.splits]
        folds, seeds = [fold for fold, _ in splits], [seed for _, seed in splits]
        trainer = trainer_for(
            own,
            seeds,
            **self.options,
            orders=Orders([self.trained_on[fold] for fold in folds], seeds),
            normalization=None if self.norms is None else [self.norms[fold] for fold in folds],
            callbacks=[EndWhenAsked()],
            progress=self.progress,
        )
        history = trainer.fit(self.x, self.y)
        if history.interrupted:
            return None
        trainer.loss = build_loss([Settings()], self.output)  # label smoothing is for training
        found = trainer.evaluate_members(self.x, self.y, [self.held_out[fold] for fold in folds])
        finished = np.array([ending == "finished" for ending in history.endings])
        losses = np.where(finished, found["loss"], np.nan)
        scores = -losses
        if self.scoring != "neg_loss":
            scores = np.where(finished, found[self.scoring], np.nan)
        seconds = np.full(losses.shape, (time.perf_counter() - start) / len(own))
        return np.stack([scores, losses, seconds]).reshape(3, len(group), len(self.splits))


def _results(
    settings: Sequence[Settings], scores: np.ndarray, losses: np.ndarray, seconds: np.ndarray
) -> dict[str, Any]:
    """The table that scikit-learn's GridSearchCV would make of (settings, splits) arrays."""
    varied = [name for name in AXES if len({getattr(own, name) for own in settings}) > 1]
    results: dict[str, Any] = {
        "params": [{name: getattr(own, name) for name in varied} for own in settings]
    }
    for name in varied:
        results[f"param_{name}"] = [getattr(own, name) for own in settings]
    for split in range(scores.shape[1]):
        results[f"split{split}_test_score"] = scores[:, split]
    results["mean_test_score"] = scores.mean(axis=1)
    results["std_test_score"] = scores.std(axis=1)
    results["rank_test_score"] = _ranks(results["mean_test_score"])
    results["mean_test_loss"] = losses.mean(axis=1)
    results["diverged"] = np.isnan(losses).sum(axis=1)
    results["mean_fit_time"] = seconds.mean(axis=1)
    return results


def _ranks(means: np.ndarray) -> np.ndarray:
    """1 for the best; equals share the better rank; NaN comes last."""
    means = np.where(np.isfinite(means), means, -np.inf)
    return np.array([1 + int(np.sum(means > own)) for own in means])


def _check_folds(folds: Iterable[Any], n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The rows trained on and those held out in each fold, as sorted int64 arrays.

    Each row is at most once in a fold, and either to train on or held out.
    """
    trained_on, held_out = [], []
    for fold in folds:
        pair = isinstance(fold, tuple | list) and len(fold) == 2 and np.ndim(fold[0]) == 1
        train, test = fold if pair else (None, fold)
        test = _check_rows(test, n)
        train = np.setdiff1d(np.arange(n), test) if train is None else _check_rows(train, n)
        if train.size == 0 or np.intersect1d(train, test).size:
            raise ConfigError(
                "`cross_validate`: expected folds of rows with one left to train on, and none of "
                f"these held out too, got {train.size} to train on and {test.size} held out"
            )
        trained_on.append(train)
        held_out.append(test)
    if not held_out:
        raise ConfigError("`cross_validate`: expected folds, got 0 folds")
    return trained_on, held_out


def _check_rows(rows: Any, n: int) -> np.ndarray:
    given = np.asarray(rows)
    own = np.unique(given)
    fits = given.ndim == 1 and own.dtype.kind in "iu" and own.size == given.size > 0
    if not fits or own[0] < 0 or own[-1] >= n:
        raise ConfigError(
            f"`cross_validate`: expected folds of row numbers in 0…{n - 1}, each with a row in it, "
            f"and none twice, got {given!r:.100}"
        )
    return own.astype(np.int64)
