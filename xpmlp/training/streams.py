"""Batches that come from elsewhere: torch's ``DataLoader``, or whatever can be looped over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..backend import is_array
from ..data.loader import Batches, as_array
from ..data.normalization import Normalization
from ..errors import ConfigError, DataError
from ..layers.base import Layer
from ..losses import Loss
from .minibatches import check_targets, floating_dtype, is_pair, minibatches, width_of
from .scores import check_outputs

_GIVE = "a list of batches, a DataLoader, or an object whose __iter__ begins anew"


class Stream:
    """Batches (x, y), or (x, y, weights of rows), of an iterable.

    They come on the current backend, in the model's dtype, and checked. Each loop over it is one
    loop over the source, whose order and shuffling are its own.

    Parameters
    ----------
    source : iterable of (x, y) or (x, y, sample_weight)
    model : Layer
    loss : Loss
    normalization : Normalization, optional

    Raises
    ------
    ConfigError
        If it is no iterable, or arrays without targets.
    """

    def __init__(
        self,
        source: Any,
        model: Layer,
        *,
        loss: Loss,
        normalization: Normalization | None = None,
    ):
        if not isinstance(source, Iterable) or is_array(source) or hasattr(source, "shape"):
            raise ConfigError(
                "`fit`: expected arrays x and y, or batches (x, y) as an iterable such as a "
                f"DataLoader, got {type(source).__name__} and no y"
            )
        self.source, self.model, self.loss = source, model, loss
        self.normalization = normalization

    def __len__(self) -> int:
        """Batches in an epoch; 0 if the source does not say."""
        try:
            return len(self.source)  # type: ignore[arg-type]
        except TypeError:  # torch's loaders have a method that raises
            return 0

    def epoch(self, number: int = 0) -> Iterator[tuple[Any, ...]]:
        """The batches of one epoch.

        Raises
        ------
        DataError
            If there are none, or one of them is no such tuple or does not fit.
        """
        count = 0
        for batch in self.source:
            yield self._prepared(batch, count)
            count += 1
        if not count:
            raise DataError(
                f"`fit`: expected batches in epoch {number + 1}, got none; a generator is used up "
                f"after one loop: give {_GIVE}"
            )

    def _prepared(self, batch: Any, number: int) -> tuple[Any, ...]:
        if not is_pair(batch):
            what = (
                f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
            )
            raise DataError(
                f"`fit`: expected each batch to be (x, y), or these and weights, got "
                f"{what} as batch {number}; a "
                "DataLoader's collate_fn, or a generator around it, makes pairs of what it has"
            )
        x, y, *weights = batch
        x, y = as_array(x), as_array(y)
        rows = Batches(
            x,
            y,
            sample_weight=weights[0] if weights else None,
            batch_size=max(1, len(x)),
            shuffle=False,
            normalization=self.normalization,
            dtype=floating_dtype(self.model),
        )
        check_targets(self.model, self.loss, rows.y)
        check_outputs("fit", self.loss, width_of(self.model, rows.x), rows.y)
        return next(rows.epoch())


def check_lasts(source: Any, epochs: int) -> None:
    """Raise ConfigError for what can be looped over once only, if that is too seldom."""
    if epochs > 1 and isinstance(source, Iterator):
        raise ConfigError(
            f"`fit`: expected batches for {epochs} epochs, got a {type(source).__name__}, which is "
            f"used up after one; give {_GIVE}, or train with epochs=1"
        )


def batches_of(model: Layer, x: Any, y: Any, *, loss: Loss, epochs: int = 1, **options: Any) -> Any:
    """Minibatches of arrays, or, without y, those that x brings, with weights of rows if there are.

    Parameters
    ----------
    epochs : int
        How often they are looped over.
    **options
        As for :func:`minibatches`; those of the rows' order are not for batches that are there.
    """
    if y is None:
        check_lasts(x, epochs)
        if options.get("ranks") is not None:
            raise ConfigError(
                "`fit`: expected arrays x and y for several ranks, which divide each batch's rows, "
                f"got a {type(x).__name__}; loop over your own rows with TrainStep(..., comm=...)"
            )
        if options.get("sample_weight") is not None:
            raise ConfigError(
                "`fit`: expected weights in the batches, as (x, y, sample_weight), got them apart"
            )
        return Stream(x, model, loss=loss, normalization=options.get("normalization"))
    if (not is_array(x) and isinstance(x, Iterator)) or hasattr(x, "collate_fn"):
        raise ConfigError(
            f"`fit`: expected arrays x and y, got a {type(x).__name__}, whose batches have their "
            "targets with them: fit(batches), without y"
        )
    batches = minibatches(model, x, y, loss=loss, **options)
    check_outputs("Trainer.fit", loss, width_of(model, batches.x), batches.y)
    return batches


def as_validation(given: Any, epochs: int) -> tuple[Any, ...] | None:
    """``validation=`` as (x, y) or (x, y, sample_weight), or (batches, None); None for none.

    Raises
    ------
    ConfigError
        For what is neither, or does not last for so many epochs.
    """
    if given is None:
        return None
    listed = isinstance(given, list) and all(isinstance(part, tuple) for part in given)
    if is_pair(given) and not listed:
        return tuple(given)
    loops = isinstance(given, Iterable) and not hasattr(given, "shape")
    if listed or (loops and not isinstance(given, str | tuple | list | dict)):
        check_lasts(given, epochs)
        return given, None
    raise ConfigError(
        "`Trainer.fit`: expected validation=(x, y) or (x, y, sample_weight), or batches of these, "
        f"got {type(given).__name__}"
    )


def check_known(*parts: Any) -> None:
    """Raise ConfigError if data come as batches, which a checkpoint could not tell from others."""
    if any(part is None for part in parts):
        raise ConfigError(
            "`Trainer.fit`: expected arrays x and y for a training that is saved or goes on: which "
            "rows an iterable brings, and in which order, cannot be known or repeated; leave the "
            "Checkpoint out, or give arrays"
        )
