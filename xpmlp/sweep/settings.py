"""What a sweep may vary, and a population made of such settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..choices import (
    FloatName,
    HiddenActivation,
    NormalizationName,
    OptimizerName,
    Output,
    ScheduleName,
)
from ..errors import ConfigError
from ..losses import Loss, loss_for
from ..models import FullyConnectedNet
from ..ops.shapes import check_choice
from ..optim import OPTIMIZERS, Optimizer

AXES = (
    "lr",
    "weight_decay",
    "dropout",
    "label_smoothing",
    "momentum",
    "batch_size",
    "hidden",
)
"""What may differ from setting to setting of one sweep."""

_MOMENTUM = {
    name: "momentum" if hasattr(kind, "momentum") else "beta1"
    for name, kind in OPTIMIZERS.items()
    if hasattr(kind, "momentum") or hasattr(kind, "beta1")
}


@dataclass(frozen=True)
class Settings:
    """A network and how to train it.

    Attributes
    ----------
    hidden : tuple of int
        Hidden widths.
    lr, weight_decay, dropout, label_smoothing : float
    momentum : float, optional
        SGD's and Muon's momentum, Adam's and AdamW's β₁; None for the optimizer's own default.
    batch_size : int
    epochs : int
    activation, normalization, optimizer, schedule
        By name, as :class:`~xpmlp.models.FullyConnectedNet` and :mod:`xpmlp.optim` have them.
    clip_norm : float, optional
    """

    hidden: tuple[int, ...] = (128,)
    lr: float = 1e-3
    weight_decay: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    momentum: float | None = None
    batch_size: int = 128
    epochs: int = 10
    activation: HiddenActivation = "relu"
    normalization: NormalizationName | None = None
    optimizer: OptimizerName = "adamw"
    schedule: ScheduleName = "constant"
    clip_norm: float | None = None

    def with_options(self, options: Mapping[str, Any]) -> Settings:
        """The same with some options replaced.

        Raises
        ------
        ConfigError
            For an unknown name.
        """
        known = [field.name for field in fields(self)]
        for name in options:
            if name not in known:
                raise ConfigError(
                    f"`Settings`: expected options among {', '.join(known)}, got {name!r}"
                )
        return replace(self, **options)

    def describe(self, names: Sequence[str] = AXES) -> str:
        """Some options in words: ``lr=0.01 hidden=64x32``."""
        return " ".join(f"{name}={show(getattr(self, name))}" for name in names)

    def together_with(self) -> tuple:
        """What settings must have in common to be trained in one population."""
        common = [getattr(self, f.name) for f in fields(self) if f.name not in AXES]
        return (self.batch_size, len(self.hidden), self.momentum is None, *common)


def show(value: Any) -> str:
    """A setting's value as the command line takes it."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def build_population(
    settings: Sequence[Settings],
    seeds: Sequence[int],
    *,
    inputs: int,
    outputs: int,
    output: Output = "softmax",
    dtype: FloatName = "float32",
) -> FullyConnectedNet:
    """One population with a member for each setting and seed, in order; narrow ones padded."""
    first = settings[0]
    hidden = [[own.hidden[place] for own in settings] for place in range(len(first.hidden))]
    return FullyConnectedNet(
        [inputs, *hidden, outputs],
        activation=first.activation,
        normalization=first.normalization,
        dropout=[own.dropout for own in settings],
        output=output,
        population=len(settings),
        seed=list(seeds),
        dtype=dtype,
    )


def build_optimizer(settings: Sequence[Settings]) -> Optimizer:
    """The optimizer of such a population, with a hyperparameter for each member where they differ.

    Raises
    ------
    ConfigError
        If the optimizer is unknown, or has no momentum to vary.
    """
    first = settings[0]
    check_choice("sweep", "optimizer", first.optimizer, tuple(OPTIMIZERS))
    options: dict[str, Any] = {
        "weight_decay": _hyper([own.weight_decay for own in settings]),
        "schedule": first.schedule,
    }
    if first.momentum is not None:
        if first.optimizer not in _MOMENTUM:
            raise ConfigError(
                f"`sweep`: expected an optimizer among {', '.join(_MOMENTUM)} for momentum, got "
                f"{first.optimizer!r}"
            )
        options[_MOMENTUM[first.optimizer]] = _hyper([own.momentum for own in settings])
    return OPTIMIZERS[first.optimizer](_hyper([own.lr for own in settings]), **options)


def build_loss(settings: Sequence[Settings], output: Output = "softmax") -> Loss:
    """The loss of such a population."""
    return loss_for(output, label_smoothing=_hyper([own.label_smoothing for own in settings]))


def _hyper(values: Sequence[Any]) -> Any:
    """One number where all are equal: kernels like that better."""
    return values[0] if len(set(values)) == 1 else list(values)
