"""Losses: ``loss.forward(outputs, targets)`` gives the value, ``loss.backward()`` its gradient.

All reduce over the batch axis N (and the outputs M) of arrays (…, N, M), so that each leading
index, such as a member of a population, has a loss of its own; their gradients do not mix.

A forward keeps its gradient or what it needs for it, so the backward takes no arguments.
"""

from __future__ import annotations

from typing import Any

from ..choices import Output
from . import elementwise
from .base import Loss
from .classes import NLL, KLDivergence, MulticlassHinge
from .cross_entropy import SoftmaxCrossEntropy
from .elementwise import *  # noqa: F403

__all__ = ["NLL", "KLDivergence", "Loss", "MulticlassHinge", "SoftmaxCrossEntropy", "loss_for"]
__all__ += elementwise.__all__


def loss_for(output: Output | None, *, label_smoothing: Any = 0.0) -> Loss:
    """The loss that goes with what a network's outputs mean.

    Parameters
    ----------
    output : {"softmax", "sigmoid", "identity"} or None
        As :class:`~xpmlp.models.FullyConnectedNet` has it: cross-entropy, binary cross-entropy,
        mean squared error. None, of a model that does not say: cross-entropy.
    label_smoothing : float or sequence of P floats
        Of classes.
    """
    if output == "identity":
        return elementwise.MSE()
    if output == "sigmoid":
        return elementwise.BCEWithLogits()
    return SoftmaxCrossEntropy(label_smoothing=label_smoothing)
