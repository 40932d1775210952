"""The pictures show the numbers they were given; a saved file is whole and in the right format."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from xpmlp.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingDependencyError,
    ShapeError,
)
from xpmlp.layers import Conv2D, Linear, Matmul, ReLU, Sequential
from xpmlp.models import ConvNet, FullyConnectedNet
from xpmlp.plots import plot_confusion, plot_first_layer, plot_history, plot_mistakes
from xpmlp.training import History

ROWS = [
    {"epoch": 1, "train_loss": 2.0, "val_loss": 1.8, "val_accuracy": 0.5},
    {"epoch": 2, "train_loss": 1.0, "val_loss": 1.2, "val_accuracy": 0.75},
    {"epoch": 3, "train_loss": 0.5, "val_loss": 1.4, "val_accuracy": 0.7},
]


def lines(axes):
    """The data of each line, by its label."""
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def texts(figure):
    """All text on the figure."""
    return [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]


def images(figure):
    """The images drawn, in order."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def test_history_shows_every_column_and_the_best_epoch():
    loss, accuracy = plot_history(History(rows=ROWS)).axes
    drawn = lines(loss)
    np.testing.assert_array_equal(drawn["training"], [[1, 2.0], [2, 1.0], [3, 0.5]])
    np.testing.assert_array_equal(drawn["validation"], [[1, 1.8], [2, 1.2], [3, 1.4]])
    np.testing.assert_array_equal(drawn["best: 1.2 (epoch 2)"], [[2, 1.2]])
    drawn = lines(accuracy)
    np.testing.assert_array_equal(drawn["validation"], [[1, 50], [2, 75], [3, 70]])
    np.testing.assert_array_equal(drawn["best: 75.00 % (epoch 2)"], [[2, 75]])
    assert [axes.get_xlabel() for axes in (loss, accuracy)] == ["Epoch", "Epoch"]
    assert [axes.get_ylabel() for axes in (loss, accuracy)] == ["Loss", "Accuracy (%)"]


def test_history_may_be_rows_columns_or_a_csv_file(tmp_path):
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    History(rows=ROWS).to_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv") as file:
        from_file = list(csv.DictReader(file))
    expected = lines(plot_history(ROWS).axes[0])
    for form in (columns, from_file, History(rows=ROWS)):
        drawn = lines(plot_history(form).axes[0])
        assert drawn.keys() == expected.keys()
        for label, values in expected.items():
            np.testing.assert_array_equal(drawn[label], values)


def test_missing_columns_and_values_leave_gaps():
    figure = plot_history([{"train_loss": 1.0}, {"train_loss": float("inf")}, {"train_loss": 0.5}])
    (axes,) = figure.axes
    np.testing.assert_array_equal(lines(axes)["training"], [[1, 1.0], [2, np.nan], [3, 0.5]])
    (axes,) = plot_history({"epoch": [4, 5], "val_r2": [None, 0.25]}).axes
    assert axes.get_ylabel() == "R²"
    np.testing.assert_array_equal(lines(axes)["validation"], [[4, np.nan], [5, 0.25]])


@pytest.mark.parametrize(
    "history",
    [
        [],
        {},
        {"train_loss": []},
        [{"epoch": 1, "lr": 0.1}],
        [{"train_loss": float("nan")}],
        {"train_loss": [1.0, 2.0], "val_loss": [1.0]},
    ],
)
def test_history_without_curves_is_an_error(history):
    with pytest.raises(DataError, match="plot_history"):
        plot_history(history)


def test_confusion_shows_counts_shares_and_accuracy():
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 0, 1, 1, 1, 0])
    figure = plot_confusion(truth, predicted, ["cat", "dog", "bird"])
    (shares, *_), axes = images(figure), figure.axes[0]
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0, 1, 0], [1, 0, 0]])
    assert axes.get_title() == "71.43 % right (5 of 7)"
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "3", (1, 0): "1", (1, 1): "2", (0, 2): "1"}  # x predicted, y true
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "bird"]
    assert {"75.0 %", "100.0 %", "0.0 %"} <= set(texts(figure))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")


