"""The compiled step against the same step layer by layer, and what it must leave alone."""

from __future__ import annotations

import threading
import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest

from xpmlp import ops, optim
from xpmlp.errors import ConfigError, DataError, ShapeError
from xpmlp.layers import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    BatchNorm,
    Dropout,
    Flatten,
    Hardswish,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    Residual,
    RMSNorm,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    SwiGLU,
    Tanh,
)
from xpmlp.layers.activations import ACTIVATIONS
from xpmlp.layers.masked import Mask, MaskedLayerNorm, MaskedRMSNorm
from xpmlp.losses import (
    MAE,
    MSE,
    NLL,
    BCEWithLogits,
    HalfSSE,
    Huber,
    KLDivergence,
    MulticlassHinge,
    PoissonNLL,
    SoftmaxCrossEntropy,
)
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, AdaGrad, Adam, AdamW, Muon, RMSProp
from xpmlp.penalties import L1, L2, L2Norm
from xpmlp.schedules import Step
from xpmlp.training import TrainStep

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

D, C = 12, 4
TOLERANCES = {"float32": 2e-5, "float64": 1e-13}

MODELS = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "linear with dropout": {"activation": "identity", "dropout": 0.3},
    "no bias": {"bias": False},
    "batchnorm": {"normalization": "batchnorm", "dropout": 0.2, "bias": False},
    "batchnorm cs231n": {"normalization": "batchnorm", "batchnorm": "cs231n", "bias": False},
    "layernorm": {"normalization": "layernorm"},
    "rmsnorm": {"normalization": "rmsnorm", "dropout": 0.2},
    **{name: {"activation": name} for name in ACTIVATIONS if name != "relu"},
    "silu with dropout": {"activation": "silu", "dropout": 0.2},
    "leaky relu normalized": {"activation": "leaky_relu", "normalization": "layernorm"},
}
LOSSES = {
    "cross-entropy": SoftmaxCrossEntropy,
    "smoothed": lambda: SoftmaxCrossEntropy(label_smoothing=0.1, z_loss=0.01),
    "weighted": lambda: SoftmaxCrossEntropy(class_weights=[1, 2, 3, 4], ignore_index=1),
    "summed": lambda: SoftmaxCrossEntropy(reduction="sum"),
    "z": lambda: SoftmaxCrossEntropy(z_loss=0.1),
    "hinge": MulticlassHinge,
    "hinge summed": lambda: MulticlassHinge(0.3, reduction="sum"),
    "log-likelihood": NLL,
    "log-likelihood summed": lambda: NLL(reduction="sum"),
}
ELEMENTWISE = {
    "mse": MSE,
    "mse summed": lambda: MSE(reduction="sum"),
    "half squared": HalfSSE,
    "half squared mean": lambda: HalfSSE(reduction="mean"),
    "mae": MAE,
    "mae summed": lambda: MAE(reduction="sum"),
    "huber": Huber,
    "huber summed": lambda: Huber(0.1, reduction="sum"),
    "bce": BCEWithLogits,
    "bce summed": lambda: BCEWithLogits(reduction="sum"),
    "poisson": PoissonNLL,
    "poisson summed": lambda: PoissonNLL(reduction="sum"),
    "divergence": KLDivergence,
    "divergence summed": lambda: KLDivergence(reduction="sum"),
    "shares": SoftmaxCrossEntropy,
    "shares summed": lambda: SoftmaxCrossEntropy(reduction="sum"),
    "shares smoothed": lambda: SoftmaxCrossEntropy(label_smoothing=0.2, z_loss=0.01),
    "shares weighted": lambda: SoftmaxCrossEntropy(class_weights=[1, 2, 3, 4]),
}
OPTIMIZERS = {
    "sgd": lambda: SGD(0.05),
    "decayed sgd": lambda: SGD(0.05, weight_decay=0.1),
    "momentum": lambda: SGD(0.02, momentum=0.9),
    "nesterov": lambda: SGD(0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adagrad": lambda: AdaGrad(0.01),
    "rmsprop": lambda: RMSProp(0.001, weight_decay=0.1),
    "adam": lambda: Adam(0.01, weight_decay=0.1),
    "adamw": lambda: AdamW(0.01, weight_decay=0.1, schedule=Step(every=2, factor=0.5)),
    "amsgrad": lambda: optim.AMSGrad(0.01, weight_decay=0.1),
    "nadam": lambda: optim.NAdam(0.01, weight_decay=0.1, beta2=0.9),
    "radam": lambda: optim.RAdam(0.01, weight_decay=0.1),
    "adamax": lambda: optim.Adamax(0.01, weight_decay=0.1),
    "adadelta": lambda: optim.Adadelta(0.3, weight_decay=0.1),
    "lion": lambda: optim.Lion(0.01, weight_decay=0.1),
}


def batch(rng, dtype="float32", rows=13, lead=(), loss="cross-entropy"):
    x = rng.normal(size=(*lead, rows, D)).astype(dtype)
    if loss in ELEMENTWISE:
        y = rng.random(size=(*lead, rows, C))
        return x, (y / y.sum(-1, keepdims=True)).astype(dtype)
    return x, rng.integers(0, C, (*lead, rows))


def pair(dtype="float32", *, loss=SoftmaxCrossEntropy, optimizer=lambda: SGD(0.1), **options):
    """Two equal steps, to be run one compiled, one by layers."""
    options = {"sizes": [D, 17, 9, C], "seed": 3, "dtype": dtype, **options}
    models = [
        FullyConnectedNet(options["sizes"], **{k: v for k, v in options.items() if k != "sizes"})
        for _ in range(2)
    ]
    return [TrainStep(model, loss(), optimizer()) for model in models]


def assert_same(compiled, by_layers, tolerance):
    for a, b in ((compiled.model, by_layers.model),):
        mine, others = a.state_dict(), b.state_dict()
        for name, values in others.items():
            np.testing.assert_allclose(
                mine[name], values, rtol=tolerance, atol=tolerance, err_msg=name
            )
        for name, values in b.grads.items():
            np.testing.assert_allclose(a.grads[name], values, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        compiled.outputs, by_layers.outputs, rtol=tolerance, atol=10 * tolerance
    )


def run_both(steps, batches, tolerance):
    compiled, by_layers = steps
    for x, y in batches:
        assert compiled.explain(x, y) == "compiled"
        value, expected = compiled(x, y), by_layers.by_layers(x, y)
        assert np.shape(value) == np.shape(expected)
        assert np.asarray(value).dtype == np.asarray(expected).dtype
        np.testing.assert_allclose(value, expected, rtol=tolerance)
        np.testing.assert_array_equal(compiled.correct, by_layers.correct)
    assert_same(compiled, by_layers, tolerance)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("model", MODELS)
def test_models_take_the_same_steps(model, dtype, rng):
    batches = [batch(rng, dtype) for _ in range(5)]
    run_both(pair(dtype, **MODELS[model]), batches, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("population", "lead"), [(None, ()), (3, ()), (3, (3,))], ids=["single", "shared", "separate"]
)
@pytest.mark.parametrize("loss", LOSSES | ELEMENTWISE)
def test_losses_give_the_same_steps(loss, population, lead, dtype, rng):
    batches = [batch(rng, dtype, loss=loss, lead=lead) for _ in range(3)]
    make = (LOSSES | ELEMENTWISE)[loss]
    steps = pair(dtype, loss=make, optimizer=lambda: SGD(0.01), population=population)
    run_both(steps, batches, TOLERANCES[dtype])
    np.testing.assert_allclose(
        steps[0].loss.backward(), steps[1].loss.backward(), rtol=1e-5, atol=TOLERANCES[dtype]
    )


@pytest.mark.parametrize("loss", LOSSES | ELEMENTWISE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_losses_pass_on_what_is_not_finite(loss, value, rng):
    x, y = batch(rng, "float64", loss=loss)
    make = (LOSSES | ELEMENTWISE)[loss]
    steps = pair("float64", sizes=[D, C], loss=make, optimizer=lambda: SGD(0.0))
    for step in steps:
        step.model.layers[0].b = np.array([0.0, value, 0.0, 0.0])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(
            np.isfinite(steps[0](x, y)), np.isfinite(steps[1].by_layers(x, y))
        )
    mine, expected = steps[0].loss.backward(), steps[1].loss.backward()
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(expected))
    np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        *(ReLU, LeakyReLU, ELU, GELU, lambda: GELU("tanh"), SiLU, Tanh, Sigmoid, Softplus),
        *(CELU, SELU, Mish, Hardswish),
        *(lambda: Residual(GELU()), lambda: Residual(ReLU()), Softmax, LogSoftmax),
        *(lambda: RMSNorm(C, dtype="float64"), lambda: LayerNorm(C, dtype="float64")),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300, 30.0, -30.0])
