"""Dropout: a mask from a counter, the same everywhere and in both directions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import assert_result, unchanged

from xpmlp import ops
from xpmlp.errors import ConfigError
from xpmlp.random import Generator, random_bits
from xpmlp.testing import gradcheck_function

SHAPE = (6, 7)


def keeps(p, shape=SHAPE, seed=3, step=2):
    """The mask by its definition: 24 random bits, dropped below p · 2²⁴."""
    return random_bits(np, shape, Generator(seed), step) >= round(p * 2**24)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_by_definition_on_every_library(library, rng, dtype):
    x = rng.normal(size=SHAPE).astype(dtype)
    ax = library.array(x)
    with unchanged(ax):
        y = ops.dropout(ax, 0.3, Generator(3), 2)
    expected = np.where(keeps(0.3), x.astype(np.float64) / 0.7, 0)
    assert 0 < keeps(0.3).sum() < x.size
    assert_result(library, y, expected, "elementwise", dtype)


def test_threshold_is_exact():
    """p is a number of 24 bits: an element at p itself is kept, one just below is dropped."""
    bits = int(random_bits(np, (1,), Generator(3), 2)[0])
    for p, kept in ((bits / 2**24, True), ((bits + 1) / 2**24, False)):
        assert (ops.dropout(np.ones(1), p, Generator(3), 2)[0] != 0) == kept


def test_backward_is_the_same_call(library, rng):
    def forward(x):
        return ops.dropout(x, 0.4, Generator(0), 5)

    x = library.array(rng.normal(size=SHAPE))
    gradcheck_function(forward, lambda dy, x: [ops.dropout(dy, 0.4, Generator(0), 5)], x)


def test_seed_stream_and_step_each_change_the_mask():
    ones = np.ones(1000)
    masks = [
        ops.dropout(ones, 0.5, generator, step)
        for generator, step in [
            (Generator(0), 0),
            (Generator(0), 1),
            (Generator(1), 0),
            (Generator(0).spawn(), 0),
        ]
    ]
    for i in range(4):
        for j in range(i):
            assert 350 < (masks[i] != masks[j]).sum() < 650


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_keep_fraction_and_scale(p):
    n = 100_000
    y = ops.dropout(np.ones(n), p, Generator(1), 0)
    kept = (y != 0).mean()
    assert abs(kept - (1 - p)) < 5 * math.sqrt(p * (1 - p) / n)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - p), rtol=1e-15)


def test_population_members_drop_as_they_would_alone(library, rng):
    rates = [0.0, 0.2, 0.7]
    x = rng.normal(size=(3, *SHAPE))
    for p in (0.4, rates, np.array(rates)):
        y = ops.dropout(library.array(x), p, Generator([5, 6, 7]), 1)
        for member, seed in enumerate([5, 6, 7]):
            alone = p if isinstance(p, float) else rates[member]
            expected = ops.dropout(x[member], alone, Generator(seed), 1)
            np.testing.assert_allclose(library.numpy(y)[member], expected, rtol=1e-15)


@pytest.mark.parametrize("p", [0, 0.0, np.float32(0)])
def test_nothing_dropped_is_the_input_itself(library, p):
    x = library.array([1.0, 2.0])
    assert ops.dropout(x, p, Generator(0), 0) is x


def test_dropped_infinities_and_nans_become_zero(library):
    x = library.array(np.array([math.nan, math.inf] * 50))
    y = library.numpy(ops.dropout(x, 0.5, Generator(0), 0))
    dropped = ~keeps(0.5, (100,), 0, 0)
    assert (y[dropped] == 0).all()
    assert not np.isfinite(y[~dropped]).any()


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 1, 5)])
def test_any_shape(library, shape):
    y = ops.dropout(library.array(np.ones(shape)), 0.5, Generator(0), 0)
    assert tuple(y.shape) == shape


def test_half_precision_and_numpy_scalar_rates_do_not_widen():
    x = np.ones(50, np.float16)
    assert ops.dropout(x, np.float64(0.5), Generator(0), 0).dtype == np.float16
    members = ops.dropout(x.reshape(2, 25), [0.1, 0.2], Generator([0, 1]), 0)
    assert members.dtype == np.float16


@pytest.mark.parametrize("p", [1.0, 1.5, -0.1, math.nan, [0.5, 1.0]])
def test_probability_outside_of_the_range(p):
    with pytest.raises(ConfigError, match=r"probability to drop in \[0, 1\)"):
        ops.dropout(np.ones((2, 3)), p, Generator([0, 1]), 0)


def test_counts_that_do_not_match_the_population():
    with pytest.raises(ConfigError, match="one rate or 2"):
        ops.dropout(np.ones((2, 3)), [0.1, 0.2, 0.3], Generator([0, 1]), 0)
    with pytest.raises(ConfigError, match="leading axis of 2"):
        ops.dropout(np.ones((3, 3)), 0.1, Generator([0, 1]), 0)
