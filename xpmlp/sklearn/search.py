"""GridSearchCV and RandomizedSearchCV that train candidates and folds as populations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid, ParameterSampler, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable

from ..errors import ConfigError
from .estimator import BaseMLP
from .job import SEARCH
from .together import Collected, Fit, Prepared

_OF_SEARCH = ("n_iter", "random_state", "executor")


class PopulationSearchCV(GridSearchCV):
    """Search over parameters of a network, with cross-validation, many networks at a time.

    What :class:`sklearn.model_selection.GridSearchCV` does, or with ``n_iter``
    :class:`~sklearn.model_selection.RandomizedSearchCV`: the same parameters, results and
    attributes. The networks of all candidates and folds that differ in numbers alone are one
    population (:class:`~xpmlp.training.PopulationTrainer`), where each has the weights, batches and
    end that it would have alone.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, or a Pipeline that ends in one
        Of this library. The steps before it are fitted for each fold. Any other estimator is
        fitted as by GridSearchCV.
    param_grid : dict or list of dicts
        Values to try by parameter; with ``n_iter`` also distributions (of SciPy) to draw from.
    n_iter : int, optional
        How many candidates to draw from ``param_grid``. Default: all there are.
    random_state : int, RandomState or None
        Of the draws.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As for GridSearchCV; ``n_jobs`` and ``pre_dispatch`` are for what is not trained as
        populations, whose threads are those of :mod:`xpmlp` (``XPMLP_NUM_THREADS``). With
        ``verbose``, what is trained together is told.
    executor : concurrent.futures.Executor, or a function that makes one, optional
        Whose workers train the populations, about four for each of them: see :mod:`xpmlp.units`.
        Steps before the network, scores and the best one's training on all rows stay here. A search
        that is itself cloned, as in a nested one, needs a function, such as
        :class:`Processes(2) <xpmlp.units.Processes>`.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, …
        As of GridSearchCV. ``mean_fit_time`` is a network's share of its population's time.
    population_sizes_ : list of int
        How many networks were trained together each time, 1 for one alone.

    Notes
    -----
    Learning rates, momenta, ``alpha``, ``dropout``, seeds and widths may differ within a
    population, narrow networks being padded where that costs little; other parameters, and folds of
    another number of rows, make several. With ``early_stopping``, a population is of one fold.
    ``solver="lbfgs"`` and ``learning_rate="adaptive"`` are trained one by one. All data of a
    population are in memory, once for each different fold.

    Examples
    --------
    >>> grid = {"learning_rate_init": [1e-3, 1e-2], "alpha": [1e-4, 1e-2, 1.0]}
    >>> search = PopulationSearchCV(MLPClassifier((32,), random_state=0), grid, cv=5)
    >>> search.fit(X, y).best_params_
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        n_iter: int | None = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        executor: Executor | Callable[[], Executor] | None = None,
    ):
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.n_iter = n_iter
        self.random_state = random_state
        self.executor = executor

    def fit(self, X: Any, y: Any = None, **params: Any) -> PopulationSearchCV:
        """Train and score every candidate on every fold, and the best one on all rows.

        Parameters
        ----------
        X : array_like, shape (N, D)
        y : array_like, shape (N,) or (N, M)
        **params
            As for :meth:`GridSearchCV.fit <sklearn.model_selection.GridSearchCV.fit>`, such as
            ``sample_weight`` and ``groups``.

        Raises
        ------
        ConfigError
            For an ``n_iter`` that is no number of candidates.
        """
        candidates = self._candidates()
        X, y = indexable(X, y)
        options = self.get_params(deep=False)
        given = {name: value for name, value in options.items() if name not in _OF_SEARCH}
        # The same candidates and splits each time, whatever draws them.
        given["param_grid"] = [
            {name: [value] for name, value in candidate.items()} for candidate in candidates
        ]
        groups = {"groups": params["groups"]} if params.get("groups") is not None else {}
        cv: Any = check_cv(options["cv"], y, classifier=is_classifier(self.estimator))
        given["cv"] = list(cv.split(X, y, **groups))
        fits: list[Fit] = []
        self.population_sizes_: list[int] = []
        if self._are_ours(candidates):
            given["n_jobs"] = None
            fits = self._train(given, X, y, params)
        search = GridSearchCV(**given)
        token = SEARCH.set(Prepared(fits))
        try:
            search.fit(X, y, **params)
        finally:
            SEARCH.reset(token)
        for name, value in vars(search).items():
            if name.endswith("_") and not name.startswith("_"):
                setattr(self, name, value)
        self._share_times(fits, len(candidates))
        return self

    def _candidates(self) -> list[dict[str, Any]]:
        if self.n_iter is None:
            return list(ParameterGrid(self.param_grid))
        if not isinstance(self.n_iter, int | np.integer) or self.n_iter < 1:
            raise ConfigError(
                f"`PopulationSearchCV`: expected n_iter to be None or an integer ≥ 1, got "
                f"{self.n_iter!r}"
            )
        return list(ParameterSampler(self.param_grid, self.n_iter, random_state=self.random_state))

    def _are_ours(self, candidates: Iterable[dict[str, Any]]) -> bool:
        """Whether every candidate is one of our networks, or ends in one."""
        for candidate in candidates:
            estimator: Any
            given: Any
            with suppress(ValueError):  # an unknown parameter: scikit-learn's search says which
                estimator, given = clone(self.estimator), clone(candidate, safe=False)
                estimator.set_params(**given)
                if isinstance(estimator, Pipeline):
                    estimator = estimator.steps[-1][1]
                if not isinstance(estimator, BaseMLP):
                    if self.verbose:
                        kind = type(estimator).__name__
                        print(f"PopulationSearchCV: trained one by one, since {kind} is not ours")
                    return False
        return True

    def _train(self, given: dict[str, Any], X: Any, y: Any, params: dict[str, Any]) -> list[Fit]:
        """Every candidate on every fold, in the order in which a search fits them."""
        first: Any = {
            **given,
            "scoring": _nothing,
            "refit": False,
            "return_train_score": False,
            "verbose": 0,
            "error_score": 0.0,
        }
        collected = Collected()
        token = SEARCH.set(collected)
        try:
            with warnings.catch_warnings(), suppress(ValueError):
                # What cannot be fitted is told the second time.
                warnings.simplefilter("ignore", FitFailedWarning)
                GridSearchCV(**first).fit(X, y, **params)
        finally:
            SEARCH.reset(token)
        self.population_sizes_ = sizes = collected.train(self.executor)
        if self.verbose:
            alone = len(collected.fits) - sum(size for size in sizes if size > 1)
            together = [size for size in sizes if size > 1]
            print(
                f"PopulationSearchCV: {sum(together)} networks in {len(together)} populations of "
                f"{together}, {alone} one by one"
            )
        return collected.fits

    def _share_times(self, fits: Sequence[Fit], candidates: int) -> None:
        splits = self.n_splits_
        if len(fits) == candidates * splits:
            shares = np.array([fit.seconds for fit in fits]).reshape(candidates, splits)
            self.cv_results_["mean_fit_time"] = self.cv_results_["mean_fit_time"] + shares.mean(
                axis=1
            )
            self.cv_results_["std_fit_time"] = shares.std(axis=1)


def _nothing(estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
    """A score for what is not trained yet."""
    return 0.0
