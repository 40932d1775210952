"""Divisions of rows: exact sizes, every row once, classes in proportion, the same for a seed."""

import numpy as np
import pytest

from xpmlp.data import splits
from xpmlp.data.splits import part_size, split_rows
from xpmlp.errors import ConfigError


@pytest.mark.parametrize(
    ("size", "n", "count"),
    [(1, 2, 1), (9, 10, 9), (0.2, 10, 2), (0.001, 10, 1), (0.999, 10, 9), (np.int64(3), 10, 3)],
)
def test_size_as_count_or_fraction(size, n, count):
    assert part_size(size, n, "size") == count


@pytest.mark.parametrize("size", [0, 10, -1, 0.0, 1.0, 1.5, float("nan"), True, "2", None])
def test_size_out_of_range(size):
    with pytest.raises(ConfigError, match="`size`: expected a count in 1…9"):
        part_size(size, 10, "size")


def test_one_row_cannot_be_divided():
    with pytest.raises(ConfigError, match="at least 2 rows"):
        part_size(0.5, 1, "size")


@pytest.mark.parametrize("labelled", [False, True])
def test_every_row_is_in_one_part_and_the_seed_decides(labelled):
    labels = np.random.default_rng(0).integers(0, 3, 101) if labelled else None
    kept, held = split_rows(101, 20, seed=5, labels=labels)
    assert len(kept) == 81 and len(held) == 20
    assert sorted([*kept, *held]) == list(range(101))
    assert kept.tolist() != sorted(kept)
    again, other = split_rows(101, 20, seed=5, labels=labels), split_rows(101, 20, seed=6)
    assert held.tolist() == again[1].tolist() and held.tolist() != other[1].tolist()


def test_stratified_shares_are_exact_to_rounding():
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    _, held = split_rows(1000, 105, seed=1, labels=labels)
    counts = np.bincount(labels[held])
    assert counts.sum() == 105
    assert np.all(np.abs(counts - 105 * np.array([0.5, 0.3, 0.2])) < 1)


@pytest.mark.parametrize("held", [1, 3, 12, 13, 14])
def test_rare_classes_stay_on_the_kept_side_as_long_as_possible(held):
    labels = np.array([0] * 13 + [1, 2])
    kept, out = split_rows(15, held, seed=0, labels=labels)
    assert len(out) == held and len(kept) == 15 - held
    if held <= 12:
        assert set(labels[kept]) == {0, 1, 2}


def test_many_classes_are_divided_as_one_by_one():
    """Turn by turn is the definition; what is computed at once must be the same."""

    def turn_by_turn(counts, total):
        exact = total * counts / counts.sum()
        takes = np.floor(exact).astype(np.int64)
        ranks = np.lexsort((np.arange(len(counts)), -counts, -(exact - takes)))
        for limit in (np.maximum(counts - 1, 0), counts):
            takes = np.minimum(takes, limit)
            while takes.sum() < total and np.any(takes < limit):
                for index in ranks:
                    if takes.sum() < total and takes[index] < limit[index]:
                        takes[index] += 1
        return takes

    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.integers(1, rng.choice([2, 3, 50]), rng.integers(1, 30))
        total = int(rng.integers(1, counts.sum() + 1))
        assert (splits._allot(counts, total) == turn_by_turn(counts, total)).all()
    labels = rng.permutation(np.repeat(rng.permutation(40), rng.integers(1, 9, 40)))
    kept, held = splits.split_rows(len(labels), 50, seed=3, labels=labels)
    order = splits.permutation(len(labels), seed=3)
    _, counts = np.unique(labels, return_counts=True)
    expected = np.zeros(len(labels), bool)
    for label, take in zip(range(40), turn_by_turn(counts, 50), strict=True):
        expected[np.flatnonzero(labels[order] == label)[:take]] = True
    assert (held == order[expected]).all() and (kept == order[~expected]).all()


def test_as_many_classes_as_rows_take_no_time():
    labels = np.arange(300_000) // 2
    kept, held = splits.split_rows(len(labels), 60_000, seed=0, labels=labels)
    assert len(held) == 60_000 and len(kept) == 240_000
