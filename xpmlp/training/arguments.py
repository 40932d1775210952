"""What a trainer is made of, checked before anything is done with it."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..layers.base import Layer
from ..losses import Loss
from ..optim import Optimizer
from ..penalties import Penalty
from ..schedules import Constant


def check_parts(model: Any, loss: Any, optimizer: Any, penalty: Any) -> None:
    """Raise ConfigError for what is no model, loss, optimizer or penalty."""
    if not isinstance(model, Layer):
        raise ConfigError(f"`Trainer`: expected model to be a Layer, got {model!r:.200}")
    for name, value, kind, example in (
        ("loss", loss, Loss, "losses.MSE()"),
        ("optimizer", optimizer, Optimizer, "optim.AdamW(1e-3)"),
        ("penalty", penalty, Penalty, "penalties.L2(1e-4)"),
    ):
        if not isinstance(value, kind | None):
            raise ConfigError(
                f"`Trainer`: expected {name} to be a {kind.__name__}, such as {example}, got "
                f"{value!r}"
            )


def check_lr_decay(lr_decay: Any, schedule: Any) -> None:
    """Raise ConfigError for no factor, or one beside a schedule."""
    if not isinstance(lr_decay, Real) or not 0.0 < float(lr_decay) < np.inf:
        raise ConfigError(
            f"`Trainer`: expected lr_decay to be a finite number > 0, got {lr_decay!r}"
        )
    if lr_decay != 1.0 and not isinstance(schedule, Constant):
        raise ConfigError(
            "`Trainer`: expected lr_decay or an optimizer with a schedule, got both; drop one"
        )
