"""Layers with explicit ``forward`` and ``backward``, on any array library."""

from . import activations
from .activations import *  # noqa: F403
from .base import Layer, Parameter, State
from .containers import Container, Flatten, Residual, Sequential
from .dropout import Dropout
from .embedding import EmbedColumns, Embedding
from .linear import Linear, Matmul
from .normalization import BatchNorm, LayerNorm, RMSNorm
from .periodic import Periodic
from .piecewise_linear import PiecewiseLinear
from .shared_linear import SharedLinear
from .softmax import LogSoftmax, Softmax

__all__ = [
    "BatchNorm",
    "Container",
    "Dropout",
    "EmbedColumns",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "Matmul",
    "Parameter",
    "Periodic",
    "PiecewiseLinear",
    "RMSNorm",
    "Residual",
    "Sequential",
    "SharedLinear",
    "Softmax",
    "State",
]
__all__ += activations.__all__