def test_confusion_of_many_classes_leaves_room(rng):
    truth = np.arange(100).repeat(2)
    figure = plot_confusion(truth, rng.permutation(truth), [f"class {i}" for i in range(100)])
    axes = figure.axes[0]
    assert not axes.texts
    assert len(axes.get_xticks()) <= 40


def test_confusion_of_a_class_without_samples_is_not_a_division_by_zero():
    figure = plot_confusion([0, 0], [0, 1], ["a", "b"])
    np.testing.assert_allclose(images(figure)[0], [[0.5, 0.5], [0, 0]])
    assert "–" in texts(figure)


@pytest.mark.parametrize(
    "truth, predicted, error, words",
    [
        ([0, 1], [0], ShapeError, "one length"),
        ([0, 2], [0, 1], DataError, r"0…1 for 2 classes, got 0…2"),
        ([0, 1], [0, -1], DataError, "y_pred"),
        ([], [], ShapeError, "class numbers"),
        (np.zeros(0, int), np.zeros(0, int), DataError, "no rows"),
        (["a", "b"], ["a", "b"], ShapeError, "class numbers"),
        ([[0], [1]], [[0], [1]], ShapeError, "class numbers"),
    ],
)
def test_confusion_refuses_what_are_no_class_numbers(truth, predicted, error, words):
    with pytest.raises(error, match=words):
        plot_confusion(truth, predicted, ["a", "b"])


def mistakes_input(rng, n=30, side=6):
    x = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    p = rng.dirichlet(np.ones(3), size=n)
    return x, rng.integers(0, 3, n), p


def test_mistakes_are_shown_worst_first(rng):
    x, y, p = mistakes_input(rng)
    wrong = [i for i in range(len(y)) if p[i].argmax() != y[i]]
    worst = sorted(wrong, key=lambda i: p[i, y[i]])[:4]
    figure = plot_mistakes(x, y, p, ["a", "b", "c"], count=4)
    scale = np.ptp(x[worst].astype(float))
    for image, index in zip(images(figure), worst, strict=True):
        np.testing.assert_allclose(image, (x[index] - x[worst].min().astype(float)) / scale)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    for title, index in zip(titles, worst, strict=True):
        said, true = title.splitlines()
        assert said.startswith(f"said {'abc'[p[index].argmax()]} (")
        assert true.startswith(f"true {'abc'[y[index]]} (")
    assert figure.get_suptitle() == f"The 4 worst of {len(wrong)} mistakes among 30 images"


