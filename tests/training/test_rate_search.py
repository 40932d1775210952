"""The search for a learning rate: what it suggests trains, and what it was given stays."""

from __future__ import annotations

import numpy as np
import pytest

import xpmlp
from xpmlp.data import Normalization, load_digits
from xpmlp.errors import ConfigError, DataError
from xpmlp.losses import MSE
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam
from xpmlp.plots import plot_rates
from xpmlp.training import RateSearch, Trainer, search_rate

SCALE = Normalization(mean=0.0, std=16.0)


def digits():
    data = load_digits()
    return data.x_train, data.y_train


def test_what_is_suggested_learns_better_than_far_from_it():
    x, y = digits()
    model = FullyConnectedNet([64, 32, 10], seed=1)
    before = model.state_dict()
    optimizer = Adam(7.0, schedule="cosine")
    found = search_rate(model, x, y, optimizer=optimizer, normalization=SCALE)
    np.testing.assert_equal(model.state_dict(), before)
    assert optimizer.steps == 0 and optimizer.lr == 7.0 and not optimizer.state
    assert 1e-4 < found.suggestion < 0.1
    assert found.losses[-1] > 2 * found.losses.min() and len(found.rates) < 100
    assert (np.diff(found.rates) > 0).all() and found.rates[0] == 1e-6

    def last_loss(rate):
        options = {"epochs": 2, "normalization": SCALE, "progress": False}
        net = FullyConnectedNet([64, 32, 10], seed=1)
        return Trainer(net, optimizer=Adam(rate), **options).fit(x, y)["train_loss"][-1]

    assert last_loss(found.suggestion) < min(last_loss(1e-5), last_loss(3.0))


def test_losses_are_those_of_the_steps_with_these_rates(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    model = FullyConnectedNet([3, 2], output="identity", dtype="float64", seed=1)
    found = search_rate(
        model, x, y, optimizer=SGD(), lowest=0.01, highest=0.1, steps=10, batch_size=40
    )
    W, b = np.array(model.params["0.W"]), np.array(model.params["0.b"])
    expected = []
    for rate in 0.01 * 10.0 ** (np.arange(10) / 9):
        error = x @ W + b - y
        expected.append(np.mean(error**2))
        dy = 2 * error / error.size
        W, b = W - rate * x.T @ dy, b - rate * dy.sum(0)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-10)
    np.testing.assert_allclose(found.rates[[0, -1]], [0.01, 0.1])
    assert found.losses[-1] < found.smooth[-1] < found.smooth[0] < found.losses[0]


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_on_other_libraries(library, rng):
    pytest.importorskip(library)
    with xpmlp.use_backend(library):
        model = FullyConnectedNet([3, 4, 1], output="identity", seed=1)
        x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 1))
        found = search_rate(model, x, y, MSE(), steps=20)
    assert type(found.losses) is np.ndarray and np.isfinite(found.losses).all()


def test_what_cannot_be_searched(rng):
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    model = FullyConnectedNet([3, 4, 2])
    with pytest.raises(ConfigError, match=r"expected lowest < highest, got 1 and 0\.1"):
        search_rate(model, x, y, lowest=1.0, highest=0.1)
    with pytest.raises(ConfigError, match="expected steps"):
        search_rate(model, x, y, steps=3)
    with pytest.raises(ConfigError, match="a population of 2"):
        search_rate(FullyConnectedNet([3, 4, 2], population=2), x, y)
    huge = FullyConnectedNet([3, 4, 2], init=1e30)
    with pytest.raises(DataError, match="expected finite losses for 10 steps"):
        search_rate(huge, 1e8 * x, y)


def test_the_picture_shows_the_curve_and_the_suggestion(tmp_path):
    pytest.importorskip("matplotlib")
    rates, losses = np.array([0.01, 0.1, 1.0]), np.array([3.0, 2.0, 1.5])
    figure = plot_rates(RateSearch(rates, losses, losses, 0.1), tmp_path / "rates.png")
    (axes,) = figure.axes
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_array_equal(drawn["a batch"], np.stack([rates, losses], 1))
    np.testing.assert_array_equal(drawn["steepest: 0.1"], [[0.1, 2.0]])
    assert axes.get_xscale() == "log" and (tmp_path / "rates.png").stat().st_size > 1000
