"""Layers with explicit ``forward`` and ``backward``, on any array library."""

from .activations import ELU, GELU, Activation, LeakyReLU, Log, ReLU, Sigmoid, SiLU, Softplus, Tanh
from .base import Layer, Parameter, State
from .containers import Container, Flatten, Residual, Sequential
from .dropout import Dropout
from .linear import Linear, Matmul
from .normalization import BatchNorm, LayerNorm, RMSNorm
from .softmax import LogSoftmax, Softmax

__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "BatchNorm",
    "Container",
    "Dropout",
    "Flatten",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Log",
    "LogSoftmax",
    "Matmul",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "State",
    "Tanh",
]
