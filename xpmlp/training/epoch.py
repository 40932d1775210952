"""The steps of one epoch: as a whole where a device can, else one by one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.resident import ResidentBatches
from ..metrics import answers_given, as_rows, right_answers, weights_of_rows
from ..step import TrainStep
from .rate_plan import last_rate
from .tally import EpochFigures, Tally

if TYPE_CHECKING:
    from .trainer import Trainer


def run_epoch(trainer: Trainer, step: TrainStep, batches: Any) -> EpochFigures:
    """All batches that are left of an epoch; values stay on the device until the end."""
    if not trainer._tally.steps:
        trainer._tally = Tally()  # its clock starts now
    loss, tally, number = trainer.loss, trainer._tally, trainer.epoch - 1
    watched = any(getattr(callback, "sees_steps", True) for callback in trainer.callbacks)
    # What rows count for, and how many outputs have a sign, is not known of a whole epoch.
    plain = not loss.weighs_rows and loss.answers != "yes_no"
    if isinstance(batches, ResidentBatches) and plain and not watched and not tally.steps:
        losses, hits = step.run_epoch(batches, number, lambda: trainer._ending is not None)
        step.settle()
        lead = 1 if trainer.model.population is None else 2
        steps = math.prod(step.lent_outputs.shape[lead:-1])  # of a sequence, each a row
        sizes = [rows * steps for rows in batches.sizes()]
        tally.take(losses, hits, sizes[: losses.shape[0]])
    elif step.comm is not None:
        _together(trainer, step, batches, number)
    else:
        _step_by_step(trainer, step, islice(batches.epoch(number), tally.steps, None))
        step.settle()
    return tally.figures(loss)


def _step_by_step(trainer: Trainer, step: TrainStep, batches: Iterable[tuple[Any, ...]]) -> None:
    loss, population, tally = trainer.loss, trainer.model.population, trainer._tally
    counts_rows = not loss.weighs_rows and loss.answers in ("classes", "numbers")
    for xb, yb, *weights in batches:
        value = step(xb, yb, *weights)
        tally.losses.append(value)
        outputs = step.lent_outputs
        if counts_rows and not weights and outputs.ndim == (2 if population is None else 3):
            rows = outputs.shape[-2]
        else:
            given, (outputs, targets) = outputs, as_rows(outputs, yb, population)
            weights = [weights_of_rows(weight, given, outputs) for weight in weights]
            rows = outputs.shape[-2]
            tally.units.append(loss.units(outputs, targets, *weights))
            tally.given.append(answers_given(loss, outputs, targets, *weights))
        correct = right_answers(loss, outputs, targets, *weights) if weights else step.correct
        if correct is not None:
            tally.hits.append(correct)
        tally.sizes.append(rows)
        for callback in trainer.callbacks:
            callback.on_step(trainer, value)
        if trainer._ending is not None:
            break


def row_of(trainer: Trainer, figures: EpochFigures) -> dict[str, Any]:
    """An epoch's row of the history; of a population, means over its members."""
    row: dict[str, Any] = {
        "epoch": trainer.epoch,
        "step": trainer.optimizer.steps,
        "train_loss": float(np.mean(figures.loss)),
    }
    if figures.accuracy is not None:
        row["train_accuracy"] = float(np.mean(figures.accuracy))
    row["lr"] = float(np.mean(last_rate(trainer.optimizer)))
    row["seconds"] = figures.seconds
    row["samples_per_second"] = figures.samples / figures.seconds
    return row


def _together(trainer: Trainer, step: TrainStep, batches: Any, number: int) -> None:
    """The same with other ranks: what all know of each step is theirs together."""
    loss, population, tally = trainer.loss, trainer.model.population, trainer._tally
    counts_rows = not loss.weighs_rows and loss.answers in ("classes", "numbers")
    begun = tally.steps
    parts = zip(batches.epoch(number), batches.shares(), strict=True)
    for (xb, yb, *weights), share in islice(parts, begun, None):
        step.wish = trainer.wish is not None
        value = step(xb, yb, *weights, share=share)
        figures = step.figures
        assert figures is not None
        tally.losses.append(value)
        plain = step.lent_outputs.ndim == (2 if population is None else 3)
        if weights or not (counts_rows and plain):
            tally.units.append(figures.units)
            tally.given.append(figures.given)
        if figures.correct is not None:
            tally.hits.append(figures.correct)
        tally.sizes.append(figures.rows)
        for callback in trainer.callbacks:
            callback.on_step(trainer, value)
        if figures.stopping:
            break
