"""Random training steps, compiled against layer by layer.

Networks of random layers, sizes and options; examples are the same in every run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xpmlp import layers as L
from xpmlp import losses, optim, penalties
from xpmlp.random import as_generator
from xpmlp.training import TrainStep

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

# Relative to the largest value: sums of a few hundred terms in another order, over three steps.
TOLERANCES = {"float32": 2e-3, "float64": 1e-9}
ACTIVATIONS = (
    *L.activations.ACTIVATIONS.values(),
    *(lambda: L.GELU(approximate="tanh"), lambda: L.LeakyReLU(0.3), L.Softmax, L.LogSoftmax),
)
GATES = (L.GLU, L.SwiGLU)
SLOPES = (lambda features, **common: L.PReLU(1, **common), L.PReLU)
CLASS_LOSSES = (
    losses.SoftmaxCrossEntropy,
    losses.MulticlassHinge,
    lambda: losses.MulticlassHinge(0.3, reduction="sum"),
    lambda: losses.SoftmaxCrossEntropy(label_smoothing=0.2, z_loss=0.01),
    lambda: losses.SoftmaxCrossEntropy(ignore_index=0, reduction="sum"),
    lambda: losses.SoftmaxCrossEntropy(ignore_index=-7, label_smoothing=0.1),
)
NUMBER_LOSSES = (
    losses.MSE,
    losses.HalfSSE,
    losses.MAE,
    losses.BCEWithLogits,
    lambda: losses.Huber(0.5),
    lambda: losses.MSE(reduction="sum"),
)
# Large eps: what is next to 0 but for rounding must not become whole steps.
OPTIMIZERS = (
    lambda lr: optim.SGD(lr),
    lambda lr: optim.SGD(lr, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda lr: optim.AdaGrad(lr, eps=1e-2),
    lambda lr: optim.RMSProp(lr, eps=1e-2, weight_decay=0.01),
    lambda lr: optim.Adam(lr, eps=1e-2, weight_decay=0.01, schedule="constant"),
    lambda lr: optim.AdamW(lr, eps=1e-2),
    lambda lr: optim.Muon(lr),
)
PENALTIES = (
    lambda: None,
    lambda: penalties.L1(1e-3),
    lambda: penalties.L2(1e-2, biases=True),
    lambda: penalties.L2Norm(1e-2),
)
WIDTHS = st.sampled_from([1, 2, 3, 5, 8, 17, 33, 70])


@st.composite
def steps(draw, dtypes=("float32", "float64"), sharing=False, gates=False):
    """What makes a step, again and again the same, and a batch for it.

    With ``sharing``, members that have one learning rate share the matrices of hidden layers; with
    ``gates``, activations are gates or have learned slopes.
    """
    activations: Any = GATES + SLOPES if gates else ACTIVATIONS
    dtype = draw(st.sampled_from(dtypes))
    population = draw(st.sampled_from([1, 3] if sharing else [None, None, 1, 3]))
    rows = draw(st.sampled_from([1, 2, 3, 7, 16, 37]))
    D = draw(WIDTHS)
    blocks = []
    for _ in range(draw(st.integers(0, 3))):
        kinds = ["plain", "plain", "residual", "nested"]
        blocks.append(
            (
                draw(st.sampled_from(kinds)),
                draw(WIDTHS),
                draw(st.booleans()),
                draw(st.sampled_from([None, None, "batch", "layer", "rms"])),
                draw(st.integers(0, len(activations) - 1)),
                draw(st.sampled_from([0.0, 0.0, 0.4])),
            )
        )
    outputs = draw(st.integers(2, 9))
    of_classes = draw(st.booleans())
    loss = draw(st.integers(0, len(CLASS_LOSSES if of_classes else NUMBER_LOSSES) - 1))
    optimizer = draw(st.integers(0, len(OPTIMIZERS) - 1))
    penalty = draw(st.integers(0, len(PENALTIES) - 1))
    clip = draw(st.sampled_from([None, None, 0.1, 10.0]))
    own_x = population is not None and draw(st.booleans())
    if population is not None and blocks and blocks[0][0] == "residual":
        own_x = True  # a batch that all share has not the shape of what is added to it
    own_y = population is not None and draw(st.booleans())
    flattened = D % 2 == 0 and draw(st.booleans()) and not own_x
    member_rates = population == 3 and draw(st.booleans())
    sharing = sharing and not member_rates
    lr = [0.01, 0.03, 0.1] if member_rates else 0.03
    rng = np.random.default_rng(draw(st.integers(0, 1000)))

    def make():
        common = {"population": population, "dtype": dtype}
        streams = as_generator(3, population)
        made: list[L.Layer] = [L.Flatten()] if flattened else []
        width = D
        for kind, wanted, bias, norm, activation, rate in blocks:
            wide = width if kind == "residual" else wanted
            # A bias before a batch norm has a gradient of rounding errors alone.
            affine: Any = L.SharedLinear if sharing else L.Linear
            kind_of = activations[activation]
            out = 2 * wide if kind_of in GATES else wide
            block: list[L.Layer] = [
                affine(width, out, bias=bias and norm != "batch", rng=streams, **common)
            ]
            if norm is not None and not (norm == "batch" and rows < 3):
                of = {"batch": L.BatchNorm, "layer": L.LayerNorm, "rms": L.RMSNorm}[norm]
                block.append(of(out, **common))
            block.append(kind_of(wide, **common) if kind_of in SLOPES else kind_of())
            if rate:
                block.append(L.Dropout(rate, population=population, rng=streams))
            if kind == "plain":
                made += block
            else:
                made.append(
                    (L.Residual if kind == "residual" else lambda f: f)(L.Sequential(*block))
                )
            width = wide
        made.append(L.Linear(width, outputs, rng=streams, **common))
        kinds = CLASS_LOSSES if of_classes else NUMBER_LOSSES
        return TrainStep(
            L.Sequential(*made),
            kinds[loss](),
            OPTIMIZERS[optimizer](lr),
            penalty=PENALTIES[penalty](),
            clip_norm=clip,
        )

    lead = (population,) if own_x else ()
    shape = (*lead, rows, 2, D // 2) if flattened else (*lead, rows, D)
    x = rng.normal(size=shape).astype(dtype)
    lead = (population,) if own_y else ()
    if of_classes:
        y = rng.integers(0, outputs, (*lead, rows))
    else:
        y = rng.uniform(size=(*lead, rows, outputs)).astype(dtype)
    return make, x, y, dtype


def compare(make, x, y, dtype):
    compiled, reference = make(), make()
    tolerance = TOLERANCES[dtype]

    def close(name, actual, expected):
        expected = np.asarray(expected, np.float64)
        scale = 1e-2 + np.abs(expected).max()  # the terms of a small gradient are larger than it
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=name)

    for _ in range(3):
        value, expected = compiled(x, y), reference.by_layers(x, y)
        close("loss", value, expected)
        close("outputs", compiled.outputs, reference.outputs)
        assert (compiled.correct is None) == (reference.correct is None)
        for name, array in reference.model.grads.items():
            close(f"gradient of {name}", compiled.model.grads[name], array)
        for name, array in reference.model.state_dict().items():
            # Adaptive optimizers make whole steps of what rounding left of a gradient of 0.
            if np.abs(reference.model.grads.get(name, 1.0)).max(initial=0.0) > ROUNDING[dtype]:
                close(name, compiled.model.state_dict()[name], array)
        assert compiled.optimizer.steps == reference.optimizer.steps
    if dtype == "float64" and compiled.correct is not None:
        np.testing.assert_array_equal(compiled.correct, reference.correct)


ROUNDING = {"float32": 1e-6, "float64": 1e-15}
COMMON = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=50, **COMMON)
@given(steps())
def test_random_steps_compiled_and_by_layers(step):
    compare(*step)


@settings(max_examples=30, **COMMON)
@given(steps(dtypes=("float64",), sharing=True))
def test_random_steps_of_members_that_share(step):
    compare(*step)


@settings(max_examples=30, **COMMON)
@given(steps(gates=True))
def test_random_steps_of_gates(step):
    compare(*step)


@pytest.mark.slow
@settings(max_examples=1500, **COMMON)
@given(steps(dtypes=("float64",)))  # among so many, some networks multiply rounding by thousands
def test_many_random_steps_compiled_and_by_layers(step):
    compare(*step)
