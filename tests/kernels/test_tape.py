"""Every instruction's shares, however many, do the work of one: same elements, same bits."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

from xpmlp.kernels.numba import instructions, tape  # noqa: E402
from xpmlp.layers import (  # noqa: E402
    GELU,
    GLU,
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    EmbedColumns,
    Flatten,
    GroupNorm,
    Linear,
    LogSoftmax,
    MaxPool2D,
    Periodic,
    PiecewiseLinear,
    PReLU,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    SwiGLU,
    Unflatten,
)
from xpmlp.losses import (  # noqa: E402
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
from xpmlp.models import ACTIVATIONS, FullyConnectedNet  # noqa: E402
from xpmlp.optim import OPTIMIZERS, SGD, AdaGrad, Adam, RMSProp  # noqa: E402
from xpmlp.penalties import L1, L2  # noqa: E402
from xpmlp.training import TrainStep  # noqa: E402


@numba.njit
def run_share(calls, i, part, parts):
    return tape.call(calls[i, 0], calls[i, 1], part, parts)


def run_in_shares(calls, parts):
    """Every instruction in so many shares, the last one first."""
    for i in range(len(calls)):
        for part in reversed(range(parts)):
            assert run_share(calls, i, part, parts) == 0


def one_by_one(calls, members):
    for i in range(len(calls)):
        for member in reversed(range(members)):
            assert run_share(calls, i, member, members) == 0


def _members(linear):
    return {"population": linear.keywords["population"]}


CASES = {
    "deep": (dict(sizes=[300, 70, 40, 5]), SoftmaxCrossEntropy, lambda: SGD(0.1), 30),
    "wide classes": (dict(sizes=[20, 33, 50]), SoftmaxCrossEntropy, lambda: SGD(0.1), 70),
    "batchnorm, dropout": (
        dict(sizes=[20, 50, 33, 5], normalization="batchnorm", dropout=0.3),
        SoftmaxCrossEntropy,
        lambda: Adam(0.01),
        61,
    ),
    "layernorm, tanh": (
        dict(sizes=[20, 50, 33, 5], normalization="layernorm", activation="tanh"),
        SoftmaxCrossEntropy,
        lambda: SGD(0.1, momentum=0.9),
        61,
    ),
    "sigmoid": (
        dict(sizes=[20, 50, 5], activation="sigmoid", dropout=0.3),
        SoftmaxCrossEntropy,
        lambda: RMSProp(0.01),
        29,
    ),
    "silu": (dict(sizes=[20, 50, 1], activation="silu"), MSE, lambda: AdaGrad(0.1), 29),
    "leaky relu": (dict(sizes=[20, 50, 2], activation="leaky_relu"), MSE, lambda: SGD(0.1), 1),
    "rmsnorm": (
        dict(sizes=[20, 50, 33, 5], normalization="rmsnorm"),
        SoftmaxCrossEntropy,
        lambda: SGD(0.1),
        61,
    ),
    **{
        name: (dict(sizes=[20, 50, 2], activation=name), MSE, lambda: SGD(0.1), 19)
        for name in ACTIVATIONS
        if name not in ("relu", "tanh", "sigmoid", "silu", "leaky_relu")
    },
    **{
        name: (dict(sizes=[20, 50, 2]), MSE, kind, 19)
        for name, kind in OPTIMIZERS.items()
        if name not in ("sgd", "adam", "rmsprop", "adagrad", "muon")
    },
    "rectified outputs": (
        dict(sizes=[20, 50], layers=lambda linear: [linear(20, 50), ReLU()]),
        MSE,
        lambda: SGD(0.1),
        40,
    ),
    "residual": (
        dict(
            sizes=[20, 50],
            layers=lambda linear: [
                linear(20, 50),
                Residual(Sequential(ReLU(), linear(50, 50), GELU("tanh"))),
            ],
        ),
        MSE,
        lambda: SGD(0.1),
        61,
    ),
    "one of each": (dict(sizes=[1, 1, 1]), MSE, lambda: SGD(0.1), 1),
    "shares of classes": (dict(sizes=[20, 33, 50], shares=True), SoftmaxCrossEntropy, SGD, 70),
    **{
        loss.__name__: (dict(sizes=[20, 33, 7]), loss, SGD, 70)
        for loss in (MAE, HalfSSE, Huber, BCEWithLogits, PoissonNLL, NLL, MulticlassHinge)
    },
    "softmax layers": (
        dict(
            sizes=[20, 33],
            layers=lambda linear: [linear(20, 33), Softmax(), linear(33, 33), LogSoftmax()],
        ),
        NLL,
        SGD,
        70,
    ),
    "weights of rows": (dict(sizes=[20, 33, 5], weighted=True), SoftmaxCrossEntropy, SGD, 70),
    "divergence": (
        dict(sizes=[20, 33], layers=lambda linear: [linear(20, 33), LogSoftmax()], shares=True),
        KLDivergence,
        SGD,
        70,
    ),
    "codes and waves": (
        dict(
            sizes=[3, 4],
            layers=lambda linear: [
                EmbedColumns(3, {0: (5, 4)}, **linear.keywords),
                Periodic(6, 2, **linear.keywords),
                linear(24, 3),
                Periodic(3, 2, dim=2, **linear.keywords),
                linear(6, 4),
            ],
        ),
        SoftmaxCrossEntropy,
        SGD,
        70,
    ),
    "gates and learned slopes": (
        dict(
            sizes=[20, 5],
            layers=lambda linear: [
                linear(20, 66),
                GLU(),
                PReLU(33, **_members(linear)),
                linear(33, 34),
                SwiGLU(),
                PReLU(1, **_members(linear)),
                linear(17, 5),
            ],
        ),
        SoftmaxCrossEntropy,
        SGD,
        61,
    ),
    "images": (
        dict(
            sizes=[84, 5],
            own=True,
            layers=lambda linear: [
                Unflatten((2, 6, 7)),
                Conv2D(2, 4, 3, padding=1, **linear.keywords),
                GroupNorm(2, 4, **_members(linear)),
                ReLU(),
                MaxPool2D(2),
                Conv2D(4, 6, (1, 2), groups=2, **linear.keywords),
                BatchNorm2D(6, **_members(linear)),
                AvgPool2D((1, 2), stride=1),
                Flatten(3),
                linear(18, 5),
            ],
        ),
        SoftmaxCrossEntropy,
        SGD,
        30,
    ),
    "bins and levels": (
        dict(
            sizes=[3, 4],
            layers=lambda linear: [
                PiecewiseLinear([("levels", 5), ("bins", 4), ("linear", 1)], 4, **linear.keywords)
            ],
        ),
        SoftmaxCrossEntropy,
        SGD,
        70,
    ),
    "l1": (dict(sizes=[20, 70, 5], step={"penalty": L1(0.1)}), SoftmaxCrossEntropy, SGD, 9),
    "l2, clipped": (
        dict(sizes=[20, 70, 5], step={"penalty": L2(0.1, biases=True), "clip_norm": 0.01}),
        SoftmaxCrossEntropy,
        SGD,
        9,
    ),
}
TOGETHER = {
    "shared matrices": (dict(sizes=[20, 70, 33, 5], shared=True), SoftmaxCrossEntropy, Adam, 61),
}
WIDTHS = {
    "layernorm of different widths": (
        dict(sizes=[20, [50, 3, 20], 5], normalization="layernorm", activation="sigmoid"),
        SoftmaxCrossEntropy,
        SGD,
        61,
    ),
    "rmsnorm of different widths": (
        dict(sizes=[20, [50, 3, 20], 5], normalization="rmsnorm"),
        SoftmaxCrossEntropy,
        SGD,
        61,
    ),
}


def program_after_a_step(case, rng, population=None):
    """A step's program, its batch copied in, and every buffer it computes in."""
    options, loss, optimizer, rows = (CASES | WIDTHS | TOGETHER)[case]
    options = {**options, "population": population}
    sizes, shares = options.pop("sizes"), options.pop("shares", False)
    constraints = options.pop("step", {})
    weight = (rng.random(rows).astype(np.float32),) if options.pop("weighted", False) else ()
    if "layers" in options:
        common = {"population": population, "rng": 0 if population is None else range(population)}
        model = Sequential(*options["layers"](partial(Linear, **common)))
    else:
        model = FullyConnectedNet(sizes, **options)
    step = TrainStep(model, loss(), optimizer(), **constraints)
    outputs = sizes[-1]
    x = rng.normal(size=(rows, sizes[0])).astype(np.float32)
    x[:, 0] = rng.integers(0, 5, rows)  # codes, where they are some
    if options.get("own") and population is not None:  # images, which members do not share
        x = np.stack([x] * population)
    y = rng.integers(0, outputs, rows)
    if shares or loss in (MSE, MAE, HalfSSE, Huber, BCEWithLogits, PoissonNLL):
        y = rng.random(size=(rows, outputs)).astype(np.float32)
    step(x, y, *weight)
    compiled = step._program(x, y, *weight)
    assert not isinstance(compiled, str), compiled
    return step, compiled._program, x


