"""NumPy by hand, as one writes it without a library: a peer, and in float64 the referee.

Every formula is here once more, on purpose apart from :mod:`xpmlp.ops`. What goes in decides the
dtype of what comes out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cases import Case, initial_parameters
from ..shapes import DROPOUT, Net
from ..solver import Arrays, Build, Solver, Training, epoch_solver, race_solver


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[Any, np.ndarray]:
    """The mean loss and its gradient; of a population, the mean of each member."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exps = np.exp(shifted)
    sums = exps.sum(axis=-1, keepdims=True)
    loss = (np.log(sums[..., 0]) - shifted[..., rows, labels]).mean(axis=-1)
    grad = exps / sums
    grad[..., rows, labels] -= 1
    grad /= len(labels)
    return loss, grad


def mean_squared_error(y: np.ndarray, targets: np.ndarray) -> tuple[Any, np.ndarray]:
    """The mean loss and its gradient; of a population, the mean of each member."""
    difference = y - targets
    return (difference**2).mean(axis=(-2, -1)), difference * (2 / targets.size)


def batch_norm(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(axis=0), x.var(axis=0)
    inv_std = 1 / np.sqrt(var + eps)
    x_hat = (x - mean) * inv_std
    return x_hat * gamma + beta, (x_hat, inv_std, mean, var)


def batch_norm_backward(dy, gamma, saved):
    x_hat, inv_std, *_ = saved
    dgamma, dbeta = (dy * x_hat).sum(axis=0), dy.sum(axis=0)
    rows = len(dy)
    return gamma * inv_std * (dy - dbeta / rows - x_hat * (dgamma / rows)), dgamma, dbeta


def _softmax_cross_entropy(case: Case, inputs: Arrays) -> Solver:
    return Solver(lambda: cross_entropy(inputs["logits"], inputs["labels"]))


def _matmul(case: Case, inputs: Arrays) -> Solver:
    a, b = oriented(case, inputs["a"], inputs["b"])
    return Solver(lambda: np.matmul(a, b), lambda c: (c,))


def oriented(case: Case, a: Any, b: Any) -> tuple[Any, Any]:
    """The operands the right way round; the transposed one as a view."""
    transposed = case.settings["transposed"]
    a = a.swapaxes(-1, -2) if transposed == "aT" else a
    return a, b.swapaxes(-1, -2) if transposed == "bT" else b


def _linear(case: Case, inputs: Arrays) -> Solver:
    x, W, b, dy = (inputs[name] for name in ("x", "W", "b", "dy"))

    def run():
        y = np.maximum(x @ W + b, 0)
        dz = dy * (y > 0)
        return y, dz @ W.T, x.T @ dz, dz.sum(axis=0)

    return Solver(run)


def _batch_norm(case: Case, inputs: Arrays) -> Solver:
    x, gamma, beta, dy = (inputs[name] for name in ("x", "gamma", "beta", "dy"))

    def run():
        y, saved = batch_norm(x, gamma, beta)
        return y, *batch_norm_backward(dy, gamma, saved)

    return Solver(run)


def _layer_norm(case: Case, inputs: Arrays) -> Solver:
    x, gamma, beta, dy = (inputs[name] for name in ("x", "gamma", "beta", "dy"))

    def run():
        mean = x.mean(axis=1, keepdims=True)
        inv_std = 1 / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        x_hat = (x - mean) * inv_std
        y = x_hat * gamma + beta
        g = dy * gamma
        along = (g * x_hat).mean(axis=1, keepdims=True)
        dx = (g - g.mean(axis=1, keepdims=True) - x_hat * along) * inv_std
        return y, dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)

    return Solver(run)


def _dropout(case: Case, inputs: Arrays) -> Solver:
    x, dy, rng = inputs["x"], inputs["dy"], np.random.default_rng(0)

    def run():
        mask = dropout_mask(rng, x, DROPOUT)
        return x * mask, dy * mask

    return Solver(run)


def dropout_mask(rng: np.random.Generator, x: np.ndarray, p: float) -> np.ndarray:
    kept = rng.random(x.shape, dtype=np.float32) >= p
    return kept * x.dtype.type(1 / (1 - p))


class Optimizer:
    """SGD, Adam or AdamW (whose decay is for the weights W alone)."""

    def __init__(self, kind: str, lr: float):
        self.kind, self.lr, self.steps = kind, lr, 0
        self.m: Arrays = {}
        self.v: Arrays = {}

    def update(self, params: Arrays, grads: Arrays) -> None:
        self.steps += 1
        c1, c2 = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for name, g in grads.items():
            w = params[name]
            if self.kind == "sgd":
                params[name] = w - self.lr * g
                continue
            if self.kind == "adamw" and name.startswith("W"):
                w = w * (1 - self.lr * 0.01)
            m, v = self.m.get(name, 0), self.v.get(name, 0)
            self.m[name] = m = 0.9 * m + 0.1 * g
            self.v[name] = v = 0.999 * v + 0.001 * g * g
            params[name] = w - self.lr * (m / c1) / (np.sqrt(v / c2) + 1e-8)


