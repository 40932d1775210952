"""Whether a change of compiled steps or kernels left every bit as it was.

Before the change::

    python -m tests.step_bits --write /tmp/before.json

and after it, on the same machine (instruction sets and BLAS decide the last bits)::

    python -m tests.step_bits --check /tmp/before.json

Each case is a network after thirty compiled steps: parameters, gradients, losses, what layers keep
and the optimizer remembers; or the results of an op. The cases are those of tests/step and a
few that are cut in their own way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.step.test_compiled import ELEMENTWISE, LOSSES, MODELS, OPTIMIZERS, C, D, batch
from xpmlp import ops
from xpmlp.layers import (
    GELU,
    BatchNorm,
    Dropout,
    LayerNorm,
    Linear,
    LogSoftmax,
    ReLU,
    Residual,
    RMSNorm,
    Sequential,
    Softmax,
    Tanh,
)
from xpmlp.losses import MSE, NLL, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam
from xpmlp.penalties import L1, L2
from xpmlp.random import Generator
from xpmlp.training import TrainStep

STEPS = 30
DTYPES = ("float32", "float64")


def digest(arrays: Iterable[Any]) -> str:
    """A hash of the bytes of some arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def after_steps(model: Any, loss: Any, optimizer: Any, x: Any, y: Any, **step: Any) -> str:
    """A hash of all that thirty steps leave."""
    step = TrainStep(model, loss, optimizer, **step)
    assert step.explain(x, y) == "compiled", step.explain(x, y)
    values = [np.array(step(x, y)) for _ in range(STEPS)]
    slots = [array for kept in optimizer.state.values() for array in kept]
    grads = model.grads.values()
    return digest([*values, *model.state_dict().values(), *grads, *slots, step.outputs])


def steps(dtype: str, population: int | None) -> Iterator[tuple[str, Callable[[], str]]]:
    """Networks, each with its name."""
    lead = () if population is None else (population,)
    common = {"dtype": dtype, "population": population}
    seed = 3 if population is None else range(3, 3 + population)

    def case(
        *, sizes=(D, 17, 9, C), rows=13, loss=SoftmaxCrossEntropy, kind="", optimizer=None,
        step=None, layers=None, **options,
    ):  # fmt: skip
        def run() -> str:
            rng = np.random.default_rng(7)
            if layers is not None:
                model = Sequential(*layers())
            else:
                model = FullyConnectedNet(list(sizes), seed=3, **common, **options)
            x, y = batch(rng, dtype, rows, lead, kind)
            if sizes[0] != D:
                x = rng.normal(size=(*lead, rows, sizes[0])).astype(dtype)
            return after_steps(
                model, loss(), (optimizer or (lambda: SGD(0.05)))(), x, y, **step or {}
            )

        return run

    for name, options in MODELS.items():
        yield name, case(**options)
    for name, loss in (LOSSES | ELEMENTWISE).items():
        yield f"loss {name}", case(loss=loss, kind=name)
    for name, optimizer in OPTIMIZERS.items():
        yield f"optimizer {name}", case(optimizer=optimizer)
    for name, constraint in {
        "l1": {"penalty": L1(0.01)},
        "l2": {"penalty": L2(0.01, biases=True)},
        "clipped": {"clip_norm": 0.5},
        "l2, clipped": {"penalty": L2(0.1), "clip_norm": 0.5},
    }.items():
        for optimizer in (lambda: SGD(0.05), lambda: Adam(0.01)):
            yield f"{name} {type(optimizer()).__name__}", case(step=constraint, optimizer=optimizer)
    yield "large", case(sizes=(300, 130, 70, C), rows=40, normalization="batchnorm", dropout=0.2)
    yield "deep product", case(sizes=(784, 200, 10), rows=64, optimizer=lambda: Adam(0.001))
    yield "one row", case(rows=1)

    def linear(*sizes):
        return Linear(*sizes, rng=seed, **common)

    each = {"population": population, "dtype": dtype}
    mixed = {
        "rectified outputs": lambda: [linear(D, C), ReLU()],
        "softmax": lambda: [linear(D, 33), Softmax(), linear(33, C), LogSoftmax()],
        "residual": lambda: [
            linear(D, 20),
            Residual(Sequential(LayerNorm(20, **each), ReLU(), linear(20, 20), GELU("tanh"))),
            linear(20, C),
        ],
        "norms": lambda: [
            linear(D, 40), BatchNorm(40, **each), Tanh(), linear(40, 40), RMSNorm(40, **each),
            Dropout(0.3, population=population, rng=seed), linear(40, C),
        ],
    }  # fmt: skip
    for name, layers in mixed.items():
        loss = NLL if name == "softmax" else SoftmaxCrossEntropy
        yield name, case(layers=layers, loss=loss)
    yield "regression", case(layers=mixed["rectified outputs"], loss=MSE, kind="mse")
    if population is not None:
        widths = [[17, 3, 9][:population], 9]
        for norm in ("layernorm", "rmsnorm", "batchnorm"):
            yield (
                f"widths {norm}",
                case(sizes=(D, *widths, C), normalization=norm, activation="gelu", dropout=0.1),
            )


