"""Containers: names, nesting, setting parameters, shapes, and saved states."""

import copy

import numpy as np
import pytest

from xpmlp.errors import ConfigError, DTypeError, ShapeError
from xpmlp.layers import (
    BatchNorm,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)


def nested(dtype="float64", seed=0):
    return Sequential(
        Linear(6, 4, rng=seed, dtype=dtype),
        Residual(Sequential(BatchNorm(4, dtype=dtype), ReLU(), Linear(4, 4, rng=1, dtype=dtype))),
        Sequential(Tanh(), Linear(4, 3, rng=2, dtype=dtype)),
    )


NAMES = ["0.W", "0.b", "1.inner.0.gamma", "1.inner.0.beta", "1.inner.2.W", "1.inner.2.b"]
NAMES += ["2.1.W", "2.1.b"]


def test_names_give_the_way_to_each_parameter(rng):
    net = nested()
    assert list(net.params) == NAMES
    assert net.weight_params == ("0.W", "1.inner.2.W", "2.1.W")
    assert list(net.state) == ["1.inner.0.running_mean", "1.inner.0.running_var"]
    assert [prefix for prefix, layer in net.named_layers() if layer.params] == [
        "0.",
        "1.inner.0.",
        "1.inner.2.",
        "2.1.",
    ]
    net.backward(net.forward(rng.normal(size=(5, 6)), training=True))
    assert list(net.grads) == NAMES


def test_forward_and_backward_chain_the_layers(library, rng):
    first, second = (
        Linear(D, M, rng=M, bias_init="zeros", dtype="float64") for D, M in ((6, 4), (4, 3))
    )
    net = Sequential(first, Tanh(), second)
    W1, W2 = library.numpy(first.W), library.numpy(second.W)
    x, dy = rng.normal(size=(5, 6)), rng.normal(size=(5, 3))
    h = np.tanh(x @ W1)
    np.testing.assert_allclose(library.numpy(net.forward(library.array(x))), h @ W2, rtol=1e-12)
    dh = (dy @ W2.T) * (1 - h**2)
    np.testing.assert_allclose(
        library.numpy(net.backward(library.array(dy))), dh @ W1.T, rtol=1e-12
    )
    np.testing.assert_allclose(library.numpy(net.grads["0.W"]), x.T @ dh, rtol=1e-12)
    np.testing.assert_allclose(library.numpy(net.grads["2.W"]), h.T @ dy, rtol=1e-12)


def test_residual_adds_its_input(rng):
    inner = Linear(4, 4, rng=0, bias=False, dtype="float64")
    layer = Residual(inner)
    x, dy = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    np.testing.assert_allclose(layer.forward(x), x + x @ inner.W, rtol=1e-14)
    np.testing.assert_allclose(layer.backward(dy), dy + dy @ inner.W.T, rtol=1e-14)


def test_residual_refuses_an_inner_layer_that_changes_the_shape():
    with pytest.raises(ShapeError, match=r"keep the shape \(5, 4\), got \(5, 3\)"):
        Residual(Linear(4, 3, rng=0)).forward(np.ones((5, 4), "float32"))


@pytest.mark.parametrize(
    "make",
    [nested, lambda: Sequential(nested()), lambda: Sequential(Tanh(), nested()), Sequential],
    ids=["linear", "sequential", "tanh", "empty"],
)
def test_input_grad_false_gives_the_same_gradients(rng, make):
    net, other = make(), make()
    x = rng.normal(size=(5, 6))
    dy = rng.normal(size=net.forward(x, training=True).shape)
    other.forward(x, training=True)
    net.backward(dy)
    other.backward(dy, input_grad=False)
    assert net.grads.keys() == other.grads.keys() == net.params.keys()
    for name, grad in net.grads.items():
        np.testing.assert_array_equal(other.grads[name], grad)


def test_input_grad_false_saves_the_first_dx(rng):
    net = Sequential(nested())
    dy = net.forward(rng.normal(size=(5, 6)))
    assert net.backward(dy, input_grad=False) is None
    assert net.backward(dy).shape == (5, 6)


