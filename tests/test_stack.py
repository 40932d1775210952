"""From a population to its members and back, and members of different widths."""

import json

import numpy as np
import pytest

from xpmlp.errors import ConfigError
from xpmlp.layers.masked import Mask, MaskedLayerNorm, MaskedRMSNorm
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import ACTIVATIONS, FullyConnectedNet
from xpmlp.optim import SGD, Adam, Muon
from xpmlp.population import Population, stack
from xpmlp.testing import gradcheck
from xpmlp.training import TrainStep, load_model, save_model

P, WIDTHS, SECOND = 3, [4, 9, 9], [5, 6, 2]


def net(**options):
    options = {"dtype": "float64", "population": P, "seed": [7, 8, 9]} | options
    sizes = options.pop("sizes", [6, WIDTHS, SECOND, 3])
    return FullyConnectedNet(sizes, **options)


@pytest.fixture
def batch(rng):
    return rng.normal(size=(20, 6)), rng.integers(3, size=20)


def trained(model, batch, optimizer=None, steps=5):
    step = TrainStep(model, SoftmaxCrossEntropy(), optimizer or Adam(0.05))
    return np.stack([step(*batch) for _ in range(steps)])


@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm", "rmsnorm"])
@pytest.mark.parametrize("sizes", [[6, 9, 3], [6, WIDTHS, SECOND, 3]], ids=["even", "uneven"])
def test_member_predicts_as_its_row(batch, sizes, normalization):
    model = net(sizes=sizes, normalization=normalization, dropout=[0.0, 0.5, 0.2])
    trained(model, batch)
    for number in range(P):
        member = model.member(number)
        assert member.population is None
        np.testing.assert_allclose(
            member.forward(batch[0]), model.forward(batch[0])[number], rtol=1e-12, atol=1e-14
        )
        assert member.config == FullyConnectedNet(**member.config).config


def test_member_has_arrays_of_its_own(batch):
    model = net()
    member = model.member(-1)
    before = model.forward(batch[0])
    trained(member, batch)
    np.testing.assert_array_equal(model.forward(batch[0]), before)
    np.testing.assert_array_equal(model.member(2).params["0.W"], model.member(-1).params["0.W"])


def test_member_goes_on_training_as_it_would_have(batch):
    """Dropout masks go on where they were, so that nothing is drawn twice."""
    model = net(sizes=[6, 9, 3], dropout=[0.3, 0.5, 0.2])
    trained(model, batch, SGD(0.1))
    member = model.member(1)
    expected = trained(model, batch, SGD(0.1))[:, 1]
    np.testing.assert_allclose(trained(member, batch, SGD(0.1)), expected, rtol=1e-12)


def test_select_is_a_smaller_population(batch):
    model = net(normalization="batchnorm", dropout=[0.0, 0.5, 0.2])
    trained(model, batch)
    some = model.select([2, 0])
    assert some.population == 2 and some.config["sizes"] == [6, [9, 4], [2, 5], 3]
    np.testing.assert_allclose(
        some.forward(batch[0]), model.forward(batch[0])[[2, 0]], rtol=1e-12, atol=1e-14
    )
    assert model.select([0, 2]).member(0).config == model.member(0).config


@pytest.mark.parametrize("members", [[], [3], [-4]])
def test_members_that_are_not_there(members):
    with pytest.raises(ConfigError, match=r"0…2"):
        net().select(members)
    with pytest.raises(ConfigError, match="population"):
        FullyConnectedNet([4, 2]).member(0)


def test_stack_is_the_way_back(batch):
    model = net(normalization="layernorm", dropout=[0.0, 0.5, 0.2], activation="softplus")
    trained(model, batch)
    members = [model.member(number) for number in range(P)]
    again = stack(members)
    assert again.config["sizes"] == [6, WIDTHS, SECOND, 3] and again.population == P
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    assert stack([model.select([0]), members[1]]).config["sizes"] == [6, [4, 9], [5, 6], 3]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"activation": "tanh"}, "one activation"),
        ({"normalization": "batchnorm"}, "one normalization"),
        ({"dtype": "float32"}, "one dtype"),
        ({"sizes": [6, 9, 9, 3]}, "one depth"),
        ({"sizes": [5, 9, 3]}, "same inputs"),
    ],
)
def test_networks_that_cannot_be_stacked(other, message):
    sizes = other.pop("sizes", [6, 9, 3])
    nets = [
        FullyConnectedNet([6, 9, 3], dtype="float64"),
        FullyConnectedNet(sizes, **{"dtype": "float64"} | other),
    ]
    with pytest.raises(ConfigError, match=message):
        stack(nets)


def test_nothing_to_stack():
    with pytest.raises(ConfigError, match="at least one"):
        stack([])