def kernels(dtype: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Ops, each with its name."""

    def numbers(*shape: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng((seed, *shape)).normal(size=shape).astype(dtype)

    shapes = {
        "small": ((8, 16), (16, 16)), "wide": ((40, 300), (300, 70)), "rows": ((300, 40), (40, 9)),
        "large": ((200, 300), (300, 150)), "population": ((3, 20, 30), (3, 30, 10)),
        "shared": ((20, 30), (3, 30, 10)), "leading": ((2, 5, 20, 30), (30, 10)),
        "large population": ((3, 80, 90), (3, 90, 70)),
    }  # fmt: skip
    for name, (left, right) in shapes.items():
        x, W, b = numbers(*left), numbers(*right), numbers(*right[:-2], right[-1])
        for kind in (None, "relu", "tanh", "sigmoid"):
            y = ops.linear(x, W, b, kind)
            dy = numbers(*y.shape, seed=1)
            yield f"linear {name} {kind}", lambda y=y: digest([y])
            for part, what in enumerate(("dx", "dW", "db")):
                yield (
                    f"{what} of linear {name} {kind}",
                    lambda a=(dy, x, W, y, kind), p=part: digest([ops.linear_backward(*a)[p]]),
                )
        yield f"matmul {name}", lambda x=x, W=W: digest([ops.matmul(x, W)])
    for shape, features in (((13, 17), (17,)), ((3, 40, 33), (3, 33)), ((203, 611), (611,))):
        x, dy = numbers(*shape), numbers(*shape, seed=1)
        gamma, beta = numbers(*features, seed=2), numbers(*features, seed=3)
        for norm in ("batch_norm", "layer_norm"):
            eps = (1e-5,) if norm == "batch_norm" else ()
            _, *kept = forward = getattr(ops, norm)(x, gamma, beta)
            yield f"{norm} {shape}", lambda f=forward: digest(f)
            backward = getattr(ops, f"{norm}_backward")
            yield (
                f"{norm}_backward {shape}",
                lambda f=backward, a=(dy, x, gamma, *kept, *eps): digest(f(*a)),
            )
    cross_entropy = ops.softmax_cross_entropy
    for shape in ((30, 10), (5, 7, 20), (2000, 100), (2, 40_000)):
        logits = numbers(*shape)
        labels = np.random.default_rng(1).integers(0, shape[-1], shape[:-1])
        shares = np.abs(numbers(*shape, seed=1))
        shares /= shares.sum(-1, keepdims=True)
        weights = np.abs(numbers(shape[-1], seed=2))
        for name, options in {
            "": {}, "smoothed": {"label_smoothing": 0.1, "z_loss": 0.01},
            "weighted": {"class_weights": weights}, "ignored": {"ignore_index": 3},
            "rows": {"reduction": "none"}, "sum": {"reduction": "sum"},
        }.items():  # fmt: skip
            for kind, targets in (("labels", labels), ("shares", shares)):
                if kind == "shares" and name == "ignored":
                    continue
                yield (
                    f"cross-entropy {shape} {name} {kind}",
                    lambda a=(logits, targets), o=options: digest(cross_entropy(*a, **o)),
                )
    for shape in ((9, 21), (1100, 1000)):
        w, g, m, v = (np.abs(numbers(*shape, seed=seed)) for seed in range(4))
        rates = {
            "sgd": {}, "momentum": {"momentum": 0.9, "nesterov": True}, "adagrad": {"eps": 1e-8},
            "rmsprop": {"gain": 0.1, "eps": 1e-8},
            "adam": {
                "gain1": 0.1, "gain2": 0.001, "correction1": 0.3, "correction2": 0.2, "eps": 1e-8
            },
        }  # fmt: skip
        for name, given in rates.items():
            update = getattr(ops, f"{name}_update")
            slots = {"sgd": (), "adam": (m, v)}.get(name, (m,))
            yield (
                f"{name} {shape}",
                lambda f=update, a=(w, g, *slots), o=given: digest(f(*a, lr=0.1, **o)),
            )
        yield f"relu {shape}", lambda w=w: digest([ops.relu(w - 1)])
        yield f"dropout {shape}", lambda w=w: digest([ops.dropout(w, 0.3, Generator(3), 7)])


def cases() -> Iterator[tuple[str, Callable[[], str]]]:
    for dtype in DTYPES:
        for population in (None, 3):
            for name, run in steps(dtype, population):
                yield f"{dtype} {population or 'alone'}: {name}", run
        for name, run in kernels(dtype):
            yield f"{dtype} {name}", run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.step_bits", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", metavar="FILE", type=Path)
    what.add_argument("--check", metavar="FILE", type=Path)
    parser.add_argument("--only", default="", help="cases whose names contain this")
    given = parser.parse_args()
    found = {name: run() for name, run in cases() if given.only in name}
    if given.write:
        given.write.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{len(found)} cases written to {given.write}")
        return 0
    known = json.loads(given.check.read_text(encoding="utf-8"))
    known = {name: value for name, value in known.items() if given.only in name}
    different = [name for name in known | found if known.get(name) != found.get(name)]
    print(*(f"other bits: {name}" for name in different), sep="\n")
    print(f"{len(different)} of {len(known | found)} cases differ")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