def test_setting_params_reaches_every_layer(rng):
    net = nested()
    new = {name: rng.normal(size=value.shape) for name, value in net.params.items()}
    net.params = new
    assert net.layers[0].W is new["0.W"]
    assert net.layers[1].inner[0].gamma is new["1.inner.0.gamma"]
    assert net.layers[2][1].b is new["2.1.b"]
    assert all(net.params[name] is value for name, value in new.items())


@pytest.mark.parametrize("name", ["0.V", "7.W", "1.inner.9.W", "W", "2.1.W.x"])
def test_setting_an_unknown_parameter_lists_the_known(name):
    net = nested()
    with pytest.raises(ConfigError, match=r"expected names among .*W"):
        net.params = {name: np.ones(3)}
    assert list(net.params) == NAMES


def test_state_dict_round_trip(library, freeze, rng):
    net, other = freeze(nested("float32", seed=0)), freeze(nested("float32", seed=9))
    x = library.array(rng.normal(size=(5, 6)), "float32")
    net.forward(x, training=True)  # moves the running statistics
    saved = net.state_dict()
    assert list(saved) == [*NAMES[:4], *net.state, *NAMES[4:]]
    assert all(type(value) is np.ndarray and value.dtype == "float32" for value in saved.values())
    other.load_state_dict(saved)
    np.testing.assert_array_equal(library.numpy(other.forward(x)), library.numpy(net.forward(x)))


def test_a_loaded_state_stays_in_the_layers_library_and_dtype(library, elsewhere, freeze):
    net = freeze(nested("float32"))
    kinds = {name: (type(value), value.dtype) for name, value in net.params.items()}
    net.load_state_dict({name: 2.0 * np.float64(v) for name, v in net.state_dict().items()})
    assert {name: (type(value), value.dtype) for name, value in net.params.items()} == kinds


def test_a_saved_state_is_not_touched_by_later_training(rng):
    net = nested()
    saved = net.state_dict()
    copies = {name: value.copy() for name, value in saved.items()}
    net.forward(rng.normal(size=(5, 6)), training=True)
    net.params = {name: value + 1.0 for name, value in net.params.items()}
    for name, value in saved.items():
        np.testing.assert_array_equal(value, copies[name])


def test_a_loaded_state_is_a_copy():
    net = nested()
    saved = {name: value.copy() for name, value in net.state_dict().items()}
    net.load_state_dict(saved)
    saved["0.W"][:] = 7.0
    assert not (net.params["0.W"] == 7.0).any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("2.1.W"), ShapeError, "missing: 2.1.W; unknown: none"),
        (lambda s: s.update(extra=np.ones(2)), ShapeError, "missing: none; unknown: extra"),
        (lambda s: s.update({"2.1.b": np.ones(4)}), ShapeError, r"2.1.b of shape \(3,\), got"),
        (lambda s: s.update({"2.1.b": np.array(["a"] * 3)}), DTypeError, "2.1.b of float64, got"),
    ],
    ids=["missing", "unknown", "shape", "text"],
)
def test_a_state_that_does_not_fit_changes_nothing(change, error, message):
    net = nested()
    before = net.state_dict()
    state = {name: value + 1.0 for name, value in before.items()}
    change(state)
    with pytest.raises(error, match=message):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_populations_of_two_sizes_are_refused():
    with pytest.raises(ShapeError, match="expected layers of one population size"):
        Sequential(Linear(4, 3, population=2, rng=0), ReLU(), Linear(3, 2, population=3, rng=0))
    with pytest.raises(ShapeError, match="expected layers of one population size"):
        Sequential(Linear(4, 3, population=2, rng=0), LayerNorm(3))


def test_the_population_is_that_of_the_layers():
    assert Sequential(Linear(4, 3, population=2, rng=0), ReLU(), Dropout(0.1)).population == 2
    assert Sequential(Linear(4, 3, rng=0), ReLU()).population is None


