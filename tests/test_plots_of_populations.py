"""Pictures of sweeps and of calibration show the numbers they were given."""

import numpy as np
import pytest

from xpmlp.calibration import reliability
from xpmlp.errors import ConfigError, DataError
from xpmlp.plots import plot_reliability, plot_sweep

pytest.importorskip("matplotlib")


def rows(**axes):
    """Two seeds of every combination; the accuracy is a function of the place on the grid."""
    import itertools

    made = []
    for places in itertools.product(*(range(len(values)) for values in axes.values())):
        point = {name: values[i] for i, (name, values) in zip(places, axes.items(), strict=True)}
        for seed in range(2):
            value = 0.5 + 0.1 * places[0] - 0.05 * sum(places[1:]) + 0.01 * seed
            made.append(point | {"seed": seed, "val_accuracy": value, "val_loss": 1.0 - value})
    return made


def test_one_option_is_a_curve_with_its_spread():
    figure = plot_sweep(rows(lr=[1e-4, 1e-3, 1e-2]), ["lr"])
    (axes,) = figure.axes
    curve = {line.get_label(): line.get_xydata() for line in axes.lines}["mean over seeds"]
    np.testing.assert_allclose(curve, [[1e-4, 50.5], [1e-3, 60.5], [1e-2, 70.5]])
    assert axes.get_xscale() == "log"
    assert any(line.get_label() == "best: 70.5 at 0.01" for line in axes.lines)
    band = axes.collections[0].get_paths()[0].vertices
    assert {50.0, 51.0, 70.0, 71.0} <= set(np.round(band[:, 1], 9))


def test_losses_are_best_when_small():
    figure = plot_sweep(rows(dropout=[0.0, 0.2]), ["dropout"], value="val_loss")
    (axes,) = figure.axes
    assert any(line.get_label() == "best: 0.395 at 0.2" for line in axes.lines)


def test_two_options_are_a_heat_map():
    figure = plot_sweep(rows(lr=[1e-3, 1e-2, 1e-1], hidden=[(8,), (8, 4)]), ["lr", "hidden"])
    axes = figure.axes[0]
    cells = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(cells, [[50.5, 60.5, 70.5], [45.5, 55.5, 65.5]])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["8", "8×4"]
    assert "70.5" in [text.get_text() for text in axes.texts]


def test_more_options_show_the_best_over_the_others():
    made = rows(lr=[1e-3, 1e-2, 1e-1], weight_decay=[0.0, 0.1, 0.2, 0.3], dropout=[0.0, 0.5])
    figure = plot_sweep(made, ["lr", "weight_decay", "dropout"])
    cells = np.asarray(figure.axes[0].images[0].get_array())
    assert cells.shape == (3, 4)
    assert cells[2, 0] == pytest.approx(70.5)
    assert figure.axes[0].get_title() == "best over dropout"


def test_what_diverged_is_left_out(tmp_path):
    made = rows(lr=[1e-3, 1e-2], dropout=[0.0, 0.5])
    for row in made[:2]:
        row["val_accuracy"] = float("nan")
    figure = plot_sweep(made, ["lr", "dropout"], tmp_path / "sweep.svg")
    cells = np.asarray(figure.axes[0].images[0].get_array())
    assert np.isnan(np.ma.filled(cells, np.nan)[0, 0])
    assert (tmp_path / "sweep.svg").read_text().startswith("<?xml")
    with pytest.raises(DataError, match="finite"):
        plot_sweep(made[:2], ["lr"])
    with pytest.raises(DataError, match="option"):
        plot_sweep(made, [])


def test_reliability_shows_accuracy_and_counts(tmp_path, rng):
    p = rng.dirichlet([0.5] * 4, size=500)
    labels = rng.integers(4, size=500)
    found = reliability(p, labels, bins=10)
    figure = plot_reliability(p, labels, tmp_path / "r.png", bins=10)
    upper, lower = figure.axes
    filled = found.counts > 0
    heights = [bar.get_height() for bar in upper.patches]
    np.testing.assert_allclose(heights, found.accuracy[filled])
    assert [bar.get_height() for bar in lower.patches] == found.counts[filled].tolist()
    assert f"{100 * found.error:.2f} %" in upper.get_title()
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError):
        plot_reliability(p, labels, bins=0)
