"""Which rows members see, and in which order."""

import numpy as np
import pytest

from xpmlp.data import Batches
from xpmlp.data.member_batches import MemberBatches
from xpmlp.data.orders import (
    Orders,
    bootstrap_orders,
    bootstrap_rows,
    fold_rows,
    orders_for,
    own_orders,
)
from xpmlp.errors import ConfigError, DataError
from xpmlp.random import permutation


def test_own_orders_are_those_of_a_network_alone():
    order = own_orders(20, [5, 9]).epoch(3)
    np.testing.assert_array_equal(order[0], permutation(20, seed=5, epoch=3))
    np.testing.assert_array_equal(order[1], permutation(20, seed=9, epoch=3))


def test_bootstrap_draws_with_replacement_once_and_shuffles_every_epoch():
    n = 4000
    orders = bootstrap_orders(n, [1, 2])
    first, second = orders.epoch(0), orders.epoch(1)
    assert first.shape == (2, n) and first.min() >= 0 and first.max() < n
    np.testing.assert_array_equal(np.sort(first, axis=1), np.sort(second, axis=1))
    assert not np.array_equal(first, second) and not np.array_equal(first[0], first[1])
    share = np.unique(first[0]).size / n  # of rows drawn at all: 1 − 1/e
    assert share == pytest.approx(1 - np.exp(-1), abs=0.03)
    np.testing.assert_array_equal(bootstrap_rows(n, 1), bootstrap_rows(n, 1))


def test_members_with_more_rows_leave_out_others_each_epoch():
    rows = [np.arange(10), np.arange(100, 113)]
    orders = Orders(rows, [0, 1])
    epochs = [orders.epoch(number) for number in range(8)]
    assert all(order.shape == (2, 10) for order in epochs)
    for order in epochs:
        assert set(order[0]) == set(rows[0]) and set(order[1]) < set(rows[1])
    assert set(np.concatenate([order[1] for order in epochs])) == set(rows[1])


def test_selected_members_keep_their_orders():
    orders = Orders([np.arange(10), np.arange(20, 33), np.arange(40, 52)], [0, 1, 2])
    np.testing.assert_array_equal(orders.select([2, 1]).epoch(4), orders.epoch(4)[[2, 1]])


def test_rows_may_stay_in_order():
    orders = Orders([np.array([3, 1, 2])], [0], shuffle=False)
    np.testing.assert_array_equal(orders.epoch(5), [[3, 1, 2]])


@pytest.mark.parametrize(("n", "folds"), [(10, 2), (11, 3), (103, 10), (5, 5)])
def test_folds_divide_the_rows(n, folds):
    parts = fold_rows(n, folds, seed=3)
    assert len(parts) == folds
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    sizes = [part.size for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_folds_hold_an_equal_share_of_every_class(rng):
    labels = rng.choice(4, size=203, p=[0.5, 0.3, 0.15, 0.05])
    parts = fold_rows(203, 5, labels=labels)
    counts = np.array([np.bincount(labels[part], minlength=4) for part in parts])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1
    assert np.ptp(counts.sum(axis=1)) <= 1
    assert not np.array_equal(parts[0], fold_rows(203, 5, seed=1, labels=labels)[0])


@pytest.mark.parametrize("folds", [1, 11, 2.5])
def test_impossible_folds_are_refused(folds):
    with pytest.raises(ConfigError, match=r"2…10"):
        fold_rows(10, folds)


def test_sampling_by_name():
    assert orders_for("shared", 5, [0]) is None
    assert orders_for("own", 5, [0, 1]).length == 5
    with pytest.raises(ConfigError, match="bootstrap"):
        orders_for("boot", 5, [0])


def test_orders_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="2 and 1"):
        Orders([np.arange(3)] * 2, [0])
    with pytest.raises(DataError, match=r"\[1\]"):
        Orders([np.arange(3), np.arange(0)], [0, 1])


def test_member_batches_are_the_batches_of_each_alone(library, rng):
    x = rng.integers(0, 255, size=(30, 2, 3)).astype(np.uint8)
    y = rng.integers(0, 4, size=30)
    batches = MemberBatches(x, y, own_orders(30, [7, 8]), batch_size=8)
    together = list(batches.epoch(2))
    assert len(together) == len(batches) == 4 and batches.rows == 30
    for member, seed in enumerate([7, 8]):
        alone = list(Batches(x, y, batch_size=8, seed=seed).epoch(2))
        for (xb, yb), (expected, labels) in zip(together, alone, strict=True):
            assert tuple(xb.shape) == (2, *expected.shape)
            np.testing.assert_array_equal(library.numpy(xb)[member], library.numpy(expected))
            np.testing.assert_array_equal(library.numpy(yb)[member], library.numpy(labels))
    (xb, yb), *_ = batches.select([1]).epoch(2)
    np.testing.assert_array_equal(library.numpy(xb)[0], library.numpy(together[0][0])[1])


def test_last_batch_may_be_left_out():
    batches = MemberBatches(
        np.zeros((10, 2)), np.zeros(10, int), own_orders(10, [0]), batch_size=4, drop_last=True
    )
    assert [xb.shape[1] for xb, _ in batches.epoch(0)] == [4, 4]
    with pytest.raises(ConfigError, match="drop_last"):
        MemberBatches(
            np.zeros((3, 2)), np.zeros(3, int), own_orders(3, [0]), batch_size=4, drop_last=True
        )
