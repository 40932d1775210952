"""Accuracy, R² and the confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.errors import ConfigError, DataError, ShapeError
from xpmlp.metrics import correct
from xpmlp.training import accuracy, confusion_matrix, f1, mae, r2, rmse, roc_auc, top_k_accuracy


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


# --- Against scikit-learn, on integers so that there are many equal scores ------------------------


def scored(rng, columns, rows=60):
    """Outputs of which many are equal, and class numbers of which one never occurs."""
    return rng.integers(-3, 4, (rows, columns)).astype(np.float32), rng.integers(
        0, max(2, columns - 1), rows
    )


@pytest.mark.parametrize("columns", [2, 4])
def test_f1_is_the_mean_over_the_classes_that_occur(rng, columns):
    sklearn = pytest.importorskip("sklearn.metrics")
    outputs, y = scored(rng, columns)
    outputs[:, -1] -= 10.0 * (columns > 2)  # a class neither there nor said to be
    wanted = sklearn.f1_score(y, outputs.argmax(axis=1), average="macro")
    assert f1(outputs, y) == pytest.approx(wanted)


def test_f1_and_auc_of_questions_are_means_over_them(rng):
    sklearn = pytest.importorskip("sklearn.metrics")
    outputs, _ = scored(rng, 3)
    y = rng.integers(0, 2, outputs.shape).astype(np.float32)
    assert f1(outputs, y) == pytest.approx(sklearn.f1_score(y, outputs > 0, average="macro"))
    assert roc_auc(outputs, y) == pytest.approx(sklearn.roc_auc_score(y, outputs))
    one, answers = outputs[:, :1], y[:, :1]
    assert f1(one, answers) == pytest.approx(sklearn.f1_score(answers[:, 0], one[:, 0] > 0))


def test_auc_is_scikit_learns_with_equal_scores_and_many_classes(rng):
    sklearn = pytest.importorskip("sklearn.metrics")
    outputs, y = scored(rng, 2)
    assert roc_auc(outputs, y) == pytest.approx(
        sklearn.roc_auc_score(y, outputs[:, 1] - outputs[:, 0])
    )
    outputs = rng.integers(-3, 4, (60, 4)).astype(np.float64)
    y = rng.integers(0, 4, 60)
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    shares /= shares.sum(axis=1, keepdims=True)
    wanted = sklearn.roc_auc_score(y, shares, multi_class="ovr")
    assert roc_auc(outputs, y) == pytest.approx(wanted, abs=2e-3)  # equal shares, but for rounding
    assert np.isnan(roc_auc(outputs, np.zeros(60, int)))
    assert np.isnan(roc_auc(np.full((4, 2), np.nan), np.array([0, 1, 0, 1])))


def test_auc_of_huge_outputs_does_not_overflow():
    assert roc_auc(np.array([[1e4, -1e4, 0], [0, 1e4, 0], [0, 0, 1e4]]), np.arange(3)) == 1.0


def test_top_k_accuracy_is_accuracy_for_one_and_one_for_all(rng):
    sklearn = pytest.importorskip("sklearn.metrics")
    outputs, y = scored(rng, 4)
    assert top_k_accuracy(outputs, y, 1) == accuracy(outputs, y)
    assert top_k_accuracy(outputs, y, 4) == 1.0
    distinct = outputs + rng.uniform(0.0, 0.5, outputs.shape)
    wanted = sklearn.top_k_accuracy_score(y, distinct, k=2, labels=np.arange(4))
    assert top_k_accuracy(distinct, y, 2) == pytest.approx(wanted)
    assert top_k_accuracy(np.full((5, 4), np.nan), y[:5], 3) == 0.0
    with pytest.raises(ConfigError, match="k from 1 to the number of classes 4, got 5"):
        top_k_accuracy(outputs, y, 5)


def test_errors_are_in_the_targets_unit():
    y, t = np.array([[3.0], [0.0]]), np.array([[0.0], [4.0]])
    assert rmse(y, t) == pytest.approx(np.sqrt(12.5))
    assert mae(y, t) == 3.5


@pytest.mark.parametrize("function", [f1, roc_auc, rmse, mae])
def test_targets_that_do_not_fit_are_refused(function):
    with pytest.raises(ShapeError, match=function.__name__):
        function(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(ShapeError, match=function.__name__):
        function(np.zeros((3, 2)), np.zeros(3))
