"""How weights start: standard deviations, ranges, names, and equality across populations."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpmlp
from xpmlp import initializers
from xpmlp.errors import ConfigError, ShapeError
from xpmlp.initializers import FromArray, ScaledNormal, Zeros, as_initializer
from xpmlp.layers import Linear
from xpmlp.random import Generator

D, M = 300, 200
# name: (standard deviation, largest magnitude or None)
SPREAD = {
    "he_normal": (math.sqrt(2 / D), None),
    "he_uniform": (math.sqrt(2 / D), math.sqrt(6 / D)),
    "glorot_normal": (math.sqrt(2 / (D + M)), None),
    "glorot_uniform": (math.sqrt(2 / (D + M)), math.sqrt(6 / (D + M))),
    "xavier_normal": (math.sqrt(2 / (D + M)), None),
    "xavier_uniform": (math.sqrt(2 / (D + M)), math.sqrt(6 / (D + M))),
    "fan_in_uniform": (math.sqrt(1 / (3 * D)), math.sqrt(1 / D)),
    "lecun_normal": (math.sqrt(1 / D), None),
}


@pytest.mark.parametrize("name", SPREAD)
def test_spread(name):
    W = as_initializer(name)(D, M, Generator(0))
    std, bound = SPREAD[name]
    assert W.shape == (D, M)
    assert W.dtype == np.float64
    assert abs(W.mean()) < 5 * std / math.sqrt(W.size)
    assert W.std() == pytest.approx(std, rel=5 / math.sqrt(2 * W.size))
    if bound is None:
        assert np.abs(W).max() > 3.5 * std
    else:
        assert 0.999 * bound < np.abs(W).max() <= bound


def test_every_name_is_covered():
    assert set(initializers._BY_NAME) == {*SPREAD, "zeros"}


@pytest.mark.parametrize("name", [*SPREAD, "zeros", 0.3], ids=str)
def test_population_members_start_as_they_would_alone(name):
    init = as_initializer(name)
    together = init(5, 4, Generator([3, 8], 2))
    assert together.shape == (2, 5, 4)
    for member, seed in enumerate([3, 8]):
        np.testing.assert_array_equal(together[member], init(5, 4, Generator(seed, 2)))


@pytest.mark.parametrize("init", ["he_normal", "glorot_uniform"])
def test_one_seed_gives_the_same_start_on_every_library(library, init):
    layer = Linear(7, 5, rng=12, init=init)
    with xpmlp.use_backend("numpy"):
        expected = Linear(7, 5, rng=12, init=init)
    np.testing.assert_array_equal(library.numpy(layer.W), expected.W)
    np.testing.assert_array_equal(library.numpy(layer.b), expected.b)
    assert library.numpy(layer.W).dtype == library.numpy(layer.b).dtype == np.float32


def test_zeros():
    assert not Zeros()(3, 2, Generator(0)).any()


@pytest.mark.parametrize("std", [0.25, np.float32(0.25), 1], ids=str)
def test_a_number_is_a_standard_deviation(std):
    assert as_initializer(std) == ScaledNormal(float(std))
    W = as_initializer(std)(D, M, Generator(0))
    np.testing.assert_allclose(W, Generator(0).normal((D, M)) * float(std), rtol=1e-15)


def test_functions_pass_as_they_are():
    def init(fan_in, fan_out, rng):
        return np.ones((fan_in, fan_out))

    assert as_initializer(init) is init


def test_from_array():
    values = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(FromArray(values)(3, 2, Generator(0)), values)
    members = FromArray(values)(3, 2, Generator([0, 1]))
    np.testing.assert_array_equal(members, np.stack([values, values]))
    own = FromArray(np.stack([values, -values]))(3, 2, Generator([0, 1]))
    np.testing.assert_array_equal(own[1], -values)


def test_from_array_of_another_shape():
    with pytest.raises(ShapeError, match=r"expected values of shape \(2, 3\), got \(3, 2\)"):
        FromArray(np.ones((3, 2)))(2, 3, Generator(0))


@pytest.mark.parametrize("bad", ["he", None, [[1.0]]], ids=str)
def test_unknown_initializer_lists_the_known(bad):
    known = "he_normal, he_uniform" if isinstance(bad, str) else "FromArray"
    with pytest.raises(ConfigError, match=known):
        as_initializer(bad)
