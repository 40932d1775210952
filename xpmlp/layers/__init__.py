"""Layers with explicit ``forward`` and ``backward``, on any array library."""

from . import activations
from .activations import *  # noqa: F403
from .base import Layer, Parameter, State
from .containers import Container, Flatten, Residual, Sequential, Unflatten
from .convolution import Conv2D
from .dropout import Dropout
from .embedding import EmbedColumns, Embedding
from .gated import GLU, PReLU, PReLU2D, SwiGLU
from .image_norms import BatchNorm2D, GroupNorm
from .linear import Linear, Matmul
from .normalization import BatchNorm, LayerNorm, RMSNorm
from .periodic import Periodic
from .piecewise_linear import PiecewiseLinear
from .pooling import AvgPool2D, GlobalAvgPool2D, MaxPool2D
from .shared_linear import SharedLinear
from .softmax import LogSoftmax, Softmax

__all__ = [
    "GLU",
    "AvgPool2D",
    "BatchNorm",
    "BatchNorm2D",
    "Container",
    "Conv2D",
    "Dropout",
    "EmbedColumns",
    "Embedding",
    "Flatten",
    "GlobalAvgPool2D",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "Matmul",
    "MaxPool2D",
    "PReLU",
    "PReLU2D",
    "Parameter",
    "Periodic",
    "PiecewiseLinear",
    "RMSNorm",
    "Residual",
    "Sequential",
    "SharedLinear",
    "Softmax",
    "State",
    "SwiGLU",
    "Unflatten",
]
__all__ += activations.__all__
