"""Default recipes, and options over them."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.cli.recipes import RECIPES, recipe_for, single_recipe
from xpmlp.data import DATASET_NAMES, Dataset
from xpmlp.sklearn import TableClassifier


def table(rows):
    x, y = np.zeros((rows, 2)), np.arange(rows) % 2
    return Dataset("table", x, y, x[:4], y[:4], ("a", "b"), None, "made up")


def test_every_named_data_set_has_a_recipe():
    assert set(RECIPES) == set(DATASET_NAMES)


@pytest.mark.parametrize(("rows", "steps"), [(100, (600, 7000)), (10_000, (5000, 7000))])
def test_tables_get_enough_steps_whatever_their_length(rows, steps):
    recipe = single_recipe(rows)
    taken = recipe.epochs * rows / recipe.batch_size
    assert steps[0] <= taken <= steps[1]


def test_a_table_is_trained_as_the_estimators_do():
    recipe, model = recipe_for(table(5000)), TableClassifier()
    assert recipe.members == model.n_members and recipe.folds == model.folds
    assert recipe.hidden == model.hidden_layer_sizes and recipe.bins == model.bins
    assert recipe.lr == model.learning_rate_init and recipe.weight_decay == model.alpha
    assert recipe.patience == model.n_iter_no_change and recipe.epochs == model.max_iter
    assert recipe.dropout == model.dropout and recipe.validation == 0


def test_rows_held_out_take_the_place_of_folds():
    recipe = recipe_for(table(5000))
    assert recipe.with_options({"validation": 0.3}).folds == 0
    assert recipe.with_options({"validation": 0.0}).folds == recipe.folds
    alone = recipe.with_options({"members": 1})
    assert (alone.folds, alone.validation) == (0, 0.1)


def test_options_replace_only_what_is_given():
    recipe = RECIPES["digits"].with_options({"lr": 0.5, "epochs": None, "normalization": "none"})
    assert recipe.lr == 0.5
    assert recipe.epochs == RECIPES["digits"].epochs
    assert recipe.normalization is None
