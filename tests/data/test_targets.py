"""Targets: the rule for classes and numbers, and what suits neither."""

import numpy as np
import pytest

from xpmlp.data.targets import MAX_GUESSED_CLASSES, encode_targets
from xpmlp.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("values", "numbers", "classes"),
    [
        (np.array(["b", "a", "b", "c"]), [1, 0, 1, 2], ("a", "b", "c")),
        (np.array(["b", "a"], dtype=object), [1, 0], ("a", "b")),
        (np.array([True, False, True]), [1, 0, 1], ("False", "True")),
        (np.array([10, 9, 10, 9]), [1, 0, 1, 0], ("9", "10")),
        (np.array([-1, 1, 1, -1], np.int8), [0, 1, 1, 0], ("-1", "1")),
    ],
)
def test_classes_are_found_and_sorted(values, numbers, classes):
    y, found = encode_targets(values, "file")
    assert y.tolist() == numbers and y.dtype == np.int64 and found == classes


def test_whole_numbers_are_classes_only_if_few_and_repeated():
    few = np.arange(5 * MAX_GUESSED_CLASSES) // 5
    many = np.arange(5 * MAX_GUESSED_CLASSES + 5) // 5
    assert len(encode_targets(few, "file")[1]) == MAX_GUESSED_CLASSES
    assert encode_targets(many, "file")[1] is None
    assert encode_targets(np.arange(10), "file")[1] is None  # each value once
    assert encode_targets(np.arange(10), "file")[0].dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6,), (3, 2)])
def test_floats_are_a_regression_in_their_own_type(dtype, shape):
    values = np.arange(6, dtype=dtype).reshape(shape)
    y, classes = encode_targets(values, "file")
    assert classes is None and y.dtype == dtype
    np.testing.assert_array_equal(y, values)


def test_task_overrides_the_rule():
    assert encode_targets(np.array([1.0, 2.0, 1.0]), "f", "classification")[1] == ("1", "2")
    assert encode_targets(np.arange(100), "f", "classification")[1] is not None
    y, classes = encode_targets(np.array([1, 2, 1, 2]), "f", "regression")
    assert classes is None and y.tolist() == [1.0, 2.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (np.array(["a", "b"]), "regression", "numbers as targets .* text such as 'a'"),
        (np.array([0.5, 1.0]), "classification", "whole numbers or text as classes, got 0.5"),
        (np.array([3, 3, 3]), None, "two classes, got only '3'"),
        (np.array(["x", "x"]), None, "two classes, got only 'x'"),
        (np.array([1.0, np.nan]), None, "1 NaN or infinite .*row 1"),
        (np.array([[0, 1], [1, 0]]), "classification", "one-hot"),
        (np.array([1j, 2j]), None, "text or numbers"),
    ],
)
def test_unsuitable_targets(values, task, message):
    with pytest.raises(DataError, match=message):
        encode_targets(values, "file", task)


def test_unknown_task_lists_the_valid_ones():
    with pytest.raises(ConfigError, match="classification, regression"):
        encode_targets(np.arange(3), "file", "clustering")


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_one_hot_rows_are_not_taken_for_numbers_in_silence(dtype):
    rows = np.eye(3, dtype=dtype)[[0, 2, 1, 1]]
    with pytest.raises(DataError, match=r"one-hot .* y\.argmax\(axis=1\)"):
        encode_targets(rows, "y")
    y, classes = encode_targets(rows, "y", "regression")
    assert y.shape == (4, 3) and classes is None
    rows[0, 1] = 1  # two at once: no longer one-hot
    assert encode_targets(rows, "y")[1] is None


def test_whole_numbers_are_classes_with_or_without_a_point():
    assert encode_targets(np.array([0.0, 1.0, 1.0, 0.0]), "file")[1] == ("0", "1")
    assert encode_targets(np.array([1.0, 2.5, 1.0, 2.5]), "file")[1] is None


def test_counts_are_numbers_although_few_are_different():
    counts = np.random.default_rng(0).poisson(8, size=4000)
    assert len(np.unique(counts)) <= MAX_GUESSED_CLASSES  # the common ones often, the others seldom
    assert encode_targets(counts, "file")[1] is None
    digits = np.random.default_rng(0).integers(0, 26, size=4000)
    assert len(encode_targets(digits, "file")[1]) == 26
