"""Everything public, with arguments that work."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from xpmlp import layers, losses, ops, optim, penalties, schedules
from xpmlp.calibration import fit_temperature, temper
from xpmlp.data import Batches, Normalization
from xpmlp.ensemble import Ensemble
from xpmlp.models import FullyConnectedNet
from xpmlp.random import Generator
from xpmlp.training import EarlyStopping, Trainer, TrainStep

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3
A = (0.1 + rng.random((4, 4))).astype(np.float32)


def net(**options: Any) -> FullyConnectedNet:
    return FullyConnectedNet([4, 5, 3], **options)


def fitted(kind: str) -> Any:
    from xpmlp.sklearn import MLPClassifier, MLPRegressor

    if kind == "classifier":
        return MLPClassifier(hidden_layer_sizes=(4,), max_iter=2).fit(X, Y)
    return MLPRegressor(hidden_layer_sizes=(4,), max_iter=2).fit(X, Y.astype(float))


def calls() -> dict[str, tuple[Callable, dict[str, Any]]]:
    """Each public callable with arguments that work."""
    found: dict[str, tuple[Callable, dict[str, Any]]] = {}
    _add_ops(found)
    _add_parts(found)
    _add_training(found)
    _add_estimators(found)
    return found


def _add_ops(found: dict) -> None:
    halves = ("p", "mean", "correction1", "correction2")
    tenths = ("slope", "lr", "gain", "gain1", "gain2", "ahead", "adaptive")
    numbers: dict[str, Any] = dict.fromkeys(halves, 0.5) | dict.fromkeys(tenths, 0.1)
    numbers |= {"alpha": 1.0, "momentum": 0.9, "keep": 0.9, "eps": 1e-8, "std": 2.0}
    numbers |= {"step": 1, "steps": 5}
    numbers |= {"nesterov": True, "dtype": "float32", "rng": Generator(1)}
    numbers |= {"columns": (("linear", 1),) * 4, "size": 2, "groups": 1}
    image, images = A[None, None], ("conv2d", "pool2d", "group_norm")
    for name in ops.__all__:
        op = getattr(ops, name)
        if not callable(op) or name in ("explain", "without_kernels"):
            continue
        given: dict[str, Any] = {}
        for key, parameter in inspect.signature(op).parameters.items():
            if str(parameter.annotation) == "Array":
                given[key] = np.arange(4) % 3 if key in ("index", "targets", "codes") else A
                if "norm" in name and key in ("gamma", "beta", "mean", "var"):
                    given[key] = A[0]
                if name in ("layer_norm_backward", "rms_norm_backward") and (
                    key == "mean" or key.startswith("inv")
                ):
                    given[key] = A[:, :1]
                if any(kind in name for kind in images):
                    given[key] = _of_image(name, key, image)
                if key == "slope":
                    given[key] = A[0]
                if name in ("glu_backward", "swiglu_backward") and key == "dy":
                    given[key] = A[:, :2]
                if name == "periodic_backward" and key in ("dy", "y"):
                    given[key] = np.repeat(A[:, :, None], 8, axis=2)
            elif key in numbers:
                given[key] = numbers[key]
            elif parameter.default is not parameter.empty:
                given[key] = parameter.default
        found[f"ops.{name}"] = op, given


def _of_image(name: str, key: str, image: np.ndarray) -> np.ndarray:
    """An array of an op of images."""
    if "norm" in name and key != "dy" and key != "x":
        return np.ones((1,) if key in ("gamma", "beta") else (1, 1, 1), np.float32)
    if key == "dy" and "norm" not in name:
        return image[..., :1, :1] if "global" in name else image[..., :2, :2]
    return image[..., :3, :3] if key == "W" else image


def _add_parts(found: dict) -> None:
    def used(make: Callable) -> Callable:
        def run(**options: Any) -> Any:
            layer = make(**options)
            y = layer.forward(X, training=True)
            return y, layer.backward(np.ones_like(y))

        return run

    def updated(make: Callable) -> Callable:
        def run(**options: Any) -> Any:
            return make(**options).update({"W": A}, {"W": A}, {"W"})

        return run

    def lost(make: Callable) -> Callable:
        def run(outputs: Any = X, targets: Any = None, **options: Any) -> Any:
            loss = make(**options)
            value = loss.forward(outputs, targets)
            return value, loss.backward()

        return run

    found["Linear"] = used(layers.Linear), {"inputs": 4, "outputs": 3, "init": "he_normal"}
    found["Embedding"] = (
        lambda **o: layers.Embedding(**o).forward(Y),
        {"count": 4, "dim": 2, "padding": 1, "init": 0.1, "population": None, "dtype": "float32"},
    )
    found["EmbedColumns"] = (
        lambda **o: layers.EmbedColumns(**o).forward(np.column_stack([X, Y]).astype(np.float32)),
        {"features": 5, "codes": {4: (3, 2)}, "population": None},
    )
    found["Periodic"] = (
        used(layers.Periodic),
        {"features": 4, "frequencies": 3, "dim": 2, "scale": 0.5, "population": None},
    )
    found["SharedLinear"] = (
        used(layers.SharedLinear),
        {"inputs": 4, "outputs": 3, "population": 2, "adapters": "signs", "bias": True},
    )
    found["LeakyReLU"] = used(layers.LeakyReLU), {"slope": 0.1}
    found["ELU"] = used(layers.ELU), {"alpha": 1.0}
    found["Dropout"] = used(layers.Dropout), {"p": 0.5}
    found["Softmax"] = used(layers.Softmax), {"axis": -1}
    for name in ("BatchNorm", "LayerNorm", "RMSNorm"):
        found[name] = used(getattr(layers, name)), {"features": 4, "eps": 1e-5}
    found["Sequential"] = (
        lambda layer: layers.Sequential(layer).forward(X),
        {"layer": layers.ReLU()},
    )
    for name in ("SGD", "AdaGrad", "RMSProp", "Adam", "AdamW", "Muon", "NAdam", "RAdam", "Lion"):
        found[name] = updated(getattr(optim, name)), {"lr": 0.1}
    found["SGD momentum"] = updated(optim.SGD), {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    found["Adam all"] = updated(optim.Adam), {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    found["clip"] = optim.clip_by_global_norm, {"grads": {"W": A}, "max_norm": 1.0}
    for name in ("MSE", "HalfSSE", "MAE", "Huber", "BCEWithLogits", "PoissonNLL"):
        found[name] = (
            lost(getattr(losses, name)),
            {"outputs": X, "targets": (X > 0) * X.dtype.type(1)},
        )
    for name in ("SoftmaxCrossEntropy", "NLL", "MulticlassHinge"):
        outputs = np.log(np.abs(X) / np.abs(X).sum(1, keepdims=True)) if name == "NLL" else X
        found[name] = lost(getattr(losses, name)), {"outputs": outputs, "targets": Y}
    found["CE all"] = (
        lost(losses.SoftmaxCrossEntropy),
        {"outputs": X, "targets": Y, "label_smoothing": 0.1, "ignore_index": 2, "z_loss": 0.1}
        | {"class_weights": np.ones(4, np.float32), "reduction": "mean"},
    )
    found["L2"] = lambda **o: penalties.L2(**o).forward({"W": A}, {"W"}, None), {"strength": 0.1}
    found["L1"] = lambda **o: penalties.L1(**o).forward({"W": A}, {"W"}, None), {"strength": 0.1}
    called = lambda make: lambda at=3, **o: make(**o)(at)  # noqa: E731
    found["Cosine"] = called(schedules.Cosine), {"at": 3.0, "total": 9, "final": 0.1}
    found["Polynomial"] = called(schedules.Polynomial), {"at": 3.0, "total": 9, "power": 2.0}
    found["WarmRestarts"] = called(schedules.WarmRestarts), {"at": 3.0, "first": 2, "growth": 2}
    found["Exponential"] = called(schedules.Exponential), {"at": 3.0, "total": 9, "final": 0.1}
    found["Step"] = called(schedules.Step), {"at": 3.0, "every": 2, "factor": 0.5}
    found["WarmUp"] = called(schedules.WarmUp), {"at": 3.0, "steps": 2, "then": schedules.Cosine(9)}
    found["Generator"] = lambda seed: Generator(seed).normal((3,)), {"seed": 1}
    found["explain"] = lambda op, x: ops.explain(op, x), {"op": "relu", "x": X}


def _add_training(found: dict) -> None:
    found["FullyConnectedNet"] = (
        lambda **o: FullyConnectedNet(**o).forward(X),
        {"sizes": [4, 5, 3], "activation": "relu", "normalization": None, "dropout": 0.0}
        | {"output": "softmax", "init": None, "bias": True, "batchnorm": "torch"}
        | {"population": None, "seed": 0, "dtype": "float32"},
    )
    for name in ("predict", "predict_proba", "forward"):
        found[f"net.{name}"] = lambda x, name=name: getattr(net(), name)(x), {"x": X}

    def step(x: Any, y: Any, lr: Any, clip_norm: Any) -> Any:
        run = TrainStep(net(), losses.SoftmaxCrossEntropy(), optim.SGD(lr), clip_norm=clip_norm)
        return run(x, y)

    found["TrainStep"] = step, {"x": X, "y": Y, "lr": 0.1, "clip_norm": 1.0}

    def train(x: Any, y: Any, validation: Any, **options: Any) -> Any:
        made = {"model": net(), "loss": losses.SoftmaxCrossEntropy(), "optimizer": optim.SGD(0.1)}
        made |= {
            name: options.pop(name) for name in ("model", "loss", "optimizer") if name in options
        }
        trainer = Trainer(*made.values(), progress=False, **options)
        return trainer.fit(x, y, validation=validation).rows

    usual = {"x": X, "y": Y, "validation": (X, Y), "epochs": 2, "batch_size": 4, "seed": 0}
    found["Trainer"] = train, usual
    found["Trainer parts"] = train, usual | {"model": net(), "loss": losses.SoftmaxCrossEntropy()}
    found["EarlyStopping"] = EarlyStopping, {"patience": 2}
    found["Batches"] = (
        lambda **o: list(Batches(**o).epoch(1)),
        {"x": X, "y": Y, "batch_size": 4, "seed": 0},
    )
    found["Normalization.fit"] = Normalization.fit, {"x": X, "per_feature": True}
    found["Normalization.from_dict"] = (
        Normalization.from_dict,
        {"values": Normalization.fit(X).to_dict()},
    )
    found["Ensemble"] = lambda models, x: Ensemble(models).predict(x), {"models": [net()], "x": X}
    shares = np.abs(X[:, :3]) / np.abs(X[:, :3]).sum(1, keepdims=True)
    found["fit_temperature"] = fit_temperature, {"probabilities": shares, "targets": Y}
    found["temper"] = temper, {"probabilities": shares, "temperature": 2.0}


def _add_estimators(found: dict) -> None:
    try:
        from xpmlp.sklearn import MLPClassifier, MLPRegressor
    except ImportError:
        return

    def fit(make: Callable) -> Callable:
        return lambda x, y, **o: make(**{"max_iter": 2, "hidden_layer_sizes": (4,)} | o).fit(x, y)

    options = {"hidden_layer_sizes": (4,), "activation": "relu", "solver": "adam", "alpha": 1e-4}
    options |= {"batch_size": 4, "learning_rate_init": 0.01, "max_iter": 2, "random_state": 0}
    options |= {"tol": 1e-4, "early_stopping": False, "beta_1": 0.9, "n_iter_no_change": 3}
    found["MLPClassifier"] = fit(MLPClassifier), {"x": X, "y": Y} | options
    found["MLPRegressor"] = fit(MLPRegressor), {"x": X, "y": Y.astype(float)} | options
    for kind in ("classifier", "regressor"):
        model = fitted(kind)
        found[f"{kind}.predict"] = model.predict, {"X": X}
        found[f"{kind}.score"] = model.score, {"X": X, "y": Y}