def test_a_class_in_place_of_a_layer_is_refused():
    with pytest.raises(ConfigError, match=r"write ReLU\(\) rather than ReLU"):
        Sequential(Linear(4, 3, rng=0), ReLU)


def test_a_sequential_counts_and_gives_its_layers():
    net = nested()
    assert len(net) == 3 and net[1] is net.layers[1]
    assert repr(Sequential(Linear(4, 3, rng=0), ReLU())) == "Sequential(Linear(4, 3), ReLU())"
    assert repr(Residual(ReLU())) == "Residual(ReLU())"
    assert net.output_shape((6,)) == (3,)


@pytest.mark.parametrize(
    ("axes", "shape", "flat"),
    [
        (None, (2, 3, 4), (2, 12)),
        (None, (5,), (5, 1)),
        (2, (2, 3, 4, 5), (2, 3, 20)),
        (1, (2, 3), (2, 3)),
        (None, (0, 3, 4), (0, 12)),
    ],
    ids=str,
)
def test_flatten_joins_the_last_axes_and_back(library, axes, shape, flat):
    layer = Flatten(axes)
    x = np.arange(np.prod(shape), dtype="float64").reshape(shape)
    y = layer.forward(library.array(x))
    np.testing.assert_array_equal(library.numpy(y), x.reshape(flat))
    np.testing.assert_array_equal(library.numpy(layer.backward(y)), x)
    assert layer.output_shape(shape[1:]) == flat[1:]


@pytest.mark.parametrize(("axes", "shape"), [(2, (3, 4)), (3, (2,)), (None, ())], ids=str)
def test_flatten_needs_a_batch_axis_and_the_axes_to_join(axes, shape):
    with pytest.raises(ShapeError, match="`Flatten`: expected x with a batch axis"):
        Flatten(axes).forward(np.ones(shape))


def test_flatten_shows_its_axes():
    assert repr(Flatten()) == "Flatten()" and repr(Flatten(axes=2)) == "Flatten(axes=2)"


@pytest.mark.parametrize(
    ("child", "advice"),
    [
        ([ReLU(), Tanh()], r"write Sequential\(\*layers\)"),
        (Tanh, r"write Tanh\(\) rather than Tanh"),
        ("relu", "derives from xpmlp.layers.Layer"),
    ],
    ids=["list", "class", "name"],
)
def test_what_is_no_layer_is_refused_with_what_to_write(child, advice):
    with pytest.raises(ConfigError, match=advice):
        Sequential(child)


def _tied():
    layer = Linear(3, 3, rng=0)
    return layer, copy.copy(layer)  # two layers with one dict of parameters


@pytest.mark.parametrize(
    "build",
    [
        lambda layer: Sequential(Linear(3, 3, rng=0), layer, Linear(3, 3, rng=1), layer),
        lambda layer: Sequential(layer, Sequential(Linear(3, 3, rng=0), layer)),
        lambda layer: Sequential(Residual(layer), Residual(layer)),
        lambda layer: Residual(Sequential(layer, layer)),
        lambda layer: Sequential(Sequential(Residual(Sequential(layer))), layer),
    ],
)
@pytest.mark.parametrize(
    "layer",
    [ReLU, Dropout, Flatten, lambda: Linear(3, 3, rng=2), lambda: BatchNorm(3),
     lambda: Sequential(ReLU())],
)  # fmt: skip
def test_a_layer_at_two_places_is_refused_by_name(build, layer):
    layer = layer()
    with pytest.raises(ConfigError, match=r"each layer once, got the same .* as '.*' and as '.*'"):
        build(layer)
    copied = copy.deepcopy(layer)
    Sequential(Linear(3, 3, rng=0), layer, copied)  # as the message says


def test_two_layers_with_one_dict_of_parameters_are_refused():
    with pytest.raises(ConfigError, match=r"parameters of its own for each.*'0'.*'1.inner'"):
        first, second = _tied()
        Sequential(first, Residual(second))
