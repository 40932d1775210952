"""Accuracy, R² and the confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.errors import ConfigError, DataError, ShapeError
from xpmlp.metrics import correct
from xpmlp.training import accuracy, confusion_matrix, r2


def test_correct_counts_rows(library):
    outputs = library.array([[0.1, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    targets = library.array([1, 2, 2])
    assert int(correct(outputs, targets)) == 2
    assert accuracy(outputs, targets) == pytest.approx(2 / 3)


def test_correct_counts_each_member_of_a_population(library):
    outputs = library.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    np.testing.assert_array_equal(library.numpy(correct(outputs, library.array([0, 1]))), [1, 2])


def test_r2_is_one_for_perfect_and_zero_for_the_mean(rng):
    t = rng.normal(size=(50, 2))
    assert r2(t, t) == 1.0
    assert r2(np.broadcast_to(t.mean(axis=0), t.shape), t) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ShapeError, match="r2"):
        r2(t[:, :1], t)


def test_confusion_matrix_has_true_classes_as_rows():
    matrix = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 1]), 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 1], [0, 1, 0], [0, 1, 0]])


def test_r2_of_constant_targets_is_defined():
    t = np.full((7, 2), 0.1)  # whose mean is not exactly 0.1
    assert r2(t, t) == 1.0 and r2(t + 1e-9, t) == 0.0
    assert r2(np.ones((1, 1)), np.zeros((1, 1))) == 0.0
    assert np.isnan(r2(np.full((7, 2), np.nan), t))


@pytest.mark.parametrize(
    ("targets", "predictions", "classes", "error"),
    [
        ([0, 99], [0, 1], 3, DataError),
        ([0, 1], [0, 3], 3, DataError),
        ([0, -1], [0, 1], 3, DataError),
        ([0.0, 1.0], [0, 1], 3, DataError),
        ([0, 1], [0, 1, 1], 3, ShapeError),
        ([[0, 1]], [[0, 1]], 3, ShapeError),
        ([0, 1], [0, 1], 0, ConfigError),
    ],
)
def test_a_confusion_matrix_of_anything_else_is_refused(targets, predictions, classes, error):
    with pytest.raises(error, match="confusion_matrix"):
        confusion_matrix(np.array(targets), np.array(predictions), classes)


def test_a_confusion_matrix_takes_lists_and_bytes():
    found = confusion_matrix([0, 200], np.array([0, 200], np.uint8), 201)
    assert found[200, 200] == 1 and found.sum() == 2
