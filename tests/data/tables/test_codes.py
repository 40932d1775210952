"""Numbers as inputs: scaled robustly, coded piece by piece, with edges where targets change."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xpmlp.data.tables import NumberCodes
from xpmlp.data.tables.telling_values import telling_values
from xpmlp.data.tables.tree_edges import tree_edges
from xpmlp.errors import ConfigError, DataError
from xpmlp.ops.piecewise_linear import codes as piecewise_codes

RNG = np.random.default_rng(0)


def test_numbers_are_scaled_by_quartiles_and_bounded():
    x = np.arange(9.0)[:, None]  # quartiles 2, 4, 6
    codes = NumberCodes(bins=0).fit(x)
    z = np.array([0.0, 0.25])
    found = codes.transform(np.array([[4.0], [5.0], [1e30], [-1e300]]), "float64")[:, 0]
    np.testing.assert_allclose(found[:2], z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-12)
    np.testing.assert_allclose(found[2:], [3.0, -3.0])


def test_codes_fill_bins_from_below():
    codes = NumberCodes(bins=4).fit(np.arange(9.0)[:, None])
    assert codes.codes[0].edges == [0.0, 2.0, 4.0, 6.0, 8.0]
    found = codes.transform(np.array([[5.0], [-7.0], [99.0], [0.0], [8.0]]), "float64")[:, 1:]
    np.testing.assert_allclose(
        found,
        [[1, 1, 0.5, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]],
        atol=1e-12,
    )


def test_codes_are_those_of_their_formula_on_uneven_edges():
    x = RNG.lognormal(size=(500, 1))
    codes = NumberCodes(bins=16).fit(x, RNG.integers(0, 3, 500))
    edges = np.array(codes.codes[0].edges)
    new = RNG.lognormal(size=(200, 1))
    wanted = np.clip((new - edges[:-1]) / np.diff(edges), 0, 1)
    np.testing.assert_allclose(codes.transform(new, "float64")[:, 1:], wanted, atol=1e-9)


def test_a_linear_layer_on_codes_is_any_function_linear_between_edges():
    x = np.sort(RNG.uniform(size=(400, 1)), axis=0)
    codes = NumberCodes(bins=8).fit(x)
    edges = np.array(codes.codes[0].edges)
    heights = RNG.normal(size=len(edges))
    y = np.interp(x[:, 0], edges, heights)
    inputs = np.c_[codes.transform(x, "float64")[:, 1:], np.ones(len(x))]
    weights = np.linalg.lstsq(inputs, y, rcond=None)[0]
    np.testing.assert_allclose(inputs @ weights, y, atol=1e-9)
    np.testing.assert_allclose(weights[:-1], np.diff(heights), atol=1e-8)


def test_columns_of_one_value_are_left_out_and_others_stay_as_they_are():
    x = np.c_[np.full(40, 7.0), RNG.integers(0, 2, 40), RNG.normal(size=40)]
    codes = NumberCodes(bins=0).fit(x, numbers=[True, False, True], names=["a", "b", "c"])
    assert codes.names == ("b", "c")
    far = x.copy()
    far[:, 0] = 1e9
    np.testing.assert_array_equal(codes.transform(far), codes.transform(x))
    np.testing.assert_array_equal(codes.transform(x)[:, 0], x[:, 1])


def test_half_the_range_scales_where_quartiles_are_equal():
    x = np.r_[np.zeros(90), np.full(10, 8.0)][:, None]
    code = NumberCodes(bins=0).fit(x).codes[0]
    assert (code.center, code.spread) == (0.0, 4.0)


def test_what_was_learnt_goes_through_json():
    x = RNG.normal(size=(300, 3))
    codes = NumberCodes().fit(x, x[:, 0] * x[:, 1])
    again = NumberCodes.from_dict(json.loads(json.dumps(codes.to_dict())))
    assert again.names == codes.names
    np.testing.assert_array_equal(again.transform(x), codes.transform(x))
    with pytest.raises(DataError, match="from_dict"):
        NumberCodes.from_dict({"columns": [{"nom": 1}]})


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="bins"):
        NumberCodes(-1)
    with pytest.raises(DataError, match="more than one value"):
        NumberCodes().fit(np.ones((5, 2)))
    codes = NumberCodes().fit(RNG.normal(size=(50, 2)))
    with pytest.raises(DataError, match="rows of 2 numbers"):
        codes.transform(np.ones((5, 3)))
    with pytest.raises(DataError, match="range is finite"):
        NumberCodes().fit(np.array([[-1.7e308], [1.7e308], [0.0]]))


def test_a_tree_cuts_where_the_targets_change():
    values = np.arange(300.0)
    steps = (values >= 100).astype(float) * 3 + (values >= 220)
    cuts = tree_edges(values, steps[:, None], leaves=8, least=10)
    assert cuts.tolist() == [99.5, 219.5]


def test_trees_cut_as_scikit_learns_do():
    tree = pytest.importorskip("sklearn.tree")
    values = RNG.normal(size=2000).round(2)
    labels = (np.sin(3 * values) + 0.3 * RNG.normal(size=2000) > 0).astype(int)
    theirs = tree.DecisionTreeClassifier(max_leaf_nodes=9, min_samples_leaf=20)
    found = theirs.fit(values[:, None], labels).tree_
    wanted = np.sort(found.threshold[found.children_left >= 0])
    cuts = tree_edges(values, np.eye(2)[labels], leaves=9, least=20)
    np.testing.assert_allclose(cuts, wanted, atol=1e-6)


def test_a_tree_does_not_cut_noise_of_equal_values_or_few_rows():
    assert not len(tree_edges(np.ones(100), RNG.normal(size=(100, 1)), 8, 5))
    assert not len(tree_edges(np.arange(9.0), np.arange(9.0)[:, None], 8, 5))
    assert not len(tree_edges(np.arange(90.0), np.ones((90, 1)), 8, 5))


def test_cuts_beyond_those_tried_are_certain():
    values = np.arange(4000.0)
    noise = np.random.default_rng(1).normal(size=(4000, 1))
    assert len(tree_edges(values, noise, 64, 16)) <= 1
    assert len(tree_edges(values, noise, 64, 16, tried=9)) >= 8
    steps = 6.0 * (np.arange(4000)[:, None] // 100 % 2)  # 39 of them
    cuts = tree_edges(values, steps + noise, 64, 16)
    assert np.min(np.abs(cuts[:, None] - np.arange(99.5, 3999, 100)), axis=0).max() < 3
    assert len(cuts) <= 42


def test_numbers_have_fewer_edges_where_the_target_does_not_change():
    x = RNG.uniform(size=(4000, 2))
    y = np.floor(40 * x[:, 0]) % 2 + 0.3 * RNG.normal(size=4000)
    wavy, flat = NumberCodes(bins=128).fit(x, y).codes
    assert len(wavy.edges) > 45 and len(flat.edges) <= 19
    assert len(NumberCodes(bins=128).fit(x, (y > 0.5).astype(int)).codes[1].edges) > 25
    assert len(NumberCodes(bins=12).fit(x, y).codes[0].edges) <= 13


def test_values_unlike_their_neighbours_have_an_input_of_their_own():
    values = RNG.integers(1, 400, 3000).astype(float)
    values[RNG.random(3000) < 0.3] = 0.0  # none
    values[RNG.random(3000) < 0.02] = 99.0  # unknown
    y = values / 400 + 0.1 * RNG.normal(size=3000)
    y[values == 0] += 2.0
    y[values == 99] -= 1.0
    assert telling_values(values, y[:, None]).tolist() == [0.0, 99.0]
    codes = NumberCodes(bins=8).fit(values[:, None], y, names=["n"])
    assert codes.names[-2:] == ("n=0", "n=99")
    new = codes.transform(np.array([[0.0], [99.0], [98.0]]))[:, -2:]
    assert new.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_a_curve_a_step_and_noise_have_no_telling_values():
    values = RNG.integers(0, 300, 4000).astype(float)
    step = (values >= 150).astype(float)
    noise = RNG.normal(size=4000)
    for y in (noise, np.sin(values / 30) + 0.3 * noise, step, np.ones(4000)):
        assert len(telling_values(values, y[:, None])) <= 1
    assert not len(telling_values(np.arange(4.0), np.arange(4.0)[:, None]))


def test_where_every_value_is_an_edge_none_is_told_twice():
    values = RNG.integers(0, 4, 500).astype(float)
    codes = NumberCodes().fit(values[:, None], (values == 2).astype(float))
    assert codes.codes[0].edges and not codes.codes[0].values


def test_wide_tables_have_fewer_bins_and_then_none():
    for columns, most in ((64, 32), (128, 16), (512, 4), (600, 0)):
        codes = NumberCodes().fit(RNG.normal(size=(100, columns)))
        assert {max(0, len(code.edges) - 1) for code in codes.codes} == {most}
    assert NumberCodes(bins=2).fit(RNG.normal(size=(50, 1))).codes[0].edges


def test_positions_are_the_same_inputs_not_yet_written():
    kind = np.eye(4)[RNG.integers(0, 4, 300)][:, :3]  # of a fourth level, nothing is 1
    x = np.c_[
        RNG.lognormal(size=300), kind, np.full(300, 2.0), RNG.integers(0, 2, 300), kind[:, :2]
    ]
    x[RNG.uniform(size=300) < 0.3, 0] = 0.0
    y = np.log1p(x[:, 0]) + 3.0 * (x[:, 0] == 0.0)
    numbers = [True] + [False] * 7
    categories = ["", "a", "a", "a", "", "", "b", "b"]
    codes = NumberCodes(bins=8).fit(x, y, numbers=numbers, categories=categories)
    bins = len(codes.codes[0].edges) - 1
    assert codes.columns == (
        *[("linear", 1), ("bins", bins), ("levels", 1)],  # the levels of the number: 0
        *[("levels", 3), ("linear", 1), ("levels", 2)],
    )
    found = codes.positions(x, "float64")
    assert found.shape == (300, 6)
    written = codes.transform(x, "float64")
    np.testing.assert_array_equal(piecewise_codes(found, codes.columns), written)
    np.testing.assert_array_equal(written[:, -6:], np.delete(x, 4, axis=1)[:, 1:])
    assert written.shape == (300, len(codes.names))
    again = NumberCodes.from_dict(json.loads(json.dumps(codes.to_dict())))
    np.testing.assert_array_equal(again.positions(x, "float64"), found)


def test_levels_that_training_did_not_show_have_no_number():
    kind = np.eye(3)[RNG.integers(0, 2, 50)]  # never the third
    codes = NumberCodes().fit(kind, numbers=[False] * 3, categories=["a"] * 3)
    assert codes.columns == (("levels", 2),)
    assert codes.positions(np.eye(3))[:, 0].tolist() == [0.0, 1.0, -1.0]


def test_without_codes_positions_are_the_inputs():
    x = RNG.normal(size=(50, 3))
    codes = NumberCodes(bins=0).fit(x)
    assert codes.of_network is None
    np.testing.assert_array_equal(codes.positions(x), codes.transform(x))
