"""Optimizers: ``params = optimizer.update(params, grads)``.

An optimizer keeps its own state, by parameter name, and counts its steps. It never writes into the
arrays it is given: it returns new ones. Hyperparameters may be numbers, or sequences of P numbers
for a population, one for each member.

The maths of each update is in :mod:`xpmlp.ops.update`.
"""

from .adaptive import Adadelta, Adamax, AMSGrad, Lion, NAdam, RAdam
from .base import Hyper, Optimizer
from .clipping import clip_by_global_norm
from .rules import SGD, AdaGrad, Adam, AdamW, Muon, RMSProp

OPTIMIZERS = {
    "sgd": SGD,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
    "muon": Muon,
    "amsgrad": AMSGrad,
    "nadam": NAdam,
    "radam": RAdam,
    "adamax": Adamax,
    "adadelta": Adadelta,
    "lion": Lion,
}
"""Optimizers by the names used on command lines and in config files."""

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AMSGrad",
    "AdaGrad",
    "Adadelta",
    "Adam",
    "AdamW",
    "Adamax",
    "Hyper",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSProp",
    "clip_by_global_norm",
]