def test_layers_pass_on_what_is_not_finite(layer, value, rng):
    x, y = batch(rng, "float64", loss="mse")
    steps = []
    for _ in range(2):
        model = Sequential(Linear(D, C, rng=1, dtype="float64"), layer())
        model.layers[0].b = np.array([0.0, value, 0.0, 0.0])
        steps.append(TrainStep(model, HalfSSE(), SGD(0.0)))
    with np.errstate(all="ignore"):
        assert steps[0].explain(x, y) == "compiled"
        mine, expected = steps[0](x, y), steps[1].by_layers(x, y)
    np.testing.assert_allclose(mine, expected, rtol=1e-12)
    np.testing.assert_allclose(steps[0].outputs, steps[1].outputs, rtol=1e-12, atol=1e-13)
    for name, grad in steps[1].model.grads.items():
        np.testing.assert_allclose(steps[0].model.grads[name], grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("loss", [NLL, MulticlassHinge, SoftmaxCrossEntropy])
@pytest.mark.parametrize("wrong", [C, -1, 1000])
def test_a_number_of_no_class_is_refused_as_layer_by_layer(loss, wrong, rng):
    x, y = batch(rng, "float64")
    compiled, by_layers = pair("float64", loss=loss, optimizer=lambda: SGD(0.01))
    before = compiled.model.state_dict()
    y[[5, 7]] = wrong
    for step in (compiled, by_layers.by_layers):
        with pytest.raises(DataError, match=rf"in 0…{C - 1}, got {wrong} in row 5"):
            step(x, y)
    for name, array in compiled.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("loss", [BCEWithLogits, SoftmaxCrossEntropy])
@pytest.mark.parametrize("wrong", [-0.1, float("nan"), 1.5])
def test_a_share_that_is_none_is_refused_as_layer_by_layer(loss, wrong, rng):
    x, _ = batch(rng, "float64")
    y = np.full((len(x), C), 0.25)
    steps = pair("float64", loss=loss, optimizer=lambda: SGD(0.01))
    for step in (steps[0], steps[1].by_layers):
        step(x, y)
        y[3, 1] = wrong
        if wrong != 1.5 or loss is BCEWithLogits:
            with pytest.raises(
                DataError, match=rf"expected targets .*, got {wrong} in row \(3, 1\)"
            ):
                step(x, y)
        y[3, 1] = 0.25


NETWORKS = {
    "tanh gelu": lambda linear, own: [linear(D, 9), GELU("tanh"), linear(9, C)],
    "elu with a constant": lambda linear, own: [linear(D, 9), ELU(0.3), linear(9, C)],
    "celu with a constant": lambda linear, own: [linear(D, 9), CELU(0.3), linear(9, C)],
    "residual": lambda linear, own: [
        linear(D, 9),
        Residual(Sequential(linear(9, 5), ReLU(), linear(5, 9))),
        linear(9, C),
    ],
    "rectified before, inside and after a residual": lambda linear, own: [
        linear(D, 9),
        ReLU(),
        Residual(Sequential(ReLU(), linear(9, 9), ReLU())),
        ReLU(),
        linear(9, C),
    ],
    "preactivation": lambda linear, own: [
        linear(D, 9),
        *[
            Residual(Sequential(own(LayerNorm, 9), ReLU(), linear(9, 9), Tanh(), linear(9, 9)))
            for _ in range(3)
        ],
        own(BatchNorm, 9),
        linear(9, C),
    ],
    "preactivation by root mean squares": lambda linear, own: [
        linear(D, 9),
        *[
            Residual(Sequential(own(RMSNorm, 9), linear(9, 20), GELU(), linear(20, 9)))
            for _ in range(3)
        ],
        linear(9, C),
    ],
    "residuals in a residual": lambda linear, own: [
        linear(D, 9),
        Residual(Sequential(Residual(SiLU()), Residual(Residual(linear(9, 9))), Tanh())),
        linear(9, C),
    ],
    "residuals of next to nothing": lambda linear, own: [
        linear(D, C),
        Residual(Sequential()),
        Residual(ReLU()),
        Residual(Residual(Sequential(ReLU(), ReLU()))),
    ],
    "logarithms of a softmax": lambda linear, own: [
        linear(D, 9),
        Softmax(),
        linear(9, C),
        LogSoftmax(),
    ],
    "activations at the ends": lambda linear, own: [linear(D, C), Tanh(), ReLU()],
    "gates": lambda linear, own: [
        linear(D, 18),
        ReLU(),
        SwiGLU(),
        Residual(Sequential(linear(9, 34), GLU(), linear(17, 9))),
        linear(9, 2 * C),
        GLU(),
    ],
    "learned slopes": lambda linear, own: [
        linear(D, 9),
        own(PReLU, 9),
        Residual(own(PReLU, 1)),
        linear(9, C),
        ReLU(),
        own(PReLU, C),
    ],
}


def network_pair(network, population=None, loss=SoftmaxCrossEntropy):
    """Two equal steps of float64 layers put together by hand."""

    def make():
        seeds = iter(range(100, 200))
        seed = (lambda: next(seeds)) if population is None else lambda: [next(seeds)] * population
        common = {"population": population, "dtype": "float64"}
        return Sequential(
            *NETWORKS[network](
                lambda *sizes: Linear(*sizes, rng=seed(), **common),
                lambda kind, size: kind(size, **common),
            )
        )

    return [TrainStep(make(), loss(), SGD(0.05)) for _ in range(2)]


@pytest.mark.parametrize(
    ("population", "lead"), [(None, ()), (3, ()), (3, (3,))], ids=["single", "shared", "separate"]
)
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_take_the_same_steps(network, population, lead, rng):
    batches = [batch(rng, "float64", lead=lead) for _ in range(3)]
    steps = network_pair(network, population)
    run_both(steps, batches, 1e-12)
    np.testing.assert_allclose(steps[0].loss.backward(), steps[1].loss.backward(), atol=1e-12)


@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize(
    "layer",
    [ReLU, GELU, lambda: Residual(ReLU()), lambda: Sequential(Residual(Tanh()))],
    ids=["relu", "gelu", "residual", "nested"],
)
def test_the_batch_itself_may_be_activated(layer, population, rng):
    lead = () if population is None else (population,)
    seeds = 0 if population is None else range(population)
    x, y = batch(rng, "float64", lead=lead)
    given = x.copy()
    steps = [
        TrainStep(
            Sequential(
                layer(), Linear(D, C, rng=seeds, population=population, dtype="float64"), layer()
            ),
            SoftmaxCrossEntropy(),
            SGD(0.1),
        )
        for _ in range(2)
    ]
    run_both(steps, [(x, y), (x.copy(), y)], 1e-12)
    np.testing.assert_array_equal(x, given)


@pytest.mark.parametrize(
    "make", [lambda: optim.AMSGrad(0.01, beta2=0.5), lambda: optim.RAdam(0.01, beta2=0.9)]
)
def test_gradients_that_fall_for_long_enough(make, rng):
    """For the largest of squares to be an earlier one, and for RAdam to be certain."""
    steps = pair("float64", optimizer=make)
    batches = [(x / 2**i, y) for i, (x, y) in enumerate(batch(rng, "float64") for _ in range(12))]
    run_both(steps, batches, 1e-10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("population", [None, 3])
def test_optimizers_take_the_same_steps(optimizer, population, rng):
    steps = pair("float64", optimizer=OPTIMIZERS[optimizer], population=population)
    run_both(steps, [batch(rng, "float64") for _ in range(5)], 1e-11)
    state, expected = steps[0].optimizer.state, steps[1].optimizer.state
    for name, slots in expected.items():
        for slot, values in zip(state[name], slots, strict=True):
            np.testing.assert_allclose(slot, values, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("lead", [(), (3,)], ids=["shared", "separate"])
@pytest.mark.parametrize("model", MODELS)
def test_populations_take_the_same_steps(model, lead, rng):
    batches = [batch(rng, "float64", lead=lead) for _ in range(3)]
    run_both(pair("float64", population=3, **MODELS[model]), batches, 1e-13)


@pytest.mark.parametrize("lead", [(), (3,)], ids=["shared", "separate"])
@pytest.mark.parametrize(
    "options",
    [
        {"normalization": "layernorm", "activation": "silu"},
        {"normalization": "rmsnorm", "dropout": 0.2},
        {"activation": "sigmoid"},
        {"activation": "softplus", "normalization": "layernorm", "dropout": 0.2},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_members_of_different_widths_take_the_same_steps(options, lead, rng):
    sizes = [D, [17, 3, 1], [9, 9, 20], C]
    steps = pair("float64", population=3, sizes=sizes, optimizer=lambda: AdamW(0.01), **options)
    run_both(steps, [batch(rng, "float64", lead=lead) for _ in range(4)], 1e-11)
    for number in range(3):
        assert steps[0].model.member(number).config["sizes"] == [
            size if isinstance(size, int) else size[number] for size in sizes
        ]


@pytest.mark.parametrize("norm", [MaskedLayerNorm, MaskedRMSNorm])
def test_gradients_of_what_a_member_does_not_have_are_masked(norm, rng):
    widths, common = [9, 4, 1], {"population": 3, "dtype": "float64"}
    steps = []
    for _ in range(2):
        model = Sequential(
            Linear(D, 9, rng=range(3), **common),
            Mask(9, widths, dtype="float64"),
            norm(9, widths, dtype="float64"),
            GELU(),
            Linear(9, C, rng=range(3, 6), **common),  # with weights also where nothing comes in
        )
        steps.append(TrainStep(model, SoftmaxCrossEntropy(), SGD(0.1)))
    run_both(steps, [batch(rng, "float64") for _ in range(3)], 1e-12)


def test_members_may_have_their_own_options(rng):
    steps = pair(
        "float64",
        population=2,
        dropout=[0.1, 0.5],
        loss=lambda: SoftmaxCrossEntropy(label_smoothing=[0.0, 0.2]),
        optimizer=lambda: AdamW([0.01, 0.02], weight_decay=[0.0, 0.5], beta1=[0.9, 0.5]),
    )
    run_both(steps, [batch(rng, "float64") for _ in range(4)], 1e-11)


def test_a_population_of_one(rng):
    steps = pair("float64", population=1, optimizer=lambda: SGD([0.1], momentum=[0.9]))
    run_both(steps, [batch(rng, "float64"), batch(rng, "float64", lead=(1,))] * 2, 1e-13)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(1, [D, C]), (1, [D, 1, C]), (64, [D, 33, C]), (5, [300, 130, C]), (40, [D, 65, 70, C])],
)
def test_odd_sizes(rows, sizes, rng):
    steps = pair("float64", sizes=sizes)
    batches = [(rng.normal(size=(rows, sizes[0])), rng.integers(0, C, rows)) for _ in range(3)]
    run_both(steps, batches, 1e-12)


def by_threads(together, monkeypatch):
    """Whether a step's first run is shared by threads."""
    from xpmlp.kernels.numba import threads

    monkeypatch.setattr(threads, "_ALONE_FIRST", 0 if together else 1)
    monkeypatch.setattr(threads._apart, "until", 0.0)


def test_large_layers_are_cut_among_threads_to_the_same_bits(rng, monkeypatch):
    # 784 inputs for 64 rows are halved in depth, the next layer cut by rows, the last not at all.
    x = rng.normal(size=(64, 784)).astype(np.float32)
    y = rng.integers(0, 10, 64)
    steps = pair(sizes=[784, 200, 300, 10], normalization="batchnorm", dropout=0.2)
    by_threads(True, monkeypatch)
    steps[0](x, y)
    by_threads(False, monkeypatch)
    steps[1](x, y)
    for name, values in steps[0].model.state_dict().items():
        np.testing.assert_array_equal(values, steps[1].model.state_dict()[name], err_msg=name)


def test_populations_are_cut_among_threads_to_the_same_bits(rng, monkeypatch):
    x, y = batch(rng, rows=40)
    steps = pair(population=5, normalization="layernorm", dropout=0.2, optimizer=lambda: Adam(0.01))
    by_threads(True, monkeypatch)
    steps[0](x, y)
    by_threads(False, monkeypatch)
    steps[1](x, y)
    for name, values in steps[0].model.state_dict().items():
        np.testing.assert_array_equal(values, steps[1].model.state_dict()[name], err_msg=name)


def test_images_are_flattened(rng):
    images = rng.normal(size=(13, 3, 4)).astype(np.float64)
    labels = rng.integers(0, C, 13)
    run_both(pair("float64"), [(images, labels)] * 2, 1e-13)
    models = [Sequential(Flatten(), Linear(D, C, rng=0, dtype="float64")) for _ in range(2)]
    steps = [TrainStep(model, SoftmaxCrossEntropy(), SGD(0.1)) for model in models]
    run_both(steps, [(images, labels)] * 2, 1e-13)


def test_batches_of_any_layout(rng):
    x, y = batch(rng, "float64", rows=26)
    readonly = x[:13].copy()
    readonly.flags.writeable = False
    batches = [
        (x[::2], y[::2]),
        (np.asfortranarray(x[:13]), y[:13].astype(np.uint8)),
        (readonly, y[:13].astype(np.int32)),
    ]
    run_both(pair("float64"), batches, 1e-13)


def test_a_short_last_batch_takes_its_turn(rng):
    full, short = batch(rng, "float64"), batch(rng, "float64", rows=5)
    run_both(pair("float64", optimizer=lambda: Adam(0.01)), [full, short, full, short], 1e-11)


@pytest.mark.parametrize("case", ["relu", "gelu", "residual", "widths"])
def test_steady_state_asks_for_no_memory(case, rng):
    if case == "relu":
        step, _ = pair(normalization="batchnorm", dropout=0.2, optimizer=lambda: AdamW(0.01))
    elif case == "gelu":
        step, _ = pair(normalization="rmsnorm", activation="gelu", loss=NLL)
        step.penalty, step.clip_norm = L1(0.1), 0.1
    elif case == "residual":
        inner = Sequential(LayerNorm(D), ReLU(), Linear(D, D), LogSoftmax())
        step = TrainStep(Sequential(Linear(D, D), Residual(inner)), MulticlassHinge(), SGD(0.1))
    else:
        step, _ = pair(population=3, sizes=[D, [17, 9, 20], C], activation="softplus")
    x, y = batch(rng, rows=2000)
    assert step.explain(x, y) == "compiled"
    for _ in range(3):
        step(x, y)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(20):
        step(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Kernels use scratch of a few kilobytes; the smallest activation here has 32,000 bytes.
    assert peak - before < 24_000


def test_given_arrays_are_never_written_to(rng):
    step, _ = pair(optimizer=lambda: SGD(1.0))
    x, y = batch(rng)
    given = dict(step.model.params)
    copies = {name: array.copy() for name, array in given.items()}
    x_before, y_before = x.copy(), y.copy()
    step(x, y)
    for name, array in given.items():
        np.testing.assert_array_equal(array, copies[name])
        assert np.abs(step.model.params[name] - array).max() > 0
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(y, y_before)


def test_what_is_assigned_between_steps_counts(rng):
    steps = pair("float64", normalization="batchnorm", bias=False, optimizer=lambda: Adam(0.01))
    batches = [batch(rng, "float64") for _ in range(2)]
    run_both(steps, batches, 1e-11)
    other = FullyConnectedNet(
        [D, 17, 9, C], normalization="batchnorm", bias=False, seed=8, dtype="float64"
    )
    for step in steps:
        step.model.load_state_dict(other.state_dict())
        step.model.layers[0].W = step.model.layers[0].W * 2
        step.optimizer.lr = 0.003
    run_both(steps, batches, 1e-11)


def test_steps_by_layers_may_be_mixed_in(rng):
    steps = pair("float64", dropout=0.3, optimizer=lambda: Adam(0.01))
    x, y = batch(rng, "float64")
    for step in steps:
        step.by_layers(x, y)
    run_both(steps, [batch(rng, "float64")], 1e-11)
    for step in steps:
        step.by_layers(x, y)
    run_both(steps, [batch(rng, "float64")], 1e-11)


def test_changed_options_are_heeded(rng):
    steps = pair("float64", dropout=0.3)
    batches = [batch(rng, "float64")]
    run_both(steps, batches, 1e-13)
    for step in steps:
        step.loss.label_smoothing = 0.2
    run_both(steps, batches, 1e-13)
    for step in steps:
        next(layer for layer in step.model.layers if isinstance(layer, Dropout)).p = 0.7
    run_both(steps, batches, 1e-13)


def test_another_loss_or_optimizer_may_be_assigned(rng):
    steps = pair("float64")
    batches = [batch(rng, "float64")]
    run_both(steps, batches, 1e-13)
    for step in steps:
        step.loss = SoftmaxCrossEntropy(label_smoothing=0.3)
        step.optimizer = Adam(0.01)
    run_both(steps, batches * 2, 1e-11)


def test_wrong_labels_change_nothing(rng):
    step, _ = pair(dropout=0.3, normalization="batchnorm", optimizer=lambda: Adam(0.01))
    x, y = batch(rng)
    step(x, y)
    before, wrong = step.model.state_dict(), y.copy()
    wrong[3] = C
    masks = [layer.step for layer in step.model.layers if isinstance(layer, Dropout)]
    with pytest.raises(DataError, match=f"0…{C - 1}, got {C} in row 3"):
        step(x, wrong)
    for name, values in step.model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
    assert step.optimizer.steps == 1
    assert [la.step for la in step.model.layers if isinstance(la, Dropout)] == masks


def test_parameters_of_another_shape_are_refused(rng):
    step, _ = pair()
    x, y = batch(rng)
    step(x, y)
    step.model.layers[0].b = np.zeros(3, np.float32)
    with pytest.raises(ShapeError, match="to keep its shape"):
        step(x, y)


class Doubled(Linear):
    """A layer that nobody has instructions for."""


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda: TrainStep(Residual(Doubled(D, D)), MSE(), SGD(0.1)), "for Doubled"),
        (
            lambda: TrainStep(Sequential(Linear(D, D), Softmax(axis=-2)), MSE(), SGD(0.1)),
            "1.Softmax is over axis -2",
        ),
        (lambda: TrainStep(FullyConnectedNet([D, D]), MAE("none"), SGD(0.1)), "is 'none'"),
        (
            lambda: TrainStep(Sequential(Residual(Linear(D, 7)), Linear(7, D)), MSE(), SGD(0.1)),
            "adds 12 features to 7",
        ),
        (lambda: TrainStep(FullyConnectedNet([D, D], dtype="float64"), MSE(), SGD(0.1)), "float"),
        (
            lambda: TrainStep(Sequential(GELU(), Linear(D, D, population=2)), MSE(), SGD(0.1)),
            "acts on a batch that members share",
        ),
    ],
)
def test_explain_says_why_a_step_runs_layer_by_layer(step, why, rng):
    x = rng.normal(size=(5, D)).astype(np.float32)
    assert why in step().explain(x, x)
    assert step().explain(x, x).startswith("layer by layer")


def test_what_the_documentation_says_is_compiled():
    from xpmlp import layers, losses
    from xpmlp.step import compiled

    ours = {kind for kind in vars(layers).values() if isinstance(kind, type)}
    ours = {kind for kind in ours if issubclass(kind, Layer) and "forward" in vars(kind)}
    left = ours - compiled.layers.LAYERS.keys() - {layers.Activation, Layer, Sequential}
    assert left == {layers.Matmul, layers.Log}
    ours = {kind for kind in vars(losses).values() if isinstance(kind, type)}
    ours = {kind for kind in ours if issubclass(kind, losses.Loss)}
    left = ours - compiled.losses.LOSSES.keys()
    assert left == {losses.Loss}


def test_kernels_can_be_switched_off(without_kernels, rng):
    step, _ = pair()
    assert step.explain(*batch(rng)) == "layer by layer (without_kernels)"


CONSTRAINTS = {
    "l1": {"penalty": L1(0.1)},
    "l2 on biases too": {"penalty": L2(0.1, biases=True)},
    "clipped": {"clip_norm": 0.01},
    "not clipped": {"clip_norm": 1e6},
    "l2 and clipped": {"penalty": L2(0.1), "clip_norm": 0.1},
    "of each member": {"penalty": L1([0.1, 0.0, 1.0]), "clip_norm": [1e-3, 10.0, 0.1]},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_penalties_and_clipping_give_the_same_steps(constraint, population, optimizer, rng):
    options = CONSTRAINTS[constraint]
    population = 3 if constraint == "of each member" else population
    steps = [
        TrainStep(step.model, step.loss, step.optimizer, **options)
        for step in pair(
            "float64",
            optimizer=OPTIMIZERS[optimizer],
            population=population,
            sizes=[D, 70, 9, C],
            normalization="layernorm",
        )
    ]
    run_both(steps, [batch(rng, "float64") for _ in range(4)], 1e-11)


def test_a_changed_penalty_or_bound_is_heeded(rng):
    steps = [TrainStep(s.model, s.loss, s.optimizer, penalty=L2(0.1)) for s in pair("float64")]
    batches = [batch(rng, "float64"), batch(rng, "float64", rows=5)]
    run_both(steps, batches, 1e-13)
    for step in steps:
        step.penalty.strength = 0.7
    run_both(steps, batches, 1e-13)
    for step in steps:
        step.penalty, step.clip_norm = None, 0.05
    run_both(steps, batches, 1e-13)


@pytest.mark.parametrize(
    "options",
    [{"penalty": L2Norm(0.1)}, {"penalty": L2Norm(0.1), "clip_norm": 0.01}, {}],
    ids=["penalty", "clipping", "an optimizer without instructions"],
)
def test_what_has_no_instructions_follows_the_compiled_backward(options, rng):
    models = [FullyConnectedNet([D, 9, C], seed=1, dtype="float64") for _ in range(2)]
    make = (lambda: Adam(0.01)) if options else (lambda: Muon(0.01))
    compiled, by_layers = (
        TrainStep(model, SoftmaxCrossEntropy(), make(), **options) for model in models
    )
    for _ in range(3):
        x, y = batch(rng, "float64")
        assert compiled.explain(x, y) == "compiled, but for the update"
        assert compiled(x, y) == pytest.approx(by_layers.by_layers(x, y), rel=1e-12)
    for name, values in by_layers.model.params.items():
        np.testing.assert_allclose(compiled.model.params[name], values, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"clip_norm": 0.0}, ConfigError), ({"penalty": L2([0.1, 0.2])}, ShapeError)],
)
def test_wrong_bounds_and_strengths_are_refused(options, error, rng):
    step, _ = pair()
    with pytest.raises(error):
        TrainStep(step.model, step.loss, step.optimizer, **options)(*batch(rng))


def test_steps_in_several_threads_do_not_disturb_each_other(rng):
    batches = [batch(rng, "float64", rows=64) for _ in range(30)]
    sizes = [D, 128, 128, C]

    def train(results, number):
        step, _ = pair("float64", sizes=sizes, dropout=0.1)
        results[number] = [float(step(x, y)) for x, y in batches]

    results: dict[int, list[float]] = {}
    train(results, -1)
    threads = [threading.Thread(target=train, args=(results, n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert results[number] == results[-1]


def test_kernels_switched_off_between_two_steps(rng):
    step, plain = (TrainStep(FullyConnectedNet([4, 6, 3], seed=1), MSE(), Adam(0.01)) for _ in "12")
    x, y = (rng.normal(size=(8, width)).astype("float32") for width in (4, 3))
    for number in range(6):
        with ops.without_kernels() if number % 3 == 1 else nullcontext():
            assert step.explain(x, y).startswith("layer by layer") == (number % 3 == 1)
            step(x, y)
        plain.by_layers(x, y)
    for name, array in step.model.params.items():
        np.testing.assert_allclose(array, plain.model.params[name], rtol=1e-4, atol=1e-6)
