"""Modules of PyTorch's as layers and back: the same numbers, bit by bit the same parameters."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import xpmlp  # noqa: E402
from xpmlp import layers as L  # noqa: E402
from xpmlp.errors import ConfigError, ShapeError  # noqa: E402
from xpmlp.models import FullyConnectedNet  # noqa: E402
from xpmlp.testing import samples  # noqa: E402
from xpmlp.torch_modules import from_torch, load_torch_state_dict, to_torch  # noqa: E402


def network(dtype=torch.float32):
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.BatchNorm1d(8, eps=1e-4, momentum=0.2),
        nn.ReLU(),
        nn.Sequential(nn.Linear(8, 6, bias=False), nn.LayerNorm(6), nn.GELU("tanh")),
        nn.RMSNorm(6, eps=1e-6),
        nn.Dropout(0.25),
        nn.LeakyReLU(0.2),
        nn.Linear(6, 3),
    ).to(dtype)
    with torch.no_grad():
        for values in (*module.parameters(), *module.buffers()):
            if values.is_floating_point():
                values.copy_(torch.rand_like(values) + 0.1)
    return module


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        if "num_batches" not in name:
            assert values.dtype == other[name].dtype, name
            assert torch.equal(values, other[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_and_back(dtype, rng):
    module = network(dtype)
    net = from_torch(module)
    again = to_torch(net)
    assert str(again) == str(module)
    assert_same_bits(module.state_dict(), again.state_dict())
    x = rng.normal(size=(5, 3, 4)).astype(str(dtype).removeprefix("torch."))
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(again.eval()(torch.from_numpy(x)).numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(net.forward(x), wanted, rtol=1e-5, atol=1e-6)


WITHOUT_MODULE = {
    *("matmul", "log", "residual", "sequential", "piecewise", "swiglu"),
    *("periodic", "periodic-mapped", "embedding-columns"),
}


NOT_THERE = ("population", "shared", "trailing")  # members, and axes that torch's do not join


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(
    "name", [name for name in samples.LAYERS if not any(word in name for word in NOT_THERE)]
)
def test_every_layer_there_and_back(name, copy, rng):
    layer = samples.LAYERS[name]("float32")
    for group in (layer.params, layer.state):
        for key, values in group.items():
            group[key] = rng.uniform(0.5, 1.5, values.shape).astype("float32")
    if name in WITHOUT_MODULE:
        with pytest.raises(ConfigError, match="`to_torch`: expected a layer that torch has"):
            to_torch(layer, copy=copy)
        return
    module = to_torch(layer, copy=copy).eval()
    # Alone, a module does not say that its slopes are those of channels.
    inside = nn.Sequential(module, nn.MaxPool2d(1)) if "image" in name else nn.Sequential(module)
    back = from_torch(inside, copy=copy).layers[0]
    assert repr(back) == repr(layer)
    for key, values in layer.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[key], values)
    assert_same_bits(module.state_dict(), to_torch(back, copy=copy).state_dict())
    x = samples.input_of(name, rng)
    codes = name == "embedding"
    given = torch.from_numpy(x.astype("int64" if codes else "float32"))
    with torch.no_grad():
        wanted = module(given).numpy()
    for one in (layer, back):
        got = one.forward(given.numpy())
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_what_was_made_is_trained_alone(rng):
    module = network()
    before = {name: values.clone() for name, values in module.state_dict().items()}
    net = from_torch(module)
    for array in net.params.values():
        array += 1.0
    assert_same_bits(before, module.state_dict())


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_memory_may_be_shared(backend, rng):
    with xpmlp.use_backend(backend):
        module = network().eval()
        net = from_torch(module, copy=False)
        x = xpmlp.asarray(rng.normal(size=(5, 3, 4)).astype("float32"))
        like = torch.from_numpy(xpmlp.to_numpy(x).copy())
        evaluation = xpmlp.step.Evaluation(net)
        for _ in range(2):
            with torch.no_grad():
                wanted = module(like).numpy()
                for got in (net.forward(x), evaluation.outputs(x)):
                    np.testing.assert_allclose(xpmlp.to_numpy(got), wanted, rtol=1e-5, atol=1e-6)
                for values in module.parameters():  # as an optimizer of torch's does
                    values.mul_(0.9)
        shared = {values.data_ptr() for values in module.state_dict().values()}
        again = to_torch(net, copy=False)
        for name, values in again.state_dict().items():
            assert "num_batches" in name or values.data_ptr() in shared, name
        assert_same_bits(module.state_dict(), again.state_dict())
        assert all(values.requires_grad for values in again.parameters())


def test_training_leaves_shared_memory_alone(rng):
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = {name: values.clone() for name, values in module.state_dict().items()}
    step = xpmlp.training.TrainStep(
        from_torch(module, copy=False), xpmlp.losses.SoftmaxCrossEntropy(), xpmlp.optim.SGD(0.1)
    )
    x, y = rng.normal(size=(8, 4)).astype("float32"), rng.integers(0, 3, 8)
    step(x, y)
    step.by_layers(x, y)
    assert_same_bits(before, module.state_dict())
    assert not np.array_equal(step.model.params["0.W"], before["0.weight"].numpy().T)


def test_on_torchs_own_arrays():
    with xpmlp.use_backend("torch"):
        layer = from_torch(nn.Linear(3, 2))
        assert type(layer.W) is torch.Tensor
        assert_same_bits(to_torch(layer).state_dict(), to_torch(layer).state_dict())


@pytest.mark.parametrize("kind", L.activations.ACTIVATIONS.values(), ids=lambda kind: kind.__name__)
def test_activations(kind, rng):
    if not hasattr(nn, kind.__name__):
        with pytest.raises(ConfigError, match="`to_torch`: expected a layer that torch has"):
            to_torch(kind())
        return
    x = rng.normal(size=(4, 3))
    module = to_torch(kind())
    assert type(from_torch(module)) is kind
    np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), kind().forward(x), rtol=1e-7)


def test_a_state_dict_alone():
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    net = FullyConnectedNet([4, 5, 2])
    load_torch_state_dict(net, module.state_dict())
    assert_same_bits(module.state_dict(), to_torch(net).state_dict())
    before = net.state_dict()
    state = module.state_dict()
    with pytest.raises(ShapeError, match="load_torch_state_dict"):
        net.load_state_dict(state)
    state["3.weight"] = state.pop("2.weight")
    with pytest.raises(ConfigError, match=r"Missing key\(s\) in state_dict: \"2.weight\""):
        load_torch_state_dict(net, state)
    np.testing.assert_equal(net.state_dict(), before)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv1d(1, 2, 3),
        nn.LayerNorm((2, 3)),
        nn.LayerNorm(3, bias=False),
        nn.BatchNorm1d(3, affine=False),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.BatchNorm1d(3, momentum=None),
        nn.Embedding(5, 2, max_norm=1.0),
        nn.Softplus(2.0),
        nn.Flatten(0),
        nn.Softplus(threshold=5.0),
        nn.Dropout(1.0),
        nn.Sequential(nn.Linear(2, 2), nn.Conv1d(1, 2, 3)),
    ],
    ids=repr,
)
def test_what_has_no_layer(module):
    with pytest.raises(ConfigError, match="`from_torch`: expected a Sequential, or one of Linear"):
        from_torch(module)


@pytest.mark.parametrize(
    "layer",
    [
        L.Residual(L.ReLU()),
        L.Matmul(np.ones((2, 3))),
        L.BatchNorm(2, convention="keras"),
        L.Log(),
    ],
    ids=repr,
)
def test_what_has_no_module(layer):
    with pytest.raises(ConfigError, match="`to_torch`: expected a layer that torch has a module"):
        to_torch(layer)


def test_a_population_is_no_module():
    with pytest.raises(ConfigError, match="a population of 3"):
        to_torch(FullyConnectedNet([2, 3, 2], population=3))


def test_an_epsilon_of_torchs_choice(rng):
    x = rng.normal(size=(4, 3)).astype("float32") * 1e-4
    module = nn.RMSNorm(3)
    assert module.eps is None
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(from_torch(module).forward(x), wanted, rtol=1e-5)


@pytest.mark.parametrize("nested", [False, True])
def test_slopes_of_channels(nested, rng):
    """Images may be as wide as they have channels: what slopes are for is no matter of shapes."""
    slopes = nn.Sequential(nn.PReLU(3)) if nested else nn.PReLU(3)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3), slopes, nn.Identity(), nn.Flatten(), nn.PReLU(27), nn.LogSoftmax(1)
    )
    with torch.no_grad():
        for values in module.parameters():
            values.copy_(torch.rand_like(values) - 0.3)
    net = from_torch(module)
    x = rng.normal(size=(4, 2, 5, 5)).astype("float32")
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
        again = to_torch(net)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(net.forward(x), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(again, wanted)
    assert xpmlp.step.Evaluation(net).explain(x) == "compiled"
    first = from_torch(nn.Sequential(nn.PReLU(2), nn.Conv2d(2, 3, 3)))
    assert type(first.layers[0]) is L.PReLU2D
