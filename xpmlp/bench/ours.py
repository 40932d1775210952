"""xpmlp itself, on any of its backends: what ``ops``, ``TrainStep`` and ``Trainer`` run now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array, asarray, get_backend, synchronize, to_numpy, use_backend
from ..data import Batches, Normalization
from ..errors import XpmlpError
from ..layers import BatchNorm, Dropout, Linear
from ..losses import MSE, SoftmaxCrossEntropy
from ..models import FullyConnectedNet
from ..optim import SGD, Adam, AdamW
from ..random import Generator
from ..training import Trainer, TrainStep
from .cases import Case, initial_parameters
from .peers.numpy_alone import largest, parameters_of
from .shapes import DROPOUT, FullTraining, Net
from .solver import Arrays, Build, Solver, Training, epoch_solver, race_solver

_PLAIN_LOSS: dict[str, Any] = {
    "label_smoothing": 0.0,
    "ignore_index": None,
    "class_weights": None,
    "z_loss": 0.0,
    "reduction": "mean",
}
OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def solvers(backend: str) -> dict[str, Build]:
    """What xpmlp can solve on a backend, by kind of case."""
    return {kind: _on(backend, build) for kind, build in _BUILDERS.items()}


def _on(backend: str, build: Build) -> Build:
    """The solver built and run with that backend, waiting for its device."""

    @contextmanager
    def context() -> Iterator[None]:
        with use_backend(backend):
            yield

    def build_there(case: Case, inputs: Arrays) -> Solver:
        with context():
            solver = build(case, inputs)
            solver.context = context
            if backend != "numpy" and not solver.own_clock:
                solver.run = _waiting(solver.run)
            net = _net_of(case)
            if net is not None:
                solver.kernels = _kernels_of(net)
            return solver

    return build_there


def _waiting(run: Callable[[], Any]) -> Callable[[], Any]:
    def run_and_wait() -> Any:
        result = run()
        synchronize()
        return result

    return run_and_wait


def _explain(op: str, *arrays: Array, **options: Any) -> str:
    """What runs, in words; a row of a table must not fail on it."""
    try:
        return ops.explain(op, *arrays, **options)
    except (XpmlpError, TypeError) as error:
        return f"{op}: {error}"


def _on_host(results: tuple) -> tuple:
    return tuple(to_numpy(result) for result in results)


def _softmax_cross_entropy(case: Case, inputs: Arrays) -> Solver:
    logits, labels = asarray(inputs["logits"]), _labels(inputs["labels"])
    return Solver(
        lambda: ops.softmax_cross_entropy(logits, labels),
        _on_host,
        kernels=(_explain("softmax_cross_entropy", logits, labels, **_PLAIN_LOSS),),
    )


def _matmul(case: Case, inputs: Arrays) -> Solver:
    xp = get_backend().xp
    a, b = (asarray(inputs[name]) for name in "ab")
    if case.settings["transposed"] == "aT":
        a = xp.matrix_transpose(a)
    if case.settings["transposed"] == "bT":
        b = xp.matrix_transpose(b)
    return Solver(
        lambda: ops.matmul(a, b), lambda c: (to_numpy(c),), kernels=(_explain("matmul", a, b),)
    )


def _linear(case: Case, inputs: Arrays) -> Solver:
    x, W, b, dy = (asarray(inputs[name]) for name in ("x", "W", "b", "dy"))

    def run():
        y = ops.linear(x, W, b, "relu")
        return y, *ops.linear_backward(dy, x, W, y, "relu")

    kernels = (
        _explain("linear", x, W, b, activation="relu"),
        _explain("linear_backward", dy, x, W, input_grad=True),
    )
    return Solver(run, _on_host, kernels=kernels)


def _batch_norm(case: Case, inputs: Arrays) -> Solver:
    x, gamma, beta, dy = (asarray(inputs[name]) for name in ("x", "gamma", "beta", "dy"))

    def run():
        y, mean, var = ops.batch_norm(x, gamma, beta)
        return y, *ops.batch_norm_backward(dy, x, gamma, mean, var)

    kernels = _explain("batch_norm", x, gamma, beta), _explain("batch_norm_backward", dy, x, gamma)
    return Solver(run, _on_host, kernels=kernels)


def _layer_norm(case: Case, inputs: Arrays) -> Solver:
    x, gamma, beta, dy = (asarray(inputs[name]) for name in ("x", "gamma", "beta", "dy"))

    def run():
        y, mean, inv_std = ops.layer_norm(x, gamma, beta)
        return y, *ops.layer_norm_backward(dy, x, gamma, mean, inv_std)

    kernels = _explain("layer_norm", x, gamma, beta), _explain("layer_norm_backward", dy, x, gamma)
    return Solver(run, _on_host, kernels=kernels)


def _dropout(case: Case, inputs: Arrays) -> Solver:
    x, dy = asarray(inputs["x"]), asarray(inputs["dy"])
    rng, steps = Generator(0), iter(range(1, 1 << 60))

    def run():
        step = next(steps)
        return ops.dropout(x, DROPOUT, rng, step), ops.dropout(dy, DROPOUT, rng, step)

    return Solver(run, _on_host, kernels=(_explain("dropout", x, rates=(DROPOUT,)),))


def _adam(case: Case, inputs: Arrays) -> Solver:
    """In place, as torch's, where kernels do that."""
    names = [name for name in inputs if not name.startswith("d")]
    grads = {name: asarray(inputs[f"d{name}"]) for name in names}
    state: dict[str, Any] = {
        name: [asarray(inputs[name] * factor) for factor in (1, 0, 0)] for name in names
    }
    in_place, steps = isinstance(grads[names[0]], np.ndarray), 0

    def run() -> None:
        nonlocal steps
        steps += 1
        rates = {"lr": 1e-3, "gain1": 0.1, "gain2": 0.001, "eps": 1e-8}
        rates |= {"correction1": 1 - 0.9**steps, "correction2": 1 - 0.999**steps}
        for name, (w, m, v) in state.items():
            out = (w, m, v) if in_place else None
            state[name] = ops.adam_update(w, grads[name], m, v, **rates, out=out)

    w = grads[names[0]]
    return Solver(
        run,
        lambda _: tuple(to_numpy(state[name][0]) for name in names),
        kernels=(_explain("adam_update", w, w, w, w, in_place=in_place),),
    )


