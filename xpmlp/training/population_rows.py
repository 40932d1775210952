"""The rows of a population's members: those to train on, and those that they are judged by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..choices import Sampling
from ..data.member_batches import MemberBatches
from ..data.normalization import Normalization
from ..data.orders import Orders, fold_orders, orders_for
from ..data.sparse_rows import is_sparse
from ..errors import ConfigError, ShapeError
from ..memory_budget import bytes_per_member, check_fits
from ..models import FullyConnectedNet
from ..ops.piecewise_linear import count_codes
from .minibatches import check_rows_of_members, check_targets, floating_dtype, minibatches
from .out_of_fold import OutOfFold, folds_of
from .scores import scores_of
from .selection import select_loss
from .trainer import Trainer

_EVALUATED = 16_384  # rows at a time, of all members together


class TrainerOfMembers(Trainer):
    """What a :class:`PopulationTrainer` does with data; see there."""

    model: FullyConnectedNet
    sampling: Sampling
    seeds: list[int]
    orders: Orders | None
    folds: int | Sequence[Any] | None
    normalizations: Normalization | Sequence[Normalization] | None
    out_of_fold: OutOfFold | None

    def evaluate(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """Means over the members of what :meth:`evaluate_members` gives."""
        scores = self.evaluate_members(x, y, sample_weight=sample_weight)
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def evaluate_members(
        self,
        x: Any,
        y: Any,
        rows: Sequence[np.ndarray] | None = None,
        *,
        sample_weight: Any = None,
    ) -> dict[str, np.ndarray]:
        """Loss and accuracy (or R²) of every member on other data, in evaluation mode.

        Parameters
        ----------
        x, y : array_like
        rows : P int arrays, optional
            The rows for each member, such as those that it was not trained on. Default: all, for
            all of them.
        sample_weight : array_like, shape (N,), optional
            What each row counts for.

        Returns
        -------
        dict of str to ndarray, shape (P,)
            ``loss``, ``accuracy`` in [0, 1] for classes and yes/no questions or ``r2`` for
            numbers, and the trainer's ``metrics``.
        """
        model = self.model
        if rows is None:
            held_out = self._held_out(x, y, sample_weight)
            return scores_of(model, self.loss, held_out.epoch(), self.metrics)
        check_count("rows", rows, model.population or 0)
        scores: dict[str, np.ndarray] = {}
        # Members that share their rows share the work: they are a population of their own.
        for members in self._alike(rows):
            part = model.select(members)
            taken = rows[members[0]]
            data = [_rows(values, taken) for values in (x, y, sample_weight)]
            found = self._held_out(*data, member=members[0])
            loss = select_loss(self.loss, members)
            for name, values in scores_of(part, loss, found.epoch(), self.metrics).items():
                own = scores.setdefault(name, np.full(len(rows), np.nan))
                own[members] = values
        return scores

    def _check_memory(self, own_batches: bool) -> None:
        """Only of main memory: a device's library tells when its memory is full."""
        model = self.model
        if not all(isinstance(array, np.ndarray) for array in model.params.values()):
            return
        sizes = [size if isinstance(size, int) else max(size) for size in model.config["sizes"]]
        if model.config["columns"] is not None:
            sizes[0] = count_codes(model.config["columns"])
        each = bytes_per_member(
            sizes,
            self.batch_size,
            slots=self.optimizer.slots,
            own=own_batches,
            itemsize=np.dtype(model.dtype).itemsize,
            sharing=(model.population or 1) if model.shared_params else 1,
        )
        check_fits("PopulationTrainer", model.population or 1, each, "in training")

    def _batches(self, x: Any, y: Any, weights: np.ndarray | None = None) -> Any:
        x = x if hasattr(x, "shape") else np.asarray(x)
        check_rows_of_members(self.model, x)
        orders = self._orders(y, x.shape[0])
        options: dict[str, Any] = {"batch_size": self.batch_size, "drop_last": self.drop_last}
        options["sample_weight"] = weights
        if orders is None:
            options |= {"shuffle": self.shuffle, "seed": self.seed}
            options |= {"normalization": self.normalization, "loss": self.loss}
            return minibatches(self.model, x, y, **options)
        if not self.shuffle:
            orders = Orders(orders.rows, orders.seeds, shuffle=False)
        options |= {"normalization": self.normalizations, "dtype": floating_dtype(self.model)}
        batches = MemberBatches(x, y, orders, **options)
        check_targets(self.model, self.loss, batches.y)
        if self.folds is not None:
            size = max(1, _EVALUATED // (self.model.population or 1))
            self.out_of_fold = OutOfFold(self._folds, batches, size)
        return batches

    def _orders(self, y: Any, rows: int) -> Orders | None:
        """Which rows each member trains on; None for one order that all share."""
        if self.folds is not None:
            self._folds = folds_of(self.folds, y, rows, self.seeds[0])
            return fold_orders(self._folds, rows, self.seeds)
        return self.orders or orders_for(self.sampling, rows, self.seeds)

    def _alike(self, rows: Sequence[np.ndarray]) -> Iterable[list[int]]:
        """The members, grouped by equal rows and normalization."""
        groups: dict[tuple, list[int]] = {}
        for member, own in enumerate(rows):
            key = np.asarray(own, dtype=np.int64).tobytes(), id(self._normalization_of(member))
            groups.setdefault(key, []).append(member)
        return groups.values()

    def _normalization_of(self, member: int | None) -> Normalization | None:
        given = self.normalizations
        if given is None or isinstance(given, Normalization):
            return given
        if member is None:
            raise ConfigError(
                "`PopulationTrainer`: expected one normalization where all members see the same "
                f"rows, got {len(given)}; evaluate with rows=, or leave validation out"
            )
        return given[member]

    def _held_out(
        self, x: Any, y: Any, sample_weight: Any = None, *, member: int | None = None
    ) -> Any:
        return minibatches(
            self.model,
            x,
            y,
            sample_weight=sample_weight,
            batch_size=max(1, _EVALUATED // (self.model.population or 1)),
            shuffle=False,
            normalization=self._normalization_of(member),
            loss=self.loss,
        )


def _rows(values: Any, chosen: np.ndarray) -> Any:
    if values is None or is_sparse(values):
        return values if values is None else values.tocsr()[chosen]
    return np.asarray(values)[chosen]


def member_seeds(seed: int | Sequence[int], population: int, shared: bool) -> list[int]:
    """One seed a member; only the first counts where all share an order."""
    if isinstance(seed, int | np.integer):
        return [int(seed) + (0 if shared else member) for member in range(population)]
    if shared:
        raise ConfigError(
            "`PopulationTrainer`: expected one seed for shared minibatches, got "
            f"{len(seed)}; give sampling='own' for an order of its own for each member"
        )
    check_count("seed", seed, population)
    return [int(own) for own in seed]


def check_count(name: str, values: Sequence[Any], population: int) -> None:
    """Raise ShapeError unless there is a value for each member."""
    if len(values) != population:
        raise ShapeError(
            f"`PopulationTrainer`: expected {name} for each of {population} members, got "
            f"{len(values)}"
        )
