"""The cases: sizes that were promised, work counted right, names that can be asked for."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.bench import all_cases, select_cases, shapes
from xpmlp.bench.suite import OURS
from xpmlp.cli.recipes import RECIPES
from xpmlp.errors import ConfigError


def by_title(title):
    return next(case for case in all_cases() if case.title == title)


def test_the_promised_sizes_are_there():
    titles = {case.title for case in all_cases()}
    for size in ("128×10", "512×10", "65536×10", "4096×100", "8192×1000", "1024×50257"):
        assert f"softmax_cross_entropy {size}" in titles
    squares = {i for _, i, k, j in shapes.MATMUL if i == k == j}
    assert squares == {4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}
    assert (128, 64, 128) in {size[1:] for size in shapes.MATMUL}
    nets = ("784-100-10 at 64", "784-100-10 at 128", "784-256-128-10 at 128")
    nets += ("784-512-512-10 at 512", "784-1024-1024-10 at 2048", "3072-2048-2048-10 at 1024")
    nets += ("784-512-256-10 at 128, batchnorm + dropout + adamw",)
    assert {f"step {net}" for net in nets} <= titles
    populations = "256 × 16-32-32-1 at 64, mse", "32 × 784-64-10 at 128"
    assert {f"population_step {nets}" for nets in populations} <= titles
    assert len(titles) == len(all_cases())


def test_batches_of_products_fill_1_to_51_megabytes():
    for case in all_cases():
        if case.kind == "matmul":
            assert 1e6 <= case.work()[0] <= 51e6, case.title


def test_quick_cases_are_cases_too():
    quick = {case.title for case in all_cases(quick=True)}
    kinds = {case.kind for case in all_cases(quick=True)}
    assert {title for title in quick if not title.startswith("epoch")} <= {
        case.title for case in all_cases()
    }
    assert kinds == {case.kind for case in all_cases()} - {"recipe"}


def test_the_recipe_is_the_one_of_the_command():
    recipe, ours = RECIPES["mnist"], shapes.RECIPE
    assert ours.sizes == (784, *recipe.hidden, 10)
    assert (ours.epochs, ours.batch, ours.lr) == (recipe.epochs, recipe.batch_size, recipe.lr)
    assert (ours.dropout, ours.label_smoothing) == (recipe.dropout, recipe.label_smoothing)
    assert (ours.weight_decay, ours.validation) == (recipe.weight_decay, recipe.validation)
    assert (recipe.normalization, recipe.optimizer, recipe.schedule, recipe.center) == (
        *("batchnorm", "adamw", "onecycle"),
        False,
    )


def test_inputs_are_the_same_at_every_call():
    case = by_title("softmax_cross_entropy 128×10")
    first, second = case.inputs(), case.inputs()
    assert first["logits"].dtype == np.float32 and first["logits"].shape == (128, 10)
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("title", "moved", "flops"),
    [
        ("softmax_cross_entropy 128×10", 4 * (128 * 10 * 2 + 2 * 128), 0),
        ("matmul 128×(128×64×128) aT", 4 * 128 * (2 * 128 * 64 + 128 * 128), 2 * 128**3 * 64),
        ("linear 128×784→256", 4 * 2 * (128 * 784 + 784 * 256 + 128 * 256), 6 * 128 * 784 * 256),
        (
            "step 784-100-10 at 64",
            4 * (64 * 784 + 2 * (785 * 100 + 101 * 10)),
            2 * 64 * (2 * 784 * 100 + 3 * 100 * 10),
        ),
        (
            "population_step 32 × 784-64-10 at 128",
            4 * (128 * 784 + 32 * 2 * (785 * 64 + 65 * 10)),
            32 * 2 * 128 * (2 * 784 * 64 + 3 * 64 * 10),
        ),
    ],
)
def test_work_is_what_cannot_be_avoided(title, moved, flops):
    assert by_title(title).work() == (moved, flops)


def test_cases_are_chosen_by_parts_of_their_titles():
    chosen = select_cases("SOFTMAX, 784-100-10 at 64")
    assert len(chosen) == 7
    assert {case.kind for case in chosen} == {"softmax_cross_entropy", "step"}


@pytest.mark.parametrize("only", ["sofmax", "softmax,nothing", "", " , "])
def test_a_word_that_fits_nothing_lists_what_there_is(only):
    with pytest.raises(ConfigError, match=r"there are softmax_cross_entropy, matmul, adam"):
        select_cases(only)


def test_ours_is_not_named_like_a_peer():
    from xpmlp.bench.peers import PEERS

    assert OURS not in {peer.title for peer in PEERS.values()}
