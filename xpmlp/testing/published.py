"""The published numbers of CS231n's fully-connected-net notebooks, beside what comes out here.

``cs231n.json`` holds the values, how their inputs are made, and where both come from. Each function
gives pairs of ours and theirs, in full precision; the tests hold the notebooks' gradients as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..layers import Linear, ReLU, Sequential
from ..losses import MulticlassHinge, SoftmaxCrossEntropy
from ..optim import SGD, Adam, Optimizer, RMSProp

FIXTURES: dict[str, Any] = json.loads(
    Path(__file__).with_name("cs231n.json").read_text(encoding="utf-8")
)["fixtures"]

Pairs = dict[str, tuple[Any, Any]]


def affine_forward() -> Pairs:
    """A linear layer on inputs of three axes."""
    x = np.linspace(-0.1, 0.5, num=240).reshape(2, 4, 5, 6)
    w, b = np.linspace(-0.2, 0.3, num=360).reshape(120, 3), np.linspace(-0.3, 0.1, num=3)
    return _beside("affine_forward", out=Linear.from_arrays(w, b).forward(x))


def relu_forward() -> Pairs:
    """A rectifier."""
    x = np.linspace(-0.5, 0.5, num=12).reshape(3, 4)
    return _beside("relu_forward", out=ReLU().forward(x))


def softmax_loss() -> Pairs:
    """Cross-entropy of nearly equal scores."""
    return _loss("softmax_loss", SoftmaxCrossEntropy())


def svm_loss() -> Pairs:
    """The multiclass hinge of the same."""
    return _loss("svm_loss", MulticlassHinge())


def sgd_momentum() -> Pairs:
    """A step of SGD with momentum."""
    w, dw, velocity = optimizer_inputs()
    optimizer = SGD(1e-3, momentum=0.9)
    # The course's velocity is the step itself: v = −lr times ours.
    next_w, (ours,) = _update(optimizer, w, dw, (velocity / -1e-3,))
    return _beside("sgd_momentum", next_w=next_w, velocity=-1e-3 * ours)


def rmsprop() -> Pairs:
    """A step of RMSProp."""
    w, dw, cache = optimizer_inputs()
    next_w, (cache,) = _update(RMSProp(1e-2, decay=0.99, eps=1e-8), w, dw, (cache,))
    return _beside("rmsprop", next_w=next_w, cache=cache)


def adam() -> Pairs:
    """The sixth step of Adam."""
    w, dw, m = optimizer_inputs()
    optimizer = Adam(1e-2, beta1=0.9, beta2=0.999, eps=1e-8)
    optimizer.steps = 5
    v = np.linspace(0.7, 0.5, num=20).reshape(4, 5)
    next_w, (m, v) = _update(optimizer, w, dw, (m, v))
    return _beside("adam", next_w=next_w, m=m, v=v)


def two_layer_net_fc() -> Pairs:
    """The scores of a network of two layers."""
    x = np.linspace(-5.5, 4.5, num=15).reshape(5, 3).T
    return _beside("two_layer_net_fc", scores=two_layers().forward(x))


CHECKS: tuple[Callable[[], Pairs], ...] = (
    affine_forward,
    relu_forward,
    softmax_loss,
    svm_loss,
    sgd_momentum,
    rmsprop,
    adam,
    two_layer_net_fc,
)


def two_layers() -> Sequential:
    """The notebooks' network of two layers."""
    return Sequential(
        Linear.from_arrays(
            np.linspace(-0.7, 0.3, num=250).reshape(5, 50), np.linspace(-0.1, 0.9, num=50)
        ),
        ReLU(),
        Linear.from_arrays(
            np.linspace(-0.3, 0.4, num=350).reshape(50, 7), np.linspace(-0.9, 0.1, num=7)
        ),
    )


def scores_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """What the notebooks' losses are given."""
    R = np.random.RandomState(231)
    return 0.001 * R.randn(50, 10), R.randint(10, size=50)


def optimizer_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameter, gradient and state of the notebooks' optimizers."""
    return (
        np.linspace(-0.4, 0.6, num=20).reshape(4, 5),
        np.linspace(-0.6, 0.4, num=20).reshape(4, 5),
        np.linspace(0.6, 0.9, num=20).reshape(4, 5),
    )


def _loss(name: str, loss: Any) -> Pairs:
    value = loss.forward(*scores_and_labels())
    return {"loss": (value, FIXTURES[name]["expected"]["loss"])}


def _update(optimizer: Optimizer, w: Any, dw: Any, state: tuple[Any, ...]) -> tuple[Any, Any]:
    optimizer.state["w"] = state
    return optimizer.update({"w": w}, {"w": dw})["w"], optimizer.state["w"]


def _beside(name: str, **values: Any) -> Pairs:
    exact = FIXTURES[name]["full_precision"]
    return {key: (value, exact[key]) for key, value in values.items()}
