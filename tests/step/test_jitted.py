"""A step on JAX arrays, as one function, gives what the layers give; ops run under ``jax.jit``."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from step.test_compiled import (
    ELEMENTWISE,
    LOSSES,
    MODELS,
    OPTIMIZERS,
    C,
    D,
    batch,
    network_pair,
    pair,
)

import xpmlp
from xpmlp import ops
from xpmlp.errors import DataError, StateError
from xpmlp.layers import BatchNorm, LayerNorm, Linear, ReLU, RMSNorm, Sequential
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.optim import SGD, Adam, Muon
from xpmlp.penalties import L1, L2
from xpmlp.training import TrainStep

jax = pytest.importorskip("jax", reason="needs JAX: pip install jax")
TOLERANCE = 1e-11


@pytest.fixture(autouse=True)
def on_jax():
    with xpmlp.use_backend("jax"):
        yield


def on(arrays):
    return [xpmlp.asarray(array) for array in arrays]


def run_both(steps, batches, why="jitted"):
    jitted, by_layers = steps
    for x, y in map(on, batches):
        assert jitted.explain(x, y) == why
        value, expected = jitted(x, y), by_layers.by_layers(x, y)
        assert jitted.explain(x, y) == why  # nothing has been found that cannot be traced
        assert value.shape == expected.shape and value.dtype == expected.dtype
        np.testing.assert_allclose(value, expected, rtol=TOLERANCE)
        if expected is not None and by_layers.correct is not None:
            np.testing.assert_array_equal(jitted.correct, by_layers.correct)
    for ours, others in (
        (jitted.model.params, by_layers.model.params),
        (jitted.model.state, by_layers.model.state),
        (jitted.model.grads, by_layers.model.grads),
        ({"outputs": jitted.outputs}, {"outputs": by_layers.outputs}),
        ({"dy": jitted.loss.backward()}, {"dy": by_layers.loss.backward()}),
    ):
        assert ours.keys() == others.keys()
        for name, values in others.items():
            np.testing.assert_allclose(
                ours[name], values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )
    assert jitted.optimizer.steps == by_layers.optimizer.steps == len(batches)
    for name, slots in by_layers.optimizer.state.items():
        for mine, other in zip(jitted.optimizer.state[name], slots, strict=True):
            np.testing.assert_allclose(mine, other, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("model", ["dropout", "batchnorm", "layernorm", "rmsnorm", "gelu", "elu"])
def test_models(model, rng):
    batches = [batch(rng, "float64") for _ in range(3)]
    run_both(pair("float64", **MODELS[model]), batches)


SOME = ("smoothed", "weighted", "hinge", "log-likelihood", "huber summed", "bce", "shares weighted")


@pytest.mark.parametrize("loss", SOME)
def test_losses(loss, rng):
    make = (LOSSES | ELEMENTWISE)[loss]
    steps = pair("float64", loss=make, optimizer=lambda: SGD(0.01), population=3)
    run_both(steps, [batch(rng, "float64", loss=loss) for _ in range(2)])


@pytest.mark.parametrize("optimizer", {**OPTIMIZERS, "muon": lambda: Muon(0.01, weight_decay=0.1)})
def test_optimizers(optimizer, rng):
    make = {**OPTIMIZERS, "muon": lambda: Muon(0.01, weight_decay=0.1)}[optimizer]
    run_both(pair("float64", optimizer=make), [batch(rng, "float64") for _ in range(4)])


def test_rates_of_members(rng):
    make = lambda: Adam([0.1, 0.0, 0.01], weight_decay=[0.1, 0.2, 0.0])  # noqa: E731
    steps = pair("float64", optimizer=make, population=3, dropout=0.3)
    run_both(steps, [batch(rng, "float64", lead=(3,)) for _ in range(3)])


TRACED = ("residuals in a residual", "logarithms of a softmax", "gates", "learned slopes")


@pytest.mark.parametrize("network", TRACED)
def test_networks(network, rng):
    run_both(network_pair(network), [batch(rng, "float64") for _ in range(2)])


@pytest.mark.parametrize("options", [{"penalty": L1(0.1)}, {"penalty": L2(0.1), "clip_norm": 0.5}])
def test_penalties_and_clipping(options, rng):
    steps = pair("float64")
    steps = [TrainStep(s.model, s.loss, s.optimizer, **options) for s in steps]
    run_both(steps, [batch(rng, "float64") for _ in range(3)])


def test_traced_once_a_shape_and_again_for_another_option(rng):
    jitted, by_layers = pair("float64", dropout=0.3, optimizer=lambda: Adam(0.01))
    x, y = on(batch(rng, "float64"))
    for change in (
        lambda step: None,
        lambda step: setattr(step.optimizer, "lr", 0.02),  # a number that goes in as an argument
        lambda step: setattr(step.model.layers[2], "p", 0.6),
        lambda step: setattr(step.loss, "label_smoothing", 0.2),
        lambda step: setattr(step.optimizer, "weight_decay", 0.1),
        lambda step: setattr(step, "clip_norm", 0.1),
    ):
        for step in (jitted, by_layers):
            change(step)
        for _ in range(3):
            np.testing.assert_allclose(jitted(x, y), by_layers.by_layers(x, y), rtol=TOLERANCE)
    assert jitted._jitted._run._cache_size() == 1


def test_what_was_read_stays_and_what_is_assigned_is_taken(rng):
    jitted, _ = pair("float64", optimizer=lambda: SGD(0.1, momentum=0.9))
    x, y = on(batch(rng, "float64"))
    before = jitted.model.params
    kept = {name: np.array(array) for name, array in before.items()}
    jitted(x, y)
    for name, array in before.items():
        np.testing.assert_array_equal(array, kept[name])
    jitted.model.params = before
    first = float(jitted(x, y))
    jitted.model.params = before
    assert float(jitted(x, y)) == first


@pytest.mark.parametrize("wrong", [C, -1])
def test_wrong_targets_change_nothing(wrong, rng):
    jitted, _ = pair("float64", normalization="batchnorm", dropout=0.2)
    x, y = batch(rng, "float64")
    jitted(*on((x, y)))
    before, drawn = jitted.model.state_dict(), jitted.model.layers[3].step
    y[5] = wrong
    with pytest.raises(DataError, match=rf"in 0…{C - 1}, got {wrong} in row 5"):
        jitted(*on((x, y)))
    for name, array in jitted.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert jitted.optimizer.steps == 1 and jitted.model.layers[3].step == drawn


def test_numpy_and_jax_batches_in_turn_of_a_step_whose_loss_is_another_one(rng):
    jitted, _ = pair("float64")
    x, y = batch(rng, "float64")
    for loss in (SoftmaxCrossEntropy(), SoftmaxCrossEntropy(label_smoothing=0.5)):
        jitted.loss = loss
        before = jitted.model.params
        on_jax = float(jitted(*on((x, y))))
        jitted.model.params = before
        assert float(jitted(*on((x, y)))) == on_jax


def test_another_network_is_refused(rng):
    jitted, other = pair("float64")
    x, y = on(batch(rng, "float64"))
    jitted(x, y)
    jitted.model = other.model
    with pytest.raises(StateError, match="another one"):
        jitted(x, y)


class Counting(ReLU):
    """Changes with the number of its forwards."""

    def forward(self, x, training=False):
        self._times = getattr(self, "_times", 0) + 1
        return super().forward(x * self._times, training)


def test_what_is_somebody_elses_runs_layer_by_layer(rng):
    def make():
        first, last = (Linear(*s, rng=1, dtype="float64") for s in ((D, 5), (5, C)))
        return TrainStep(Sequential(first, Counting(), last), MSE(), SGD(0.1))

    run_both(
        [make(), make()],
        [batch(rng, "float64", loss="mse") for _ in range(3)],
        "layer by layer (Counting may change more than arrays)",
    )


def test_layers_that_look_at_values_run_one_after_another(rng, monkeypatch):
    def peek(self, x, training=False):
        assert float(x[0, 0]) < 1e9  # which a trace does not know
        return forward(self, x, training)

    forward = ReLU.forward
    monkeypatch.setattr(ReLU, "forward", peek)
    step, by_layers = pair("float64")
    x, y = on(batch(rng, "float64"))
    for _ in range(2):
        np.testing.assert_allclose(step(x, y), by_layers.by_layers(x, y), rtol=TOLERANCE)
    assert step.explain(x, y).startswith("layer by layer (ConcretizationTypeError: ")
    assert step.optimizer.steps == 2


def test_kernels_off_means_layer_by_layer(rng):
    step, _ = pair("float64")
    x, y = on(batch(rng, "float64"))
    with ops.without_kernels():
        assert step.explain(x, y) == "layer by layer (without_kernels)"


def test_a_gradient_nobody_looks_at_is_never_computed(rng):
    jitted, _ = pair("float64")
    jitted(*on(batch(rng, "float64")))
    assert jitted._jitted._run_backward._cache_size() == 0
    assert jitted.model.grads and jitted._jitted._run_backward._cache_size() == 1


def test_masks_are_those_of_the_layers_with_integers_of_32_bits():
    """As JAX is without being told otherwise; a mask's number may have all of its 32 bits."""
    code = """
import numpy as np, xpmlp
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.training import TrainStep
xpmlp.set_backend("jax")
x = xpmlp.asarray(np.random.default_rng(0).normal(size=(9, 6)), dtype="float32")
nets = [FullyConnectedNet([6, 64, 2], dropout=0.5, seed=3) for _ in range(2)]
steps = [TrainStep(net, MSE(), SGD(0.1)) for net in nets]
for net in nets:
    net.layers[2].step = 2**31 - 2
for _ in range(4):
    a, b = steps[0](x, x[:, :2]), steps[1].by_layers(x, x[:, :2])
    np.testing.assert_allclose(a, b, rtol=1e-5)
print(steps[0].explain(x, x[:, :2]), nets[0].layers[2].step == nets[1].layers[2].step)
"""
    environment = {"JAX_ENABLE_X64": "0", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "jitted True", done.stderr


# --- Ops, and PyTorch's compiler ------------------------------------------------------------------

N = 6


@pytest.mark.parametrize("op", ["relu", "gelu", "silu", "tanh", "sigmoid", "softplus", "elu"])
def test_activations_under_jit_and_by_jaxs_own_gradient(op, rng):
    x, dy = on(rng.normal(size=(2, N, 4)))
    forward, backward = getattr(ops, op), getattr(ops, f"{op}_backward")
    np.testing.assert_allclose(jax.jit(forward)(x), forward(x), rtol=1e-12)
    _, pull = jax.vjp(forward, x)
    found = jax.jit(backward)(dy, x, forward(x))
    np.testing.assert_allclose(found, pull(dy)[0], rtol=1e-11, atol=1e-13)


def test_linear_under_jit_and_by_jaxs_own_gradient(rng):
    x, W, b, dy = on([rng.normal(size=s) for s in ((N, 4), (4, 3), (3,), (N, 3))])
    y, pull = jax.vjp(ops.linear, x, W, b)
    np.testing.assert_allclose(jax.jit(ops.linear)(x, W, b), y, rtol=1e-12)
    for found, expected in zip(jax.jit(ops.linear_backward)(dy, x, W), pull(dy), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_cross_entropy_under_jit_and_by_jaxs_own_gradient(rng):
    (x,), y = on([rng.normal(size=(N, 4))]), xpmlp.asarray(np.arange(N) % 4)
    loss = lambda x: ops.softmax_cross_entropy(x, y, label_smoothing=0.1, z_loss=0.1)  # noqa: E731
    value, gradient = jax.jit(loss)(x)
    np.testing.assert_allclose(value, loss(x)[0], rtol=1e-12)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: loss(x)[0])(x), rtol=1e-10, atol=1e-12)


