"""A Dataset exists only if it can be trained on."""

import numpy as np
import pytest

from xpmlp.data import Dataset
from xpmlp.errors import ConfigError, DataError


def make(**changes):
    values = {
        "name": "toy",
        "x_train": np.arange(40, dtype=np.float64).reshape(20, 2),
        "y_train": np.arange(20) % 3,
        "x_test": np.zeros((4, 2)),
        "y_test": np.array([0, 1, 2, 0]),
        "classes": ("a", "b", "c"),
        "features": ("height", "width"),
        "source": "made here",
    }
    return Dataset(**(values | changes))


def with_value(value, row, column, shape=(20, 2)):
    x = np.zeros(shape)
    x[row, column] = value
    return x


def test_good_data_and_task():
    data = make(y_train=(np.arange(20) % 3).astype(np.uint8), y_test=np.zeros(4, np.uint8))
    assert data.task == "classification" and data.y_train.dtype == np.int64
    regression = make(classes=None, y_train=np.zeros((20, 2)), y_test=np.zeros((4, 2)))
    assert regression.task == "regression" and regression.y_train.dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((19, 2))}, "as many rows"),
        ({"x_train": np.zeros((0, 2)), "y_train": np.zeros(0, int)}, "at least one row"),
        ({"x_test": np.zeros((4, 0))}, "at least one row"),
        ({"x_train": np.zeros(20)}, r"shape \(N, …\)"),
        ({"x_test": np.zeros((4, 3)), "features": None}, "of one kind"),
        ({"x_test": np.zeros((4, 2), np.float32)}, "of one kind"),
        ({"features": ("height",)}, "one column"),
        ({"x_train": np.full((20, 2), "a")}, "expected numbers"),
        ({"x_train": np.zeros((20, 2), complex)}, "expected numbers"),
        ({"y_test": np.array([0, 3, 2, 3])}, r"labels in 0…2 in y_test, got 3 in row 1 \(2 such"),
        ({"y_test": np.array([0, -1, 2, 0])}, "got -1 in row 1"),
        ({"y_train": np.zeros(20)}, "whole class numbers"),
        ({"y_train": np.zeros((20, 1), int)}, "whole class numbers"),
        ({"classes": None}, "float32 or float64"),
        (
            {"classes": None, "y_train": np.full(20, np.inf), "y_test": np.zeros(4)},
            "20 NaN or infinite",
        ),
        (
            {"x_train": with_value(np.nan, 7, 1)},
            r"1 NaN or infinite values in column 'width' \(the first, NaN \(missing\), in row 7",
        ),
        (
            {"x_test": with_value(-np.inf, 3, 0, (4, 2)), "features": None},
            "column number 0 .*infinite, in row 3",
        ),
    ],
)
def test_bad_data_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_bad_pixel_of_an_image_is_counted():
    x = np.zeros((20, 4, 4), np.float32)
    x[5, 1, 1] = x[6, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"2 NaN or infinite values in .*row 5"):
        make(x_train=x, x_test=np.zeros((4, 4, 4), np.float32), features=None)


def test_validation_split_takes_the_last_rows_without_a_seed():
    data = make()
    (x, y), (xv, yv) = data.split_validation(5, seed=None)
    np.testing.assert_array_equal(np.concatenate([x, xv]), data.x_train)
    np.testing.assert_array_equal(yv, data.y_train[15:])
    assert len(y) == 15


def test_validation_split_shuffles_by_seed_and_keeps_rows_with_their_targets():
    data = make()
    (x, y), (xv, yv) = data.split_validation(0.3, seed=4)
    assert len(xv) == 6 and np.bincount(yv).tolist() == [2, 2, 2]
    rows = np.concatenate([x, xv])[:, 0] / 2
    assert sorted(rows) == list(range(20))
    np.testing.assert_array_equal(rows % 3, np.concatenate([y, yv]))
    for seed in range(20):
        assert np.bincount(data.split_validation(6, seed=seed)[1][1]).tolist() == [2, 2, 2]
    assert data.split_validation(0.3, seed=4)[1][0].tolist() == xv.tolist()
    assert data.split_validation(0.3, seed=5)[1][0].tolist() != xv.tolist()


@pytest.mark.parametrize("size", [0, 20, 1.0, -0.1])
def test_validation_size_out_of_range(size):
    with pytest.raises(ConfigError, match="`validation size`"):
        make().split_validation(size)
