"""thinc: its layers, loss gradient and optimizer, for a training step and an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cases import Case
from ..shapes import Net
from ..solver import Arrays, Build, NotOfferedError, Solver, Training, epoch_solver, race_solver
from .numpy_alone import largest, parameters_of


def _network(net: Net, parameters: Arrays) -> Any:
    """Linears and ReLUs with given weights; thinc keeps a weight as (M, D)."""
    from thinc.api import Linear, Relu, chain

    linears = []
    for number, (d, m) in enumerate(zip(net.sizes[:-1], net.sizes[1:], strict=True)):
        layer = (Relu if number < len(net.sizes) - 2 else Linear)(nO=m, nI=d)
        layer.initialize()
        layer.set_param("W", np.ascontiguousarray(parameters[f"W{number}"].T))
        layer.set_param("b", parameters[f"b{number}"].copy())
        linears.append(layer)
    return chain(*linears)


def _optimizer(net: Net) -> Any:
    from thinc.api import SGD, Adam

    # Clipping is on by default there; no other contestant clips.
    if net.optimizer == "sgd":
        return SGD(net.lr, grad_clip=0.0, L2=0.0, use_averages=False)
    return Adam(net.lr, grad_clip=0.0, L2=0.0, use_averages=False)


def _train_on(model: Any, optimizer: Any, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One step; returns the probabilities before it."""
    logits, backward = model.begin_update(x)
    probabilities = model.ops.softmax(logits)
    gradient = probabilities.copy()
    gradient[np.arange(len(labels)), labels] -= 1
    gradient /= len(labels)
    backward(gradient)
    model.finish_update(optimizer)
    return probabilities


def _step(case: Case, inputs: Arrays) -> Solver:
    net: Net = case.settings["net"]
    if net.batchnorm:
        raise NotOfferedError("thinc has no batch normalization")
    model, optimizer = _network(net, inputs), _optimizer(net)
    x, labels = inputs["x"], inputs["targets"]

    def loss(probabilities: np.ndarray) -> tuple:
        return (-np.log(probabilities[np.arange(len(labels)), labels]).mean(),)

    return Solver(lambda: _train_on(model, optimizer, x, labels), loss)


def _start(case: Case, inputs: Arrays, seed: int) -> Training:
    net, parameters = parameters_of(case, inputs, seed)
    model, optimizer = _network(net, parameters), _optimizer(net)
    x, labels, rng = inputs["x"], inputs["labels"], np.random.default_rng(seed)
    scale = np.float32(1 / largest(x))

    def train_epoch() -> None:
        order = rng.permutation(len(x))
        for begin in range(0, len(x), net.batch):
            rows = order[begin : begin + net.batch]
            _train_on(model, optimizer, x[rows] * scale, labels[rows])

    def accuracy() -> float:
        guesses = model.predict(inputs["x_test"] * scale).argmax(axis=1)
        return float((guesses == inputs["labels_test"]).mean())

    return train_epoch, accuracy


SOLVERS: dict[str, Build] = {
    "step": _step,
    "epoch": epoch_solver(_start),
    "time_to_accuracy": race_solver(_start),
}
