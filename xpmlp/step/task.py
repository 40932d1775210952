"""What a step of training is made of."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from ..layers.base import Layer
from ..losses import Loss
from ..penalties import Penalty


class Task(NamedTuple):
    """The six parts of a step, as :class:`~xpmlp.training.TrainStep` takes them.

    ``optimizer`` is None where a step does all but the update.
    """

    model: Layer
    loss: Loss
    optimizer: Any
    penalty: Penalty | None = None
    clip_norm: Any = None
    precision: str | None = None

    def is_made_of(self, other: Task | None) -> bool:
        """Whether these are the very same objects."""
        return other is not None and all(map(operator.is_, self, other))
