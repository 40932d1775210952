"""Penalties: values, gradients, what they leave out, and strengths for each member."""

import numpy as np
import pytest

import xpmlp
from xpmlp.backend import dtype_name
from xpmlp.errors import ConfigError, ShapeError
from xpmlp.models import FullyConnectedNet
from xpmlp.penalties import L1, L2, L2Norm

PENALTIES = {"l1": L1, "l2": L2, "l2norm": L2Norm}
FORMULAS = {
    "l1": lambda W: np.abs(W).sum(),
    "l2": lambda W: 0.5 * (W**2).sum(),
    "l2norm": lambda W: np.sqrt((W**2).sum()),
}
NAMES = ("0.W", "2.W")
P = 3


@pytest.fixture
def params(rng):
    shapes = {"0.W": (4, 5), "0.b": (5,), "2.W": (5, 2), "2.b": (2,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def stack(rng, params):
    """The same parameters for a population."""
    return {name: rng.normal(size=(P, *value.shape)) for name, value in params.items()}


@pytest.mark.parametrize("name", PENALTIES)
def test_the_value_is_the_sum_over_the_weights(library, params, name):
    arrays = {key: library.array(value) for key, value in params.items()}
    value = PENALTIES[name](0.3).forward(arrays, NAMES)
    expected = 0.3 * sum(FORMULAS[name](params[key]) for key in NAMES)
    np.testing.assert_allclose(library.numpy(value), expected, rtol=1e-13)


@pytest.mark.parametrize("biases", [False, True], ids=["weights", "biases"])
@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_are_the_derivatives_of_the_value(rng, params, name, biases):
    penalty = PENALTIES[name](0.3, biases=biases)
    gradients = penalty.backward(params, NAMES)
    assert set(gradients) == (set(params) if biases else set(NAMES))
    for key, gradient in gradients.items():
        assert gradient.shape == params[key].shape
        u = rng.normal(size=params[key].shape)
        up, down = ({**params, key: params[key] + h * u} for h in (1e-6, -1e-6))
        slope = (penalty.forward(up, NAMES) - penalty.forward(down, NAMES)) / 2e-6
        assert (gradient * u).sum() == pytest.approx(slope, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", PENALTIES)
def test_at_0_value_and_gradient_are_0(library, name):
    zeros = {"W": library.array(np.zeros((3, 4)))}
    penalty = PENALTIES[name](0.5)
    assert library.numpy(penalty.forward(zeros, ["W"])) == 0.0
    np.testing.assert_array_equal(library.numpy(penalty.backward(zeros, ["W"])["W"]), 0.0)


def test_the_gradient_of_the_norm_has_length_strength(params):
    gradients = L2Norm(0.7).backward(params, NAMES)
    for name in NAMES:
        assert np.linalg.norm(gradients[name]) == pytest.approx(0.7, rel=1e-14)


def test_biases_and_scales_are_exempt_unless_asked():
    net = FullyConnectedNet([4, 5, 3], normalization="batchnorm")
    assert set(L2(1.0).backward(net.params, net.weight_params)) == {"0.W", "3.W"}
    assert set(L2(1.0, biases=True).backward(net.params, net.weight_params)) == set(net.params)


@pytest.mark.parametrize("strength", [0.3, [0.0, 0.1, 2.0]], ids=["shared", "own"])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_population_equals_separate_networks(library, rng, params, name, strength):
    stacked = stack(rng, params)
    arrays = {key: library.array(value) for key, value in stacked.items()}
    together = PENALTIES[name](strength)
    value = library.numpy(together.forward(arrays, NAMES, P))
    gradients = together.backward(arrays, NAMES, P)
    assert value.shape == (P,)
    for p in range(P):
        own = {key: array[p] for key, array in stacked.items()}
        alone = PENALTIES[name](np.broadcast_to(strength, P)[p])
        np.testing.assert_allclose(value[p], alone.forward(own, NAMES), rtol=1e-13)
        for key, gradient in alone.backward(own, NAMES).items():
            np.testing.assert_allclose(
                library.numpy(gradients[key])[p], gradient, rtol=1e-13, atol=1e-16
            )


@pytest.mark.parametrize("strength", [0.3, [0.1, 0.2, 0.3]], ids=["shared", "own"])
@pytest.mark.parametrize("name", PENALTIES)
def test_library_dtype_and_inputs_are_kept(library, rng, params, name, strength):
    stacked = {key: value.astype("float32") for key, value in stack(rng, params).items()}
    arrays = {key: library.array(value) for key, value in stacked.items()}
    penalty = PENALTIES[name](strength)
    # Another current backend must not matter: a penalty follows its arrays.
    with xpmlp.use_backend("numpy" if "numpy" not in library.name else "array_api_strict"):
        results = [penalty.forward(arrays, NAMES, P), *penalty.backward(arrays, NAMES, P).values()]
    for array in results:
        assert type(array) is type(arrays["0.W"]) and dtype_name(array.dtype) == "float32"
    for key, array in arrays.items():
        np.testing.assert_array_equal(library.numpy(array), stacked[key])


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf"), [0.1, -1.0], [[0.1]]])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_strength_that_is_none_is_refused(name, strength):
    with pytest.raises(ConfigError, match="expected strength finite and ≥ 0"):
        PENALTIES[name](strength)


@pytest.mark.parametrize("population", [None, 2])
def test_as_many_strengths_as_members(rng, params, population):
    penalty = L2([0.1, 0.2, 0.3])
    for call in (penalty.forward, penalty.backward):
        with pytest.raises(ShapeError, match="one for each member, got 3"):
            call(stack(rng, params), NAMES, population)
