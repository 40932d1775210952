"""The network of an estimator: how it is built and pickled."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ..backend import asarray, to_numpy
from ..layers import Dropout
from ..models import ACTIVATIONS, FullyConnectedNet
from ..optim import Optimizer

ACTIVATION_NAMES = ("identity", "logistic", *ACTIVATIONS)
"""Those of scikit-learn, and ours."""


def build_network(sizes: Sequence[int], activation: str, **options: Any) -> FullyConnectedNet:
    """A network with scikit-learn's name of an activation, or ours."""
    activation = {"logistic": "sigmoid"}.get(activation, activation)
    return FullyConnectedNet(sizes, activation=activation, **options)


def freeze(model: FullyConnectedNet, optimizer: Optimizer) -> dict[str, Any]:
    """A network and its optimizer as plain data and host arrays."""
    still = copy.copy(optimizer)
    still.state = {
        name: tuple(to_numpy(slot) for slot in slots) for name, slots in optimizer.state.items()
    }
    still._arrays = {}
    steps = {name: layer.step for name, layer in model.named_layers() if isinstance(layer, Dropout)}
    return {
        "model_": {
            "config": dict(model.config),
            "arrays": model.state_dict(),
            "dropout_steps": steps,
        },
        "_optimizer": still,
    }


def thaw(frozen: dict[str, Any], optimizer: Optimizer) -> tuple[FullyConnectedNet, Optimizer]:
    """Undo :func:`freeze`, on the current backend."""
    model = FullyConnectedNet(**frozen["config"])
    model.load_state_dict(frozen["arrays"])
    for name, layer in model.named_layers():
        if isinstance(layer, Dropout):
            layer.step = frozen["dropout_steps"][name]
    optimizer = copy.copy(optimizer)
    optimizer.state = {
        name: tuple(asarray(slot) for slot in slots) for name, slots in optimizer.state.items()
    }
    return model, optimizer
