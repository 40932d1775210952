"""Dropout: what is dropped, how often, and that every library drops the same."""

import numpy as np
import pytest

from xpmlp.errors import ConfigError
from xpmlp.layers import Dropout, Sequential
from xpmlp.models import FullyConnectedNet
from xpmlp.random import Generator

ONES = np.ones((40, 50))


def masks(layer, count, library=None):
    """Which elements survive ``count`` training forwards in a row."""
    if library is None:
        return [layer.forward(ONES, training=True) > 0 for _ in range(count)]
    x = library.array(ONES)
    return [library.numpy(layer.forward(x, training=True)) > 0 for _ in range(count)]


def test_evaluation_is_the_identity(library, rng):
    x, dy = library.array(rng.normal(size=(4, 5))), library.array(rng.normal(size=(4, 5)))
    layer = Dropout(0.9, rng=0)
    layer.forward(x, training=True)
    np.testing.assert_array_equal(library.numpy(layer.forward(x)), library.numpy(x))
    np.testing.assert_array_equal(library.numpy(layer.backward(dy)), library.numpy(dy))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_the_share_p_and_scales_the_rest(p):
    y = Dropout(p, rng=1).forward(np.ones((500, 500)), training=True)
    assert np.mean(y == 0) == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / y.size))
    np.testing.assert_allclose(y[y > 0], 1 / (1 - p), rtol=1e-15)


def test_backward_uses_the_mask_of_the_last_forward(library, rng):
    x, dy = rng.uniform(1.0, 2.0, size=(6, 7)), rng.normal(size=(6, 7))
    layer = Dropout(0.4, rng=3)
    for _ in range(2):
        y = library.numpy(layer.forward(library.array(x), training=True))
    dx = library.numpy(layer.backward(library.array(dy)))
    np.testing.assert_allclose(dx, np.where(y > 0, dy / 0.6, 0.0), rtol=1e-14)


def test_the_same_seed_drops_the_same_on_every_library(library):
    ours = masks(Dropout(0.4, rng=3), 2, library)
    np.testing.assert_array_equal(ours, masks(Dropout(0.4, rng=3), 2))


def test_every_training_forward_takes_a_new_mask():
    layer = Dropout(0.5, rng=0)
    first, second, third = masks(layer, 3)
    assert layer.step == 3
    assert (first != second).mean() == pytest.approx(0.5, abs=0.05)
    assert (second != third).mean() == pytest.approx(0.5, abs=0.05)


def test_setting_step_back_repeats_a_mask():
    layer = Dropout(0.5, rng=0)
    first, _ = masks(layer, 2)
    layer.step = 0
    np.testing.assert_array_equal(masks(layer, 1)[0], first)


def test_evaluation_takes_no_mask():
    layer = Dropout(0.5, rng=0)
    layer.forward(ONES)
    assert layer.step == 0


def test_two_layers_of_one_net_drop_different_units():
    rng = Generator(0)
    first, second = (masks(Dropout(0.5, rng=rng), 1)[0] for _ in range(2))
    assert (first != second).mean() == pytest.approx(0.5, abs=0.05)
    net = FullyConnectedNet([50, 50, 50, 2], dropout=0.5, seed=0)
    first, second = (masks(layer, 1)[0] for layer in net.layers if isinstance(layer, Dropout))
    assert (first != second).mean() == pytest.approx(0.5, abs=0.05)


def test_another_seed_drops_other_units():
    first, second = masks(Dropout(0.5, rng=0), 1)[0], masks(Dropout(0.5, rng=1), 1)[0]
    assert (first != second).mean() == pytest.approx(0.5, abs=0.05)


def test_members_drop_what_they_would_alone(library, rng):
    rates, seeds, x = [0.2, 0.0, 0.7], [4, 8, 6], rng.normal(size=(3, 8, 9))
    together = Dropout(rates, population=3, rng=seeds)
    y = library.numpy(together.forward(library.array(x), training=True))
    for p in range(3):
        alone = Dropout(rates[p], rng=seeds[p]).forward(library.array(x[p]), training=True)
        np.testing.assert_array_equal(y[p], library.numpy(alone))


def test_zero_drops_nothing(rng):
    x = rng.normal(size=(4, 5))
    np.testing.assert_array_equal(Dropout(0.0, rng=0).forward(x, training=True), x)


@pytest.mark.parametrize("p", [1.0, -0.1, 1.5, float("nan")])
def test_a_rate_outside_of_0_to_1_is_refused(p):
    with pytest.raises(ConfigError, match=r"expected p in \[0, 1\).*0\.2 drops a fifth"):
        Dropout(p)


def test_the_number_of_rates_must_be_the_number_of_members():
    with pytest.raises(ConfigError, match="expected one rate or 3, one a member, got 2"):
        Dropout([0.1, 0.2], population=3)
    with pytest.raises(ConfigError, match="expected one rate or 1"):
        Dropout([0.1, 0.2])


def test_x_must_have_the_population_axis():
    layer = Sequential(Dropout(0.5, population=3, rng=0))
    with pytest.raises(ConfigError, match="expected a leading axis of 3"):
        layer.forward(np.ones((2, 4, 5)), training=True)


def test_rates_of_many_members_are_described_by_their_range():
    assert repr(Dropout([0.1, 0.5, 0.25], population=3)) == "Dropout(p=0.1 … 0.5)"
    assert repr(Dropout(0.25)) == "Dropout(p=0.25)"