def buffers(step, program):
    memory = step._memory
    kept = [a for a in program._kept if a.base is not None]
    return [
        memory.params,
        memory.grads,
        memory.adjusted(),
        *memory.slots,
        *memory.state.values(),
        *kept,
    ]


@pytest.mark.parametrize("parts", [2, 3, 5, 64])
@pytest.mark.parametrize("case", CASES | TOGETHER)
def test_shares_make_a_whole(case, parts, rng):
    step, program, x = program_after_a_step(case, rng, 3 if case in TOGETHER else None)
    assert case not in TOGETHER or program.tape.members == 1
    calls = program.tape._tables[1]
    arrays = buffers(step, program)
    before = [a.copy() for a in arrays]
    run_in_shares(calls, 1)
    whole = [a.copy() for a in arrays]
    for array, values in zip(arrays, before, strict=True):
        array[...] = values
    run_in_shares(calls, parts)
    for array, values in zip(arrays, whole, strict=True):
        np.testing.assert_array_equal(array, values)
    assert x.size  # the batch that the arguments point to lives until here


@pytest.mark.parametrize("case", CASES | WIDTHS)
def test_members_are_shares_of_their_own(case, rng):
    step, program, x = program_after_a_step(case, rng, population=3)
    calls = program.tape._tables[1]
    arrays = buffers(step, program)
    before = [a.copy() for a in arrays]
    run_in_shares(calls, 1)
    whole = [a.copy() for a in arrays]
    for array, values in zip(arrays, before, strict=True):
        array[...] = values
    one_by_one(calls, 3)
    for array, values in zip(arrays, whole, strict=True):
        np.testing.assert_array_equal(array, values)
    assert x.size


def test_every_instruction_is_in_one_of_the_cases(rng):
    used = set()
    for case in CASES | WIDTHS | TOGETHER:
        _, program, _ = program_after_a_step(case, rng, None if case in CASES else 3)
        used |= {row[0] for table in program.tape._tables for row in table.tolist()}
    for name in instructions.__all__:
        made = getattr(instructions, name)
        several = made.values() if isinstance(made, dict) else [made] if callable(made) else []
        for one in several:
            for each in one if isinstance(one, tuple) else [one]:
                assert each(np.dtype("float32")) in used, name


@pytest.mark.parametrize(
    ("total", "parts", "unit"), [(0, 3, 4), (0, 3, 0), (1, 3, 4), (100, 7, 12), (5, 9, 1)]
)
def test_shares_are_disjoint_and_complete(total, parts, unit):
    @numba.njit
    def share(total, part, parts, unit):
        return tape.share(total, part, parts, unit)

    found = []
    for part in range(parts):
        first, last = share(total, part, parts, unit)
        found += range(first, last)
        assert first >= total or first % unit == 0
    assert found == list(range(total))