def test_norms_under_jit_and_by_jaxs_own_gradient(rng):
    x, gamma, beta, dy = on([rng.normal(size=s) for s in ((N, 4), (4,), (4,), (N, 4))])
    for kind in (LayerNorm, RMSNorm, BatchNorm):

        def forward(x, gamma, beta, kind=kind):
            layer = kind(4, dtype="float64")
            given = {"gamma": gamma, "beta": beta}
            layer.params.update({name: given[name] for name in layer.params})
            return layer, layer.forward(x, training=True)

        layer, y = forward(x, gamma, beta)
        dx = layer.backward(dy)
        y_jit, pull = jax.vjp(jax.jit(lambda *a: forward(*a)[1]), x, gamma, beta)
        np.testing.assert_allclose(y_jit, y, rtol=1e-11)
        for found, expected in zip((dx, *layer.grads.values()), pull(dy), strict=False):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore")  # of it, about caches that it looks through
def test_a_step_by_layers_under_torchs_compiler(rng):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
    with xpmlp.use_backend("torch"):
        steps = pair("float64", optimizer=lambda: Adam(0.01))
        compiled = torch.compile(steps[0].by_layers, backend="aot_eager")
        for _ in range(3):
            x, y = on(batch(rng, "float64"))
            value = compiled(x, y)
            np.testing.assert_allclose(value, steps[1].by_layers(x, y), rtol=1e-10)
        for name, w in steps[1].model.params.items():
            np.testing.assert_allclose(steps[0].model.params[name], w, rtol=1e-9, atol=1e-11)