def _labels(labels: np.ndarray) -> Array:
    """Class numbers on the backend; in 32 bits where it has no wider ones."""
    return asarray(_plain_labels(labels))


def _network(net: Net, parameters: Arrays) -> tuple[FullyConnectedNet, TrainStep]:
    model = FullyConnectedNet(
        net.sizes,
        normalization="batchnorm" if net.batchnorm else None,
        dropout=net.dropout,
        population=net.members,
    )
    linears = [layer for layer in model.layers if isinstance(layer, Linear)]
    for number, layer in enumerate(linears):
        layer.W = asarray(parameters[f"W{number}"].copy())
        layer.b = asarray(parameters[f"b{number}"].copy())
    loss = MSE() if net.loss == "mse" else SoftmaxCrossEntropy()
    return model, TrainStep(model, loss, OPTIMIZERS[net.optimizer](net.lr))


def _step(case: Case, inputs: Arrays) -> Solver:
    x, targets = asarray(inputs["x"]), _labels(inputs["targets"])
    _, step = _network(case.settings["net"], inputs)
    return Solver(lambda: step(x, targets), lambda loss: (to_numpy(loss),))


def _net_of(case: Case) -> Net | None:
    """The network of a case that trains one."""
    if "recipe" in case.settings:
        recipe: FullTraining = case.settings["recipe"]
        return Net(recipe.sizes, recipe.batch, "adamw", batchnorm=True, dropout=recipe.dropout)
    return case.settings["race"].net if "race" in case.settings else case.settings.get("net")