def _adam(case: Case, inputs: Arrays) -> Solver:
    names = [name for name in inputs if not name.startswith("d")]
    params = {name: inputs[name] for name in names}
    grads = {name: inputs[f"d{name}"] for name in names}
    optimizer = Optimizer("adam", 1e-3)
    return Solver(
        lambda: optimizer.update(params, grads), lambda _: tuple(params[name] for name in names)
    )


class Network:
    """Linear – [batch_norm] – ReLU – [dropout], repeated, and a last Linear, with its training.

    Without batch_norm the parameters may have a leading axis, for a population.
    """

    def __init__(self, net: Net, parameters: Arrays):
        self.net, self.depth = net, len(net.sizes) - 1
        self.params = dict(parameters)
        self.optimizer = Optimizer(net.optimizer, net.lr)
        self.loss_of = mean_squared_error if net.loss == "mse" else cross_entropy
        self.rng = np.random.default_rng(0)
        self.running: Arrays = {}
        dtype = self.params["W0"].dtype
        for number, width in enumerate(net.sizes[1:-1] if net.batchnorm else ()):
            self.params[f"gamma{number}"] = np.ones(width, dtype)
            self.params[f"beta{number}"] = np.zeros(width, dtype)

    def step(self, x: np.ndarray, targets: np.ndarray) -> Any:
        """Forward, loss, backward, update; the loss before the update."""
        p, net, last = self.params, self.net, self.depth - 1
        saved, h = [], x
        for i in range(last):
            z, normalized = h @ p[f"W{i}"] + p[f"b{i}"][..., None, :], None
            if net.batchnorm:
                z, normalized = batch_norm(z, p[f"gamma{i}"], p[f"beta{i}"])
                self._run_statistics(i, normalized, len(x))
            y = np.maximum(z, 0)
            mask = dropout_mask(self.rng, y, net.dropout) if net.dropout else None
            saved.append((h, y, normalized, mask))
            h = y if mask is None else y * mask
        loss, d = self.loss_of(h @ p[f"W{last}"] + p[f"b{last}"][..., None, :], targets)
        grads = {f"W{last}": h.swapaxes(-1, -2) @ d, f"b{last}": d.sum(axis=-2)}
        for i in reversed(range(last)):
            d = d @ p[f"W{i + 1}"].swapaxes(-1, -2)
            h, y, normalized, mask = saved[i]
            d = (d if mask is None else d * mask) * (y > 0)
            if normalized is not None:
                d, dgamma, dbeta = batch_norm_backward(d, p[f"gamma{i}"], normalized)
                grads |= {f"gamma{i}": dgamma, f"beta{i}": dbeta}
            grads |= {f"W{i}": h.swapaxes(-1, -2) @ d, f"b{i}": d.sum(axis=-2)}
        self.optimizer.update(p, grads)
        return loss

    def _run_statistics(self, i: int, normalized: tuple, rows: int) -> None:
        _, _, mean, var = normalized
        for name, value in ((f"mean{i}", mean), (f"var{i}", var * (rows / (rows - 1)))):
            self.running[name] = 0.9 * self.running.get(name, 0) + 0.1 * value

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Classes; for networks without batch normalization."""
        for i in range(self.depth):
            x = x @ self.params[f"W{i}"] + self.params[f"b{i}"]
            x = np.maximum(x, 0) if i < self.depth - 1 else x
        return x.argmax(axis=1)


def _step(case: Case, inputs: Arrays) -> Solver:
    inputs = dict(inputs)
    x, targets = inputs.pop("x"), inputs.pop("targets")
    network = Network(case.settings["net"], inputs)
    return Solver(lambda: network.step(x, targets), lambda loss: (loss,))


def parameters_of(case: Case, inputs: Arrays, seed: int) -> tuple[Net, Arrays]:
    """The network of an epoch or a race, and the parameters that a seed stands for."""
    net = case.settings["race"].net if "race" in case.settings else case.settings["net"]
    return net, initial_parameters(net.sizes, np.random.default_rng(seed))


def largest(x: np.ndarray) -> float:
    """What uint8 images are divided by: 255, or for the digits 16."""
    return 255.0 if x.max() > 16 else 16.0


def _start(case: Case, inputs: Arrays, seed: int) -> Training:
    net, parameters = parameters_of(case, inputs, seed)
    network, rng = Network(net, parameters), np.random.default_rng(seed)
    x, labels = inputs["x"], inputs["labels"]
    scale = np.float32(1 / largest(x))
    test = inputs["x_test"] * scale

    def train_epoch() -> None:
        order = rng.permutation(len(x))
        for start in range(0, len(x), net.batch):
            rows = order[start : start + net.batch]
            network.step(x[rows] * scale, labels[rows])

    return train_epoch, lambda: float((network.predict(test) == inputs["labels_test"]).mean())


SOLVERS: dict[str, Build] = {
    "softmax_cross_entropy": _softmax_cross_entropy,
    "matmul": _matmul,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "dropout": _dropout,
    "adam": _adam,
    "step": _step,
    "population_step": _step,
    "epoch": epoch_solver(_start),
    "time_to_accuracy": race_solver(_start),
}
