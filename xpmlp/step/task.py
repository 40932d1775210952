"""What a step of training is made of, and which options of that a step fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..choices import Precision
from ..layers.base import Layer
from ..layers.containers import Container
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
    precision: Precision | None = None

    def is_made_of(self, step: Any) -> bool:
        """Whether these are the very parts that a step has now."""
        return (
            self.model is step.model
            and self.loss is step.loss
            and self.optimizer is step.optimizer
            and self.penalty is step.penalty
            and self.clip_norm is step.clip_norm
            and self.precision is step.precision
        )

    def options(self) -> Iterator[tuple[Any, str, Any]]:
        """(object, attribute, value) of everything that is no array and changes what a step does.

        The optimizer's numbers are not among them: they may change at every step.
        """
        for owner in (self.loss, self.penalty, *dict.fromkeys(all_layers(self.model))):
            for name, value in () if owner is None else vars(owner).items():
                if not name.startswith("_") and name not in _ARRAYS:
                    yield owner, name, value
        yield self.loss, "class_weights", getattr(self.loss, "class_weights", None)
        for name in ("slots", "nesterov"):
            yield self.optimizer, name, getattr(self.optimizer, name, None)


_ARRAYS = ("params", "grads", "state", "step", "layers", "children")


def all_layers(model: Layer) -> Sequence[Layer]:
    """Every layer that is no container."""
    if not isinstance(model, Container):
        return [model]
    return [leaf for child in model.children.values() for leaf in all_layers(child)]
