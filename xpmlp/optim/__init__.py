"""Optimizers: ``params = optimizer.update(params, grads)``.

An optimizer keeps its own state, by parameter name, and counts its steps. It never writes into the
arrays it is given: it returns new ones. Hyperparameters may be numbers, or sequences of P numbers
for a population, one for each member.

The maths of each update is in :mod:`xpmlp.ops.update`.
"""

from .base import Hyper, Optimizer
from .clipping import clip_by_global_norm
from .rules import OPTIMIZERS, SGD, AdaGrad, Adam, AdamW, Muon, RMSProp

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Hyper",
    "Muon",
    "Optimizer",
    "RMSProp",
    "clip_by_global_norm",
]
