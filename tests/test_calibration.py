"""Calibration error and temperature against what they must be."""

import numpy as np
import pytest

from xpmlp.calibration import (
    entropy,
    expected_calibration_error,
    fit_temperature,
    reliability,
    temper,
)
from xpmlp.errors import ConfigError, DataError, ShapeError


def test_bins_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.35, 0.65], [0.0, 1.0]])
    found = reliability(p, np.array([0, 1, 1, 1]), bins=5)
    np.testing.assert_allclose(found.edges, [0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert found.counts.tolist() == [0, 0, 0, 2, 2]
    np.testing.assert_allclose(found.confidence[3:], [(0.8 + 0.65) / 2, 0.95])
    np.testing.assert_allclose(found.accuracy[3:], [0.5, 1.0])
    assert np.isnan(found.accuracy[:3]).all()
    assert found.error == pytest.approx((2 * 0.225 + 2 * 0.05) / 4)
    assert expected_calibration_error(p, np.array([0, 1, 1, 1]), bins=5) == found.error


def test_a_calibrated_classifier_has_no_error(rng):
    p = rng.dirichlet([1.0, 1.0, 1.0], size=200_000)
    labels = (p.cumsum(axis=1) < rng.random((200_000, 1))).sum(axis=1)
    assert expected_calibration_error(p, labels) < 0.005
    assert fit_temperature(p, labels) == pytest.approx(1.0, abs=0.01)
    assert expected_calibration_error(temper(p, 0.4), labels) > 0.05


@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_temperature_is_found_again(rng, temperature):
    p = rng.dirichlet([1.0, 2.0, 0.5, 1.0], size=100_000)
    labels = (p.cumsum(axis=1) < rng.random((100_000, 1))).sum(axis=1)
    off = temper(p, temperature)
    assert fit_temperature(off, labels) == pytest.approx(1.0 / temperature, rel=0.02)
    np.testing.assert_allclose(temper(off, 1.0 / temperature), p, atol=1e-9)


def test_temperature_is_the_minimum_of_the_cross_entropy(rng):
    p = rng.dirichlet([0.3] * 5, size=400)
    right = rng.random(400) < 0.7
    labels = np.where(right, p.argmax(axis=1), rng.integers(5, size=400))

    def loss(temperature):
        return -np.mean(np.log(temper(p, temperature)[np.arange(400), labels]))

    best = fit_temperature(p, labels)
    assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


def test_temperature_is_bounded_where_every_row_is_right_or_wrong():
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(p, np.array([0, 1])) == 0.05
    assert fit_temperature(p, np.array([1, 0])) == 20.0


def test_zero_probabilities_do_no_harm():
    p = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], dtype=np.float32)
    assert np.isfinite(fit_temperature(p, np.array([1, 2])))
    tempered = temper(p, 2.0)
    assert tempered.dtype == np.float32
    np.testing.assert_allclose(tempered.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(entropy(p), [0.0, np.log(2.0)], atol=1e-12)


@pytest.mark.parametrize(
    ("p", "t", "error"),
    [
        (np.ones((3, 2)) / 2, np.zeros(2, int), ShapeError),
        (np.ones((3, 2)) / 2, np.zeros(3), ShapeError),
        (np.zeros((0, 2)), np.zeros(0, int), ShapeError),
        (np.ones((3, 2)), np.zeros(3, int), DataError),
        (np.full((3, 2), np.nan), np.zeros(3, int), DataError),
        (np.ones((3, 2)) / 2, np.array([0, 1, 2]), DataError),
    ],
)
def test_what_are_no_probabilities(p, t, error):
    for function in (expected_calibration_error, fit_temperature):
        with pytest.raises(error):
            function(p, t)


def test_bins_are_counted():
    with pytest.raises(ConfigError, match="bin"):
        reliability(np.ones((3, 2)) / 2, np.zeros(3, int), bins=0)


@pytest.mark.parametrize(
    "temperature", [0, 0.0, -1.0, float("nan"), float("inf"), "1", None, True, 10**400]
)
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ConfigError, match="`temper`: expected temperature finite and > 0, got"):
        temper(np.array([[0.5, 0.5]]), temperature)
