"""A population of P networks trains exactly as P networks one after another.

The training step is written out by hand here, so that what is compared are layers, losses,
penalties and optimizers, and nothing that a trainer adds.
"""

import numpy as np
import pytest

from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam, AdamW, Muon, clip_by_global_norm
from xpmlp.penalties import L1, L2

SIZES, P, N, STEPS = [6, 8, 7, 3], 4, 32, 200
SEEDS = [3, 14, 15, 92]
TOLERANCES = [("float32", 1e-6), ("float64", 1e-12)]

LR = [0.1, 0.03, 0.05, 0.01]
DECAY = [0.0, 1e-3, 1e-2, 5e-3]
DROPOUT = [0.0, 0.1, 0.3, 0.5]
SMOOTHING = [0.0, 0.1, 0.2, 0.05]
MOMENTUM = [0.9, 0.5, 0.0, 0.8]
STRENGTH = [1e-3, 0.0, 1e-4, 1e-2]
NORM = [0.5, 1.0, 5.0, 0.1]

OPTIMIZERS = {
    "sgd": lambda pick: SGD(pick(LR), weight_decay=pick(DECAY)),
    "momentum": lambda pick: SGD(pick(LR), momentum=pick(MOMENTUM), weight_decay=pick(DECAY)),
    "adamw": lambda pick: AdamW(
        pick([lr / 10 for lr in LR]), beta1=pick(MOMENTUM), weight_decay=pick(DECAY)
    ),
    "muon": lambda pick: Muon(pick([lr / 10 for lr in LR]), momentum=pick(MOMENTUM)),
}


def everything(values):
    return values


def only(member):
    return lambda values: values[member]


@pytest.fixture
def batches(rng):
    """Minibatches of three clouds of points, the same for all."""
    centres = 1.5 * rng.normal(size=(3, SIZES[0]))
    labels = rng.integers(3, size=(STEPS, N))
    return centres[labels] + rng.normal(size=(STEPS, N, SIZES[0])), labels


def train(net, loss, optimizer, batches, *, penalty=None, max_norm=None, own=False):
    """Loss curve of a plain training loop; ``own`` gives each member its own minibatches."""
    curve = []
    x, labels = batches
    for step in range(STEPS):
        rows, targets = x[step].astype(net.dtype), labels[step]
        if own:  # member p starts p steps further on
            order = [(step + member) % STEPS for member in range(P)]
            rows, targets = x[order].astype(net.dtype), labels[order]
        value = loss.forward(net.forward(rows, training=True), targets)
        net.backward(loss.backward(), input_grad=False)
        grads = net.grads
        if penalty is not None:
            value = value + penalty.forward(net.params, net.weight_params, net.population)
            extra = penalty.backward(net.params, net.weight_params, net.population)
            grads = {name: g + extra[name] if name in extra else g for name, g in grads.items()}
        if max_norm is not None:
            grads = clip_by_global_norm(grads, max_norm, net.population)
        net.params = optimizer.update(net.params, grads, net.weight_params)
        curve.append(value)
    return np.stack(curve)


def compare(batches, dtype, tolerance, *, make_optimizer, penalty=None, max_norm=None, **options):
    """Train together, then each alone, and compare loss curves, parameters and statistics."""

    def run(pick, population, seed):
        net = FullyConnectedNet(
            SIZES,
            dropout=pick(DROPOUT),
            population=population,
            seed=seed,
            dtype=dtype,
            **options,
        )
        curve = train(
            net,
            SoftmaxCrossEntropy(label_smoothing=pick(SMOOTHING)),
            make_optimizer(pick),
            batches,
            penalty=None if penalty is None else penalty(pick(STRENGTH)),
            max_norm=None if max_norm is None else pick(max_norm),
        )
        return curve, net.state_dict()

    together, states = run(everything, P, SEEDS)
    assert together.dtype == dtype and together.shape == (STEPS, P)
    assert (together[-20:].mean(axis=0) < 0.8 * together[0]).all()  # they did learn
    for member, seed in enumerate(SEEDS):
        alone, state = run(only(member), None, seed)
        np.testing.assert_allclose(together[:, member], alone, rtol=tolerance, atol=tolerance)
        # By order: a member without dropout, alone, has no Dropout layers to count.
        for (name, ours), value in zip(states.items(), state.values(), strict=True):
            np.testing.assert_allclose(
                ours[member], value, rtol=tolerance, atol=tolerance, err_msg=name
            )


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_member_trains_as_it_would_alone(batches, name, dtype, tolerance):
    if name == "muon" and dtype == "float32":
        tolerance = 1e-4  # five Newton-Schulz steps enlarge the rounding of small directions ~500×
    compare(batches, dtype, tolerance, make_optimizer=OPTIMIZERS[name])


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("normalization", ["batchnorm", "layernorm"])
def test_with_normalization(batches, normalization, dtype, tolerance):
    compare(
        batches,
        dtype,
        tolerance,
        make_optimizer=OPTIMIZERS["momentum"],
        normalization=normalization,
    )


@pytest.mark.parametrize("penalty", [L1, L2])
def test_with_a_penalty_and_clipping(batches, penalty):
    compare(
        batches,
        "float64",
        1e-12,
        make_optimizer=OPTIMIZERS["momentum"],
        penalty=penalty,
        max_norm=NORM,
        activation="tanh",
    )


def test_with_minibatches_of_their_own(batches):
    x, labels = batches
    net = FullyConnectedNet(SIZES, population=P, seed=SEEDS, dtype="float64")
    together = train(net, SoftmaxCrossEntropy(), Adam(0.01), batches, own=True)
    for member, seed in enumerate(SEEDS):
        alone = FullyConnectedNet(SIZES, seed=seed, dtype="float64")
        shifted = np.roll(x, -member, axis=0), np.roll(labels, -member, axis=0)
        curve = train(alone, SoftmaxCrossEntropy(), Adam(0.01), shifted)
        np.testing.assert_allclose(together[:, member], curve, rtol=1e-12)


def test_members_do_not_feel_each_other(batches):
    """One member whose rate makes it explode leaves the others as they were."""

    def curves(lr):
        net = FullyConnectedNet(SIZES, population=P, seed=SEEDS, dtype="float64")
        with np.errstate(all="ignore"):
            return train(net, SoftmaxCrossEntropy(), SGD([0.1, 0.1, lr, 0.1]), batches)

    calm, wild = curves(0.1), curves(1e200)
    assert not np.isfinite(wild[-1, 2])
    np.testing.assert_array_equal(calm[:, [0, 1, 3]], wild[:, [0, 1, 3]])