@pytest.mark.parametrize("form", ["rows", "flat rgb", "channels first", "channels last", "one"])
def test_mistakes_take_images_in_any_layout(form, rng):
    x, y, p = mistakes_input(rng)
    rgb = np.stack([x, 255 - x, x // 2], axis=1)
    given, shown = {
        "rows": (x.reshape(30, 36), x),
        "flat rgb": (rgb.reshape(30, -1), np.moveaxis(rgb, 1, -1)),
        "channels first": (rgb, np.moveaxis(rgb, 1, -1)),
        "channels last": (np.moveaxis(rgb, 1, -1), np.moveaxis(rgb, 1, -1)),
        "one": (x[:, None], x),
    }[form]
    first = images(plot_mistakes(given, y, p, ["a", "b", "c"], count=1))[0]
    wrong = [i for i in range(len(y)) if p[i].argmax() != y[i]]
    worst = shown[min(wrong, key=lambda i: p[i, y[i]])].astype(float)
    np.testing.assert_allclose(first, (worst - worst.min()) / np.ptp(worst))


def test_no_mistake_is_said_in_words(rng):
    x, _, p = mistakes_input(rng)
    figure = plot_mistakes(x, p.argmax(axis=1), p, ["a", "b", "c"])
    assert "No mistake among 30 images" in texts(figure)
    assert not images(figure)


def test_one_mistake_among_equal_pixels_is_drawn(rng):
    p = np.array([[0.9, 0.1], [0.8, 0.2]])
    figure = plot_mistakes(np.ones((2, 4, 4)), [0, 1], p, ["a", "b"])
    assert figure.get_suptitle() == "1 mistake among 2 images"
    assert np.isfinite(images(figure)[0]).all()


def test_mistakes_refuse_what_does_not_fit(rng):
    x, y, p = mistakes_input(rng)
    names = ["a", "b", "c"]
    for images_ in (x.reshape(30, 36)[:, :35], x[:, :5], x[:, :, :, None, None], x[0]):
        with pytest.raises(ShapeError, match="square images"):
            plot_mistakes(images_, y, p, names)
    with pytest.raises(ShapeError, match=r"shape \(30, 3\)"):
        plot_mistakes(x, y, p[:, :2], names)
    with pytest.raises(ShapeError, match="29 images"):
        plot_mistakes(x[:29], y, p, names)
    with pytest.raises(DataError, match="finite"):
        plot_mistakes(x, y, np.where(p > 0.9, np.nan, p), names)
    with pytest.raises(ConfigError, match="count"):
        plot_mistakes(x, y, p, names, count=0)


def test_first_layer_shows_the_largest_units_first(rng):
    W = rng.normal(size=(12, 5)).astype(np.float32)
    order = np.argsort(-np.linalg.norm(W, axis=0))
    by_rows = Sequential(ReLU(), Linear.from_arrays(W), Linear(5, 2, rng=1))
    for model in (by_rows, Matmul(np.ascontiguousarray(W.T))):
        drawn = images(plot_first_layer(model, (3, 4)))
        for image, unit in zip(drawn, order, strict=False):
            np.testing.assert_allclose(image, W[:, unit].reshape(3, 4))


def test_first_layer_of_colour_images_is_grey_at_zero(rng):
    W = np.zeros((12, 2), np.float32)
    W[0, 0], W[11, 0] = 2.0, -1.0
    channels_first = images(plot_first_layer(Linear.from_arrays(W), (3, 2, 2)))[0]
    channels_last = images(plot_first_layer(Linear.from_arrays(W), (2, 2, 3)))[0]
    for image in (channels_first, channels_last):
        assert image.shape == (2, 2, 3)
        assert image[0, 0, 0] == 1.0
        assert image[1, 1, 2] == 0.25
        assert image[0, 1, 1] == 0.5


def test_first_layer_shows_at_most_64_units():
    figure = plot_first_layer(FullyConnectedNet([9, 70, 2]), (3, 3))
    assert figure.get_suptitle() == "First-layer weights: 64 of 70 units, largest first"
    assert len(images(figure)) >= 64


def test_first_layer_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"9 values in all, got \(2, 4\)"):
        plot_first_layer(FullyConnectedNet([9, 4, 2]), (2, 4))
    with pytest.raises(ShapeError, match=r"got \(9,\)"):
        plot_first_layer(FullyConnectedNet([9, 4, 2]), (9,))
    with pytest.raises(ShapeError, match="got None"):
        plot_first_layer(FullyConnectedNet([9, 4, 2]))
    with pytest.raises(ConfigError, match="Linear, Matmul or Conv2D"):
        plot_first_layer(Sequential(ReLU()), (3, 3))
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        plot_first_layer(Conv2D(2, 4, 3))


@pytest.mark.parametrize("shared", [False, True])
def test_first_layer_of_a_population_has_the_units_of_all(shared):
    model = FullyConnectedNet([9, 4, 2], population=3, shared=shared, seed=0)
    W = np.asarray(model.layers[0].W)
    figure = plot_first_layer(model, (3, 3))
    assert figure.get_suptitle() == f"First-layer weights: {W.size // 9} units, largest first"
    units = np.swapaxes(W, -1, -2).reshape(-1, 3, 3)
    first = units[np.argmax(np.linalg.norm(units, axis=(1, 2)))]
    np.testing.assert_allclose(images(figure)[0], first)


def test_first_layer_of_a_convolution_are_its_kernels():
    grey = ConvNet([(1, 8, 8), 5, 2], size=5, seed=0)
    W = np.asarray(grey.layers[1].W)[:, 0]
    drawn = images(plot_first_layer(grey))
    np.testing.assert_allclose(drawn[0], W[np.argmax(np.linalg.norm(W, axis=(1, 2)))])
    colour = Conv2D(3, 2, 3, rng=0)
    W = np.asarray(colour.W)
    largest = W[np.argmax(np.linalg.norm(W.reshape(2, -1), axis=1))]
    shown = images(plot_first_layer(colour))[0]
    np.testing.assert_allclose(
        shown, 0.5 + 0.5 * np.moveaxis(largest, 0, -1) / abs(largest).max(), atol=1e-6
    )


def test_arrays_of_every_library_are_drawn(library, rng):
    x, y, p = mistakes_input(rng)
    figure = plot_mistakes(library.array(x), library.array(y), library.array(p), ["a", "b", "c"])
    assert len(images(figure)) == np.sum(p.argmax(axis=1) != y)
    assert plot_confusion(library.array(y), library.array(p.argmax(axis=1)), ["a", "b", "c"])
    assert plot_first_layer(FullyConnectedNet([9, 4, 2]), (3, 3))


@pytest.mark.parametrize(
    "suffix, start", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")]
)
def test_suffix_chooses_the_format(suffix, start, tmp_path):
    path = tmp_path / f"curves.{suffix}"
    plot_history(ROWS, path)
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_suffix_and_missing_folder_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"\.png"):
        plot_history(ROWS, tmp_path / "curves.bmpx")
    with pytest.raises(ConfigError, match=r"\.png"):
        plot_history(ROWS, tmp_path / "curves")
    with pytest.raises(CheckpointError, match="nowhere"):
        plot_history(ROWS, tmp_path / "nowhere" / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_no_display_and_no_pyplot_are_needed(tmp_path):
    code = (
        "import sys; from xpmlp.plots import plot_history\n"
        "assert 'matplotlib' not in sys.modules, 'loaded before it is used'\n"
        "plot_history([{'train_loss': 1.0}], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    path = tmp_path / "curves.png"
    subprocess.run(
        [sys.executable, "-c", code, str(path)],
        check=True,
        env=os.environ | {"MPLBACKEND": "tkagg"},
    )
    assert path.stat().st_size > 5000


def test_without_matplotlib_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "xpmlp\[cli\]"'):
        plot_history(ROWS)


@pytest.mark.parametrize("words", ["$", "a $ b $ c", "$\\frac{$", "\x1b[2J$x_"])
def test_names_with_dollars_are_no_formulas(tmp_path, words):
    y = np.array([0, 1, 1])
    plot_confusion(y, y, [words, f"{words}{words}"], path=tmp_path / "c.png")
    figure = plot_history(ROWS, tmp_path / "h.png", title=words)
    assert figure.get_suptitle().replace("\\$", "$") == words.replace("\x1b", "\ufffd")


@pytest.mark.parametrize("count", [3, 16, 40])
def test_labels_of_a_confusion_matrix_are_inside_the_picture(count):
    y = np.arange(count)
    figure = plot_confusion(y, y, [f"a class {number}" for number in range(count)])
    figure.canvas.draw()
    inside = figure.axes[0].get_tightbbox(figure.canvas.get_renderer())
    assert inside.x0 >= 0 and inside.y0 >= 0
    assert inside.x1 <= figure.bbox.width and inside.y1 <= figure.bbox.height
