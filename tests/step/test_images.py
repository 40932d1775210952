"""Steps of networks of images: compiled as by layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from step.shares import assert_shares_give_the_same_bits
from step.test_compiled import TOLERANCES, run_both

from xpmlp.errors import BackendError
from xpmlp.layers import (
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GroupNorm,
    Linear,
    MaxPool2D,
    PReLU,
    PReLU2D,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.optim import SGD
from xpmlp.step import Evaluation
from xpmlp.training import TrainStep

N, CLASSES, P = 5, 4, 3
ENDS = {
    "relu": lambda **o: [ReLU(), MaxPool2D(2)],
    "pool first": lambda **o: [MaxPool2D(2), ReLU()],
    "overlapping": lambda **o: [ReLU(), MaxPool2D(3, stride=2, padding=1)],
    "mean": lambda **o: [ReLU(), AvgPool2D((2, 3))],
    "mean inside": lambda **o: [
        Tanh(),
        AvgPool2D(3, stride=(1, 2), padding=1, count_padding=False),
    ],
    "batch norm": lambda **o: [BatchNorm2D(6, **o), ReLU(), Dropout(0.3, rng=1, **_members(o))],
    "group norm": lambda **o: [GroupNorm(3, 6, **o), ReLU()],
    "slopes": lambda **o: [PReLU2D(6, **o), Tanh(), PReLU2D(6, **o)],
    "one slope": lambda **o: [PReLU(dtype=o["dtype"]), BatchNorm2D(6, **o)],
    "nothing": lambda **o: [],
}
KERNELS = {
    "plain": {"size": 3, "padding": 1},
    "one by one": {"size": 1},
    "strides": {"size": (2, 3), "stride": (2, 1), "padding": (1, 2)},
    "large strides": {"size": 2, "stride": 3},
    "dilated": {"size": (2, 3), "dilation": 2, "stride": 2, "padding": (2, 1)},
    "groups": {"size": 3, "groups": 2, "padding": 1, "bias": False},
    "depthwise": {"size": 3, "groups": 6, "dilation": (1, 2), "padding": (1, 3)},
    "much padding": {"size": 2, "padding": 3},
}


def _members(options):
    return {"population": options.get("population")}


def make(kernel="plain", ends="relu", *, channels=2, dtype="float64", population=None):
    """Two convolutions; the options are the second one's."""
    common = {"population": population, "dtype": dtype}
    inner = [
        Conv2D(channels, 6, 3, padding=1, rng=1, **common),
        *ENDS[ends](**common),
        Conv2D(6, 12, **KERNELS[kernel], rng=2, **common),
        ReLU(),
        Flatten(3),
    ]
    # 9 × 11 images
    shape = Sequential(*copy.deepcopy(inner[:-1])).output_shape((channels, 9, 11))
    return Sequential(*inner, Linear(int(np.prod(shape)), CLASSES, rng=3, **common))


def step_of(*given, **options):
    return TrainStep(make(*given, **options), SoftmaxCrossEntropy(), SGD(0.1, momentum=0.9))


