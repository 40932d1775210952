"""What was read of a model, an optimizer or a step stays what it was; what is assigned counts."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import ConfigError
from xpmlp.losses import NLL, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam, Muon
from xpmlp.training import TrainStep

D, C = 5, 3
OPTIMIZERS = [lambda: SGD(0.1), lambda: Adam(0.01), lambda: Muon(0.02)]


def made(optimizer=OPTIMIZERS[1], **options):
    net = FullyConnectedNet([D, 8, C], normalization="batchnorm", dropout=0.1, **options)
    return TrainStep(net, SoftmaxCrossEntropy(), optimizer())


def batch(library, seed=0):
    rng = np.random.default_rng(seed)
    return library.array(rng.normal(size=(12, D)), "float32"), library.array(rng.integers(0, C, 12))


def read(step):
    """All that can be read after a step, by name."""
    net, found = step.model, {}
    for group in ("params", "grads", "state"):
        found |= {f"{group} {name}": array for name, array in dict(getattr(net, group)).items()}
        for number, layer in enumerate(net.layers):
            arrays = getattr(layer, group)
            found |= {f"layer {number} {group} {name}": a for name, a in (arrays | {}).items()}
            found |= {f"again {number} {group} {name}": arrays[name] for name in arrays}
    found["attribute"] = net.layers[0].W
    found["gradient attribute"] = net.layers[0].dW
    for name, slots in step.optimizer.state.items():
        found |= {f"slot {name} {number}": slot for number, slot in enumerate(slots)}
    return found | {"outputs": step.outputs, "dy": step.loss.backward()}


@pytest.mark.parametrize("population", [None, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_nothing_that_was_read_changes(library, kernels, optimizer, population, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    step = made(optimizer, population=population)
    x, y = batch(library)
    step(x, y)
    loss = step(x, y)
    found = read(step)
    assert len(found) > 20
    found["loss"], found["correct"] = loss, step.correct
    before = {name: np.array(library.numpy(array)) for name, array in found.items()}
    for seed in range(2):
        step(*batch(library, seed))
    for name, array in found.items():
        np.testing.assert_array_equal(library.numpy(array), before[name], err_msg=name)


def test_what_is_read_is_what_a_step_by_layers_gives(library):
    steps, data = [made(dtype="float64") for _ in range(2)], batch(library)
    x, y = library.array(library.numpy(data[0]), "float64"), data[1]
    for _ in range(3):
        steps[0](x, y), steps[1].by_layers(x, y)
        found, expected = read(steps[0]), read(steps[1])
        assert found.keys() == expected.keys()
        for name, array in found.items():
            if "0 grads b" not in name and "0.b" not in name and "0 params b" not in name:
                np.testing.assert_allclose(
                    library.numpy(array), library.numpy(expected[name]), 1e-9, 1e-11, err_msg=name
                )


@pytest.mark.parametrize("looked", [False, True])
def test_a_kept_dict_of_a_layer_shows_the_newest_and_takes_assignments(looked):
    step, (x, y) = made(), _numpy_batch()
    kept = step.model.layers[0].params
    step(x, y)
    if looked:
        first = kept["W"]
    step(x, y)
    np.testing.assert_array_equal(kept["W"], step.model.params["0.W"])
    assert not looked or not np.array_equal(first, kept["W"])
    kept["W"] = np.zeros((D, 8), "float32")
    step.optimizer.lr = 0.0
    step(x, y)
    assert not np.any(step.model.layers[0].W)


@pytest.mark.parametrize(
    "assign",
    [
        lambda net, W: net.params.__setitem__("0.W", W),
        lambda net, W: net.params.update({"0.W": W}),
        lambda net, W: net.params.__ior__({"0.W": W}),
        lambda net, W: setattr(net, "params", {"0.W": W}),
        lambda net, W: setattr(net.layers[0], "W", W),
        lambda net, W: setattr(net.layers[0], "params", {**net.layers[0].params, "W": W}),
        lambda net, W: net.layers[0].params.update(W=W),
        lambda net, W: np.copyto(net.layers[0].W, W),
        lambda net, W: net.load_state_dict(net.state_dict() | {"0.W": W}),
    ],
)
@pytest.mark.parametrize("steps", [0, 2])
def test_what_is_assigned_is_trained_on(assign, steps):
    step, (x, y) = made(lambda: SGD(0.0)), _numpy_batch()
    for _ in range(steps):
        step(x, y)
    W = np.full((D, 8), 0.25, "float32")
    assign(step.model, W)
    for _ in range(2):
        np.testing.assert_array_equal(step.model.layers[0].W, W)
        step(x, y)


def test_assigned_state_and_slots_count():
    step, (x, y) = made(), _numpy_batch()
    for _ in range(2):
        step(x, y)
    step.model.state["1.running_mean"] = np.full(8, 7.0, "float32")
    step(x, y)
    assert step.model.state["1.running_mean"].min() > 5.0
    step.optimizer.state = {}
    step.optimizer.steps, step.optimizer.beta1 = 0, 0.0
    step(x, y)
    np.testing.assert_allclose(step.optimizer.state["0.W"][0], step.model.grads["0.W"], rtol=1e-6)


@pytest.mark.parametrize("group", ["params", "grads", "state"])
def test_what_cannot_reach_the_layers_is_refused(group):
    step = made()
    step(*_numpy_batch())
    arrays = getattr(step.model, group)
    name = next(iter(arrays))
    for change in (
        lambda: arrays.__delitem__(name),
        lambda: arrays.pop(name),
        lambda: arrays.clear(),
        lambda: arrays.__setitem__("no.name", np.ones(3)),
    ):
        with pytest.raises(ConfigError, match=f"`FullyConnectedNet.{group}`"):
            change()


def test_copies_and_pickles_are_on_their_own():
    step, (x, y) = made(), _numpy_batch()
    step(x, y)
    parts = step.model, step.optimizer, step.loss
    copies = copy.deepcopy(parts), pickle.loads(pickle.dumps(parts))
    step(x, y)
    for net, optimizer, loss in copies:
        other = TrainStep(net, loss, optimizer)
        other(x, y)
        for name, array in step.model.params.items():
            np.testing.assert_array_equal(array, net.params[name])


def test_two_steps_take_turns_on_one_model():
    net, (x, y) = FullyConnectedNet([D, 8, C]), _numpy_batch()
    twin = FullyConnectedNet([D, 8, C])
    steps = [TrainStep(net, loss(), SGD(0.1)) for loss in (SoftmaxCrossEntropy, NLL)]
    alone = [TrainStep(twin, loss(), SGD(0.1)) for loss in (SoftmaxCrossEntropy, NLL)]
    for _ in range(2):
        for step, other in zip(steps, alone, strict=True):
            step(x, y)
            with ops.without_kernels():
                other(x, y)
    for name, array in net.params.items():
        np.testing.assert_allclose(array, twin.params[name], 1e-5, 1e-6)


def _numpy_batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, D)).astype("float32"), rng.integers(0, C, 12)