def _kernels_of(net: Net) -> tuple[str, ...]:
    """How a training step runs: compiled as a whole, or what each of its ops runs, in order."""
    xp = get_backend().xp
    parameters = initial_parameters(net.sizes, np.random.default_rng(0), net.members)
    model, step = _network(net, parameters)
    x = asarray(np.zeros((net.batch, net.sizes[0]), np.float32))
    numbers = net.loss == "mse"
    targets = np.zeros((net.batch, net.sizes[-1]), np.float32) if numbers else None
    labels = _labels(np.zeros(net.batch, np.int64) if targets is None else targets)
    how = step.explain(x, labels)
    if how.startswith("compiled"):
        return (how,)
    lines, first = [], True
    for layer in model.layers:
        if isinstance(layer, Linear):
            y = xp.zeros((*layer.W.shape[:-2], *x.shape[-2:-1], layer.W.shape[-1]), dtype=x.dtype)
            lines.append(_explain("linear", x, layer.W, layer.b, activation=None))
            lines.append(_explain("linear_backward", y, x, layer.W, input_grad=not first))
            x, first = y, False
        elif isinstance(layer, BatchNorm):
            lines.append(_explain("batch_norm", x, layer.gamma, layer.beta))
        elif isinstance(layer, Dropout):
            lines.append(_explain("dropout", x, rates=(layer.p,)))
    if net.loss == "cross-entropy":
        lines.append(_explain("softmax_cross_entropy", x, labels, **_PLAIN_LOSS))
    return tuple(dict.fromkeys(lines))


def _start(case: Case, inputs: Arrays, seed: int) -> Training:
    net, parameters = parameters_of(case, inputs, seed)
    model, step = _network(net, parameters)
    scale = Normalization(np.zeros(()), np.asarray(largest(inputs["x"])))
    batches = Batches(
        inputs["x"],
        _plain_labels(inputs["labels"]),
        batch_size=net.batch,
        normalization=scale,
        seed=seed,
    )
    epochs = iter(range(1_000_000))

    def train_epoch() -> None:
        for x, labels in batches.epoch(next(epochs)):
            step(x, labels)
        synchronize()

    def accuracy() -> float:
        predicted = to_numpy(model.predict(scale.apply(inputs["x_test"])))
        return float((predicted == inputs["labels_test"]).mean())

    return train_epoch, accuracy


def _plain_labels(labels: np.ndarray) -> np.ndarray:
    narrow = get_backend().name == "jax" and labels.dtype.kind != "f"
    return labels.astype(np.int32) if narrow else labels


def _recipe(case: Case, inputs: Arrays) -> Solver:
    """All of ``xpmlp train mnist`` but reading and writing files; ends with a test."""
    recipe: FullTraining = case.settings["recipe"]
    held = recipe.validation
    x, y = inputs["x"], _plain_labels(inputs["labels"])
    validation = x[:held], y[:held]

    def train(epochs: int, rows: int | None) -> dict[str, float]:
        normalization = Normalization.fit(x[held:], per_feature=False, center=False)
        model = FullyConnectedNet(
            recipe.sizes, normalization="batchnorm", dropout=recipe.dropout, seed=0
        )
        trainer = Trainer(
            model,
            SoftmaxCrossEntropy(label_smoothing=recipe.label_smoothing),
            AdamW(recipe.lr, weight_decay=recipe.weight_decay, schedule="onecycle"),
            epochs=epochs,
            batch_size=recipe.batch,
            normalization=normalization,
            progress=False,
        )
        begin = time.perf_counter()
        trainer.fit(x[held:][:rows], y[held:][:rows], validation)
        synchronize()
        seconds = time.perf_counter() - begin
        scores = trainer.evaluate(inputs["x_test"], _plain_labels(inputs["labels_test"]))
        return {"seconds": seconds, "accuracy": scores["accuracy"], "epochs": epochs}

    return Solver(
        lambda: train(recipe.epochs, None), own_clock=True, warm_up=lambda: train(1, 2000)
    )


_BUILDERS: dict[str, Build] = {
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
    "recipe": _recipe,
}