def batch(rng, lead=(), channels=2, dtype="float64"):
    x = rng.normal(size=(*lead, N, channels, 9, 11)).astype(dtype)
    return x, rng.integers(0, CLASSES, (*lead, N))


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(kernel, rng):
    run_both([step_of(kernel) for _ in range(2)], [batch(rng) for _ in range(3)], 1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ends", ENDS)
def test_what_follows(ends, channels, rng):
    steps = [step_of("plain", ends, channels=channels) for _ in range(2)]
    run_both(steps, [batch(rng, channels=channels) for _ in range(3)], 1e-12)


@pytest.mark.parametrize("kernel", ["strides", "dilated", "depthwise"])
@pytest.mark.parametrize("ends", ["overlapping", "batch norm", "group norm", "slopes"])
def test_populations(kernel, ends, rng):
    steps = [step_of(kernel, ends, population=P) for _ in range(2)]
    run_both(steps, [batch(rng, (P,)) for _ in range(3)], 1e-12)


def test_in_single_precision(rng):
    steps = [step_of("plain", "batch norm", dtype="float32") for _ in range(2)]
    batches = [batch(rng, dtype="float32") for _ in range(3)]
    run_both(steps, batches, 10 * TOLERANCES["float32"])


def test_images_of_several_blocks(rng, monkeypatch):
    """Such that only some rows of an image are folded at a time."""
    pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')
    from xpmlp.step.compiled import images

    monkeypatch.setattr(images, "_BLOCK", 4000)
    for kernel in ("plain", "strides", "dilated"):
        run_both([step_of(kernel) for _ in range(2)], [batch(rng) for _ in range(2)], 1e-12)


@pytest.mark.parametrize("ends", ["overlapping", "mean", "batch norm", "group norm"])
def test_shares_give_the_same_bits(ends, rng, monkeypatch):
    x, y = batch(rng)
    assert_shares_give_the_same_bits(lambda: step_of("groups", ends), x, y, monkeypatch)


def test_networks_that_end_in_a_mean(rng):
    def new():
        layers = [Conv2D(1, 3, 3, rng=1, dtype="float64"), ReLU(), GlobalAvgPool2D()]
        model = Sequential(*layers, Linear(3, CLASSES, rng=2, dtype="float64"))
        return TrainStep(model, SoftmaxCrossEntropy(), SGD(0.1))

    run_both([new(), new()], [batch(rng, channels=1) for _ in range(2)], 1e-12)


@pytest.mark.parametrize("first", [lambda: MaxPool2D(2), lambda: BatchNorm2D(3, dtype="float64")])
def test_other_layers_may_come_first(first, rng):
    def new():
        layers = [first(), Conv2D(3, 4, 3, rng=1, dtype="float64"), Tanh(), GlobalAvgPool2D()]
        model = Sequential(*layers, Flatten(), Linear(4, CLASSES, rng=2, dtype="float64"))
        return TrainStep(model, SoftmaxCrossEntropy(), SGD(0.1))

    run_both([new(), new()], [batch(rng, channels=3) for _ in range(2)], 1e-12)


@pytest.mark.parametrize("ends", ENDS)
def test_evaluation(ends, rng):
    model = make("plain", ends)
    for layer in model.layers:
        if isinstance(layer, BatchNorm2D):
            layer.running_mean, layer.running_var = rng.normal(size=6), rng.uniform(1, 2, 6)
    x, _ = batch(rng)
    assert Evaluation(model).explain(x) == "compiled"
    for rows in (5, 2, 1):
        expected = model.forward(x[:rows])
        np.testing.assert_allclose(Evaluation(model).outputs(x[:rows]), expected, atol=1e-12)


def test_many_images_are_evaluated_some_at_a_time(rng, monkeypatch):
    from xpmlp.step import evaluation

    monkeypatch.setattr(evaluation, "_ELEMENTS", 1 << 16)
    model = make("plain")
    x = rng.normal(size=(300, 2, 9, 11))
    np.testing.assert_allclose(Evaluation(model).outputs(x), model.forward(x), atol=1e-12)


@pytest.mark.parametrize(
    ("model", "shape", "why"),
    [
        (lambda: make(dtype="float32", population=2), (2, 2, 9, 11), "shape"),
        (lambda: Sequential(Residual(Conv2D(2, 2, 3, padding=1)), Linear(198, 4)), None, "shape"),
        (lambda: Sequential(Flatten(), MaxPool2D(1), Linear(198, 4)), None, "that are none"),
    ],
)
def test_what_runs_layer_by_layer(model, shape, why, rng):
    step = TrainStep(model(), SoftmaxCrossEntropy(), SGD(0.1))
    x = rng.normal(size=shape or (N, 2, 9, 11)).astype(np.float32)
    said = step.explain(x, np.zeros(N, int))
    assert said.startswith("layer by layer") and why in said


def test_no_precision_is_promised_that_is_not_kept(rng):
    step = TrainStep(make(dtype="float32"), SoftmaxCrossEntropy(), SGD(0.1), precision="bf16")
    with pytest.raises(BackendError, match="precision='bf16'"):
        step(*batch(rng, dtype="float32"))
