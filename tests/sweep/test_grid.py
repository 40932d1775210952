"""Grids from text."""

import numpy as np
import pytest

from xpmlp.errors import ConfigError
from xpmlp.sweep import Settings, expand, parse_axes


def test_values_ranges_and_widths():
    axes = parse_axes(
        {
            "lr": "1e-4:1e-2:log:3",
            "weight-decay": "0,1e-4",
            "dropout": "0:0.5:3, 0.9",
            "batch_size": "32,64",
            "hidden": "64,256x128",
        }
    )
    assert axes == {
        "lr": [1e-4, 1e-3, 1e-2],
        "weight_decay": [0.0, 1e-4],
        "dropout": [0.0, 0.25, 0.5, 0.9],
        "batch_size": [32, 64],
        "hidden": [(64,), (256, 128)],
    }
    assert isinstance(axes["batch_size"][0], int)
    np.testing.assert_allclose(
        parse_axes({"lr": "1e-4:1e-2:log:8"})["lr"], np.geomspace(1e-4, 1e-2, 8), rtol=1e-9
    )


def test_grid_is_every_combination():
    base = Settings(optimizer="sgd", momentum=0.5)
    points = expand({"lr": [0.1, 0.2], "hidden": [(4,), (8,), (4, 4)]}, base)
    assert len(points) == 6
    assert [own.lr for own in points] == [0.1] * 3 + [0.2] * 3
    assert points[-1] == Settings(optimizer="sgd", momentum=0.5, lr=0.2, hidden=(4, 4))
    assert points[-1].describe(["lr", "hidden"]) == "lr=0.2 hidden=4x4"
    assert expand({}, base) == [base]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"lr": ""}, "at least one value"),
        ({"lr": "1e-3,0.001"}, "0.001 twice"),
        ({"lr": "1:2"}, "FROM:TO:COUNT"),
        ({"lr": "1:2:log"}, "--lr"),
        ({"lr": "0:1:log:3"}, "--lr"),
        ({"lr": "1:2:0"}, "--lr"),
        ({"lr": "1:2:3:4"}, "--lr"),
        ({"lr": "fast"}, "FROM:TO:log:COUNT"),
        ({"batch-size": "32.5"}, "whole numbers"),
        ({"hidden": "64x"}, "joined by x"),
        ({"rate": "1"}, "lr, weight_decay, dropout"),
    ],
)
def test_texts_that_are_no_axis(axes, message):
    with pytest.raises(ConfigError, match=message):
        parse_axes(axes)


def test_axes_that_are_no_grid():
    with pytest.raises(ConfigError, match="at least one value of lr"):
        expand({"lr": []}, Settings())
    with pytest.raises(ConfigError, match="number 0 again as number 1"):
        expand({"lr": [0.1, 0.1]}, Settings())
    with pytest.raises(ConfigError, match="epochs"):
        expand({"epochs": [1, 2]}, Settings())


@pytest.mark.parametrize("values", ["1e-3,1e-2", 1e-3])
def test_values_that_are_no_list_are_refused(values):
    with pytest.raises(ConfigError, match=r"expected a list of values of lr, got .*parse_axes"):
        expand({"lr": values}, Settings())
