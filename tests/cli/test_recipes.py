"""Default recipes, and options over them."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.cli.recipes import RECIPES, recipe_for
from xpmlp.data import DATASET_NAMES, Dataset


def table(rows):
    x, y = np.zeros((rows, 2)), np.arange(rows) % 2
    return Dataset("table", x, y, x[:4], y[:4], ("a", "b"), None, "made up")


def test_every_named_data_set_has_a_recipe():
    assert set(RECIPES) == set(DATASET_NAMES)


@pytest.mark.parametrize(("rows", "steps"), [(100, (600, 7000)), (10_000, (5000, 7000))])
def test_tables_get_enough_steps_whatever_their_length(rows, steps):
    recipe = recipe_for(table(rows))
    taken = recipe.epochs * rows / recipe.batch_size
    assert steps[0] <= taken <= steps[1]


def test_options_replace_only_what_is_given():
    recipe = RECIPES["digits"].with_options({"lr": 0.5, "epochs": None, "normalization": "none"})
    assert recipe.lr == 0.5
    assert recipe.epochs == RECIPES["digits"].epochs
    assert recipe.normalization is None