def test_population_of_a_network_and_of_a_function():
    like = Population(FullyConnectedNet([4, 6, 3], seed=99, dropout=0.1), 3, seed=5)
    assert like.population == 3
    alone = FullyConnectedNet([4, 6, 3], seed=6)
    np.testing.assert_array_equal(like.member(1).params["0.W"], alone.params["0.W"])
    made = Population(lambda seed: FullyConnectedNet([4, 2 + seed, 3], seed=seed), 3, seed=1)
    assert made.config["sizes"] == [4, [3, 4, 5], 3]
    with pytest.raises(ConfigError, match="size"):
        Population(alone, 0)
    with pytest.raises(ConfigError, match="single network"):
        Population(like, 2)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "identity"])
@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm", "rmsnorm"])
def test_narrow_members_train_as_they_would_alone(batch, activation, normalization):
    options = {"activation": activation, "normalization": normalization}
    model = net(**options)
    curve = trained(model, batch, SGD(0.1, momentum=0.9), steps=8)
    for number, seed in enumerate([7, 8, 9]):
        alone = FullyConnectedNet(
            [6, WIDTHS[number], SECOND[number], 3], seed=seed, dtype="float64", **options
        )
        expected = trained(alone, batch, SGD(0.1, momentum=0.9), steps=8)
        np.testing.assert_allclose(curve[:, number], expected, rtol=1e-10)
        member = model.member(number).state_dict()
        for name, array in alone.state_dict().items():
            np.testing.assert_allclose(member[name], array, rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, momentum=0.9, weight_decay=0.1), Muon(0.02), Adam(0.05)]
)
def test_units_that_are_not_there_stay_exactly_zero(batch, optimizer):
    model = net(activation="sigmoid", normalization="layernorm")
    trained(model, batch, optimizer, steps=10)
    names = [name for name in model.params if name.endswith(".W")]
    for number in range(P):
        first, second, last = (model.params[name][number] for name in names)
        one, two = WIDTHS[number], SECOND[number]
        for rest in (first[:, one:], second[one:], second[:, two:], last[two:]):
            assert not np.any(rest)


def test_widths_survive_saving(tmp_path, batch):
    model = net(normalization="rmsnorm")
    save_model(tmp_path / "nets.npz", model)
    loaded, _ = load_model(tmp_path / "nets.npz")
    np.testing.assert_array_equal(loaded.forward(batch[0]), model.forward(batch[0]))
    assert json.loads(json.dumps(model.config)) == loaded.config


@pytest.mark.parametrize(
    ("sizes", "population"),
    [
        ([[6, 6, 6], 4, 3], 3),
        ([6, 4, [3, 3, 3]], 3),
        ([6, [4, 5], 3], 3),
        ([6, [4, 5, 6], 3], None),
        ([6, [4, 0, 6], 3], 3),
    ],
)
def test_widths_that_do_not_fit(sizes, population):
    with pytest.raises(ConfigError, match="`FullyConnectedNet`: expected"):
        FullyConnectedNet(sizes, population=population)


def test_equal_widths_are_one_width():
    assert FullyConnectedNet([6, [4, 4], 3], population=2).config["sizes"] == [6, 4, 3]


@pytest.mark.parametrize("layer", [Mask, MaskedLayerNorm, MaskedRMSNorm])
def test_masked_layers_have_right_gradients(library, rng, layer):
    made = layer(7, [3, 7, 1], dtype="float64")
    x = rng.normal(size=(3, 4, 7)) * (np.arange(7) < np.array([3, 7, 1])[:, None, None])
    for name, value in made.params.items():
        made.params[name] = library.array(library.numpy(value) + 0.3 * rng.normal(size=(3, 7)))
    x = library.array(x)
    y = library.numpy(made.forward(x))
    if layer is not Mask:  # γ and β may hold anything where a member has no feature: see below
        made.params = {k: v * library.array(mask()) for k, v in made.params.items()}
        y = library.numpy(made.forward(x))
    assert not np.any(y[0, :, 3:]) and not np.any(y[2, :, 1:])
    dx = library.numpy(made.backward(library.array(rng.normal(size=(3, 4, 7)))))
    assert not np.any(dx[0, :, 3:])
    made.forward(x)
    if library.name in ("numpy", "torch"):
        inside = layer(7, [7, 7, 7], dtype="float64")
        assert gradcheck(inside, library.array(rng.normal(size=(3, 4, 7)))) < 1e-6


def mask():
    return (np.arange(7) < np.array([3, 7, 1])[:, None]).astype(np.float64)


@pytest.mark.parametrize("widths", [[], [0, 3], [3, 8]])
def test_widths_of_a_layer_are_checked(widths):
    with pytest.raises(ConfigError, match=r"1…7"):
        Mask(7, widths)


def test_a_population_too_large_to_be_made_says_what_fits(monkeypatch):
    monkeypatch.setattr("xpmlp.memory_budget.free_bytes", lambda: 10_000_000)
    with pytest.raises(ConfigError, match=r"`FullyConnectedNet`.* 500 members .*; 333 fit"):
        FullyConnectedNet([100, 10, 3], population=500)
    assert FullyConnectedNet([100, 10, 3], population=333).population == 333
