"""The network of an estimator: how it is built and pickled."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ..backend import asarray, to_numpy
from ..layers import Dropout, Linear
from ..models import FullyConnectedNet
from ..optim import Optimizer


def build_network(sizes: Sequence[int], activation: str, **options: Any) -> FullyConnectedNet:
    """A network with scikit-learn's name of an activation, or ours."""
    return FullyConnectedNet(sizes, activation=network_activation(activation), **options)


def network_activation(name: str) -> Any:
    """Our name of an activation."""
    return {"logistic": "sigmoid"}.get(name, name)


def snapshot(model: FullyConnectedNet) -> dict[str, Any]:
    """All that a training changes in a network, for :func:`put_back`."""
    return {"arrays": model.state_dict(), "dropout_steps": dropout_steps(model)}


def put_back(model: FullyConnectedNet, kept: dict[str, Any]) -> None:
    """Make a network what it was."""
    model.load_state_dict(kept["arrays"])
    for name, layer in model.named_layers():
        if isinstance(layer, Dropout):
            layer.step = kept["dropout_steps"][name]


def dropout_steps(model: FullyConnectedNet) -> dict[str, int]:
    """Which mask comes next in each dropout layer."""
    return {name: layer.step for name, layer in model.named_layers() if isinstance(layer, Dropout)}


def linear_layers(network: FullyConnectedNet) -> list[Linear]:
    """Its fully connected layers, first to last."""
    return [layer for layer in network.layers if isinstance(layer, Linear)]


def freeze(model: FullyConnectedNet, optimizer: Optimizer) -> dict[str, Any]:
    """A network and its optimizer as plain data and host arrays."""
    still = copy.copy(optimizer)
    still.state = {
        name: tuple(to_numpy(slot) for slot in slots) for name, slots in optimizer.state.items()
    }
    still._arrays = {}
    return {"_network": {"config": dict(model.config), **snapshot(model)}, "_optimizer": still}


def thaw(frozen: dict[str, Any], optimizer: Optimizer) -> tuple[FullyConnectedNet, Optimizer]:
    """Undo :func:`freeze`, on the current backend."""
    model = FullyConnectedNet.blank(frozen["config"])
    put_back(model, frozen)
    optimizer = copy.copy(optimizer)
    optimizer.state = {
        name: tuple(asarray(slot) for slot in slots) for name, slots in optimizer.state.items()
    }
    return model, optimizer
