"""The worked examples of the documentation: they run, and their numbers are right."""

from __future__ import annotations

import ast
import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from xpmlp.data import Dataset, load_digits

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def load_example(name: str) -> ModuleType:
    """An example as a module; examples are scripts beside the package, not part of it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


# --- sigmoid_2_3_1 --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> ModuleType:
    return load_example("sigmoid_2_3_1")


def _scalar_sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z))


def test_sigmoid_2_3_1_forward_values(small):
    values, _ = small.propagate(small.START)
    # By hand: 0.4·0.1 + 0.5·0.2 + 0.1 = 0.24, and so on.
    h = [_scalar_sigmoid(z) for z in (0.24, 0.52, 0.80)]
    z2 = 0.1 * h[0] + 0.2 * h[1] + 0.3 * h[2] + 0.1
    y = _scalar_sigmoid(z2)
    np.testing.assert_allclose(values["z1"], [[0.24, 0.52, 0.80]], rtol=1e-14)
    np.testing.assert_allclose(values["h"], [h], rtol=1e-14)
    np.testing.assert_allclose(values["z2"], [[z2]], rtol=1e-14)
    np.testing.assert_allclose(values["y"], [[y]], rtol=1e-14)
    np.testing.assert_allclose(values["E"], 0.5 * (1 - y) ** 2, rtol=1e-14)
    assert round(y, 8) == 0.61972785


def test_sigmoid_2_3_1_gradients_follow_the_chain_rule_number_by_number(small):
    _, grads = small.propagate(small.START)
    h = [_scalar_sigmoid(z) for z in (0.24, 0.52, 0.80)]
    y = _scalar_sigmoid(0.1 * h[0] + 0.2 * h[1] + 0.3 * h[2] + 0.1)
    dz2 = (y - 1) * y * (1 - y)
    dz1 = [dz2 * v * hj * (1 - hj) for v, hj in zip((0.1, 0.2, 0.3), h, strict=True)]
    np.testing.assert_allclose(grads["V"], [[dz2 * hj] for hj in h], rtol=1e-13)
    np.testing.assert_allclose(grads["b2"], [dz2], rtol=1e-13)
    np.testing.assert_allclose(grads["W"], [[0.4 * d for d in dz1], [0.5 * d for d in dz1]])
    np.testing.assert_allclose(grads["b1"], dz1, rtol=1e-13)


def test_sigmoid_2_3_1_gradients_agree_with_finite_differences(small):
    _, grads = small.propagate(small.START)
    slopes = small.finite_differences(small.error, small.START)
    for name in small.START:
        np.testing.assert_allclose(grads[name], slopes[name], rtol=1e-8)


def test_sigmoid_2_3_1_update_moves_every_weight_down_the_slope(small):
    _, grads = small.propagate(small.START)
    after = small.update(small.START, grads)
    for name, before in small.START.items():
        np.testing.assert_array_equal(after[name], before - 0.01 * grads[name])
    assert small.error(after) < small.error(small.START)
    np.testing.assert_array_equal(small.START["b2"], [0.1])  # the old ones stay


def test_an_examples_parts_are_all_of_it():
    split = _example_parts()
    for path in sorted(EXAMPLES.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        found = list(split.parts(source))
        assert "".join(text for _, text in found).replace("\n", "") == source.replace("\n", "")
        names = [node.name for node in ast.parse(source).body if hasattr(node, "name")]
        assert [name for name, _ in found if name] == names
        for name, text in found:
            assert not name or f"def {name}" in text or f"class {name}" in text


def test_an_example_is_shown_with_what_it_prints(small, capsys):
    printed = _example_parts().printed_by(EXAMPLES / "sigmoid_2_3_1.py")
    small.main()
    assert printed == capsys.readouterr().out.strip("\n") and "0.61972785" in printed


def _example_parts() -> ModuleType:
    """The part of the pages' build that cuts examples and runs them."""
    path = EXAMPLES.parent / "extensions" / "example_parts.py"
    spec = importlib.util.spec_from_file_location("example_parts", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- fully_connected ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exercise() -> ModuleType:
    return load_example("fully_connected")


@pytest.mark.parametrize("seed", range(5))
def test_fully_connected_passes_its_own_grading(exercise, seed):
    marks = exercise.grade(seed=seed)
    assert len(marks) == 21
    assert all(mark.passed for mark in marks), [mark for mark in marks if not mark.passed]


def test_fully_connected_flattens_even_where_the_last_axis_fits(exercise, rng):
    layer = exercise.FullyConnected(rng.normal(size=(7, 3)), rng.normal(size=3))
    assert layer.forward(rng.normal(size=(2, 1, 7))).shape == (2, 3)
    assert layer.backward(rng.normal(size=(2, 3))).shape == (2, 1, 7)


def test_fully_connected_grading_finds_a_spoiled_dy(exercise):
    class Relu(exercise.Relu):
        def backward(self, dy):
            dy[self._saved[0] <= 0] = 0.0
            return dy

    failed = [mark.what for mark in exercise.grade(relu=Relu) if not mark.passed]
    assert failed == ["Relu: dy untouched"]


def test_fully_connected_grading_finds_an_averaged_gradient(exercise):
    class Averaged(exercise.FullyConnected):
        @property
        def db(self):
            return super().db / 4

    failed = [mark.what for mark in exercise.grade(Averaged) if not mark.passed]
    assert len(failed) == 3 and all("db" in what for what in failed)


def test_fully_connected_grading_finds_a_wrong_shape_and_nan(exercise):
    class Misshapen(exercise.Sigmoid):
        def forward(self, x, training=False):
            return super().forward(x, training).ravel()

        def backward(self, dy):
            return np.full(dy.shape, np.nan)

    failed = [mark.what for mark in exercise.grade(sigmoid=Misshapen) if not mark.passed]
    assert failed == ["Sigmoid: y has shape (24,), not (4, 3, 2)", "Sigmoid: dx"]


def test_fully_connected_prints_its_marks(exercise, capsys):
    exercise.main()
    assert "21 of 21 passed" in capsys.readouterr().out


# --- three_formulas -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def formulas() -> ModuleType:
    return load_example("three_formulas")


def test_three_formulas_cover_every_loss_and_activation(formulas):
    assert {case[0] for case in formulas.CASES} == {"sse", "cross-entropy"}
    assert {case[2] for case in formulas.CASES} == {"sigmoid", "relu", "softmax"}
    assert len(formulas.CASES) == 10


@pytest.mark.parametrize("case", load_example("three_formulas").CASES, ids="-".join)
def test_three_formulas_agree_with_layers_and_finite_differences(formulas, case):
    from_layers, from_differences = formulas.compare(*case)
    assert from_layers < 1e-13
    assert from_differences < 1e-7


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_three_formulas_cross_entropy_delta_is_y_minus_t(formulas, rng, output):
    z = rng.normal(size=(4, 3))
    t = formulas.softmax(rng.normal(size=(4, 3)))
    y = formulas.ACTIVATIONS[output](z)
    delta = formulas.delta(output, formulas.error_of("cross-entropy", output, y, t), y)
    np.testing.assert_allclose(delta, y - t, atol=1e-14)


def test_three_formulas_comparison_would_see_a_wrong_formula(formulas, monkeypatch):
    monkeypatch.setattr(formulas, "delta", lambda name, error, y: error)  # f′ forgotten
    from_layers, from_differences = formulas.compare("sse", "relu", "sigmoid")
    assert from_layers > 1e-2 and from_differences > 1e-2


@pytest.mark.parametrize("loop", ["relu_sigmoid", "sigmoid_sigmoid"])
def test_three_formulas_loop_equals_the_layers_loop_and_learns(formulas, loop):
    start = getattr(formulas, f"start_{loop}")
    ours, theirs = start(), start()
    errors = getattr(formulas, f"train_{loop}")(ours)
    same = getattr(formulas, f"train_{loop}_layers")(theirs)
    np.testing.assert_allclose(errors, same, rtol=1e-9)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-10)
    assert errors[0] > 0.5 and errors[-1] < 1e-3


def test_three_formulas_turned_sign_climbs(formulas):
    first, down, up = formulas.turned_sign()
    assert down < 0.5 * first
    assert up > 1.2 * first


def test_three_formulas_prints_its_comparison(formulas, capsys):
    formulas.main()
    printed = capsys.readouterr().out
    assert "cross-entropy  sigmoid   softmax" in printed
    assert "sigmoid–sigmoid with biases" in printed


# --- lab_mlp --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    return load_example("lab_mlp")


@pytest.fixture
def no_mnist(monkeypatch, tmp_path):
    """A machine on which MNIST is nowhere to be found."""
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "XPMLP_DATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path))


@pytest.fixture
def batch(lab, rng):
    """A network and a few images with their one-hot labels."""
    images, labels = rng.uniform(size=(8, 28, 28)), rng.integers(0, 10, size=8)
    return lab.LabNetwork.random(), images, lab.one_hot(labels), labels


def test_lab_mlp_has_the_labs_shapes(lab, batch):
    network, images, t, _ = batch
    columns = lab.columns(images)
    assert columns.shape == (785, 8)
    np.testing.assert_array_equal(columns[:784, 3], images[3].ravel())
    np.testing.assert_array_equal(columns[784], np.ones(8))
    assert network.weights["W1"].shape == (100, 785)
    assert network.weights["W2"].shape == (10, 100)
    assert t.shape == (10, 8) and network.forward(images).shape == (10, 8)
    np.testing.assert_allclose(np.exp(network.forward(images)).sum(axis=0), 1.0)


def test_lab_mlp_objective_is_mean_cross_entropy_and_norms(lab, batch):
    network, images, t, labels = batch
    W1, W2 = network.weights["W1"], network.weights["W2"]
    total = 0.0
    for image, label in zip(images, labels, strict=True):
        scores = W2 @ np.maximum(W1 @ np.append(image.ravel(), 1.0), 0.0)
        total += np.log(np.exp(scores).sum()) - scores[label]
    norms = np.sqrt((W1**2).sum()) + np.sqrt((W2**2).sum())
    expected = total / 8 + 0.3 * norms
    assert lab.objective(network, images, t, 0.3) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_lab_mlp_true_gradients_pass_and_the_labs_own_do_not(lab, batch, seed):
    network, images, t, _ = batch
    for slope, true, own in lab.gradient_table(network, images, t, seed).values():
        assert slope == pytest.approx(true, rel=1e-5, abs=1e-6)
        assert abs(own - slope) > 0.5 * abs(slope)


def test_lab_mlp_own_gradients_are_n_times_the_data_and_twice_the_penalty(lab, batch):
    network, images, t, _ = batch
    true = lab.true_gradients(network, images, t, 0.0)
    own = lab.lab_gradients(network, images, t, 0.0)
    both = lab.lab_gradients(network, images, t, 0.5)
    for name, W in network.weights.items():
        np.testing.assert_allclose(own[name], 8 * true[name], atol=1e-14)
        np.testing.assert_allclose(
            both[name] - own[name], W / np.sqrt((W**2).sum()), rtol=1e-9, atol=1e-14
        )


def test_lab_mlp_translated_rate_trains_the_same_network(lab, batch):
    _, images, _, labels = batch
    runs = {}
    rate, strength = lab.lab_to_true(0.02, 0.1, batch=4)
    assert (rate, strength) == (0.08, 0.05)
    assert lab.true_to_lab(rate, strength, batch=4) == pytest.approx((0.02, 0.1))
    for kind, numbers in (("true", (rate, strength)), ("lab", (0.02, 0.1))):
        network = runs[kind] = lab.LabNetwork.random()
        lab.train(
            network,
            images,
            labels,
            gradients=getattr(lab, f"{kind}_gradients"),
            rate=numbers[0],
            strength=numbers[1],
            batch=4,
        )
    for name, start in lab.LabNetwork.random().weights.items():
        after = runs["true"].weights[name]
        np.testing.assert_allclose(after, runs["lab"].weights[name], rtol=1e-9, atol=1e-12)
        assert np.abs(after - start).max() > 1e-3


def test_lab_mlp_last_layers_by_hand_equal_the_fused_op(lab, batch):
    network, images, _, labels = batch
    assert lab.fused_agrees(network, images, labels) < 1e-15


def test_lab_mlp_runs_on_the_packages_digits(lab, no_mnist, capsys):
    name, (x, y, x_test, y_test) = lab.load_images(limit=50)
    assert name == "digits"
    assert x.shape == (50, 28, 28) and x_test.shape == (50, 28, 28) and len(y_test) == 50
    assert x.max() == 1.0 and x.min() == 0.0
    digits = load_digits()
    blocks = x[:, 2:26, 2:26].reshape(50, 8, 3, 8, 3)  # each pixel became 3×3
    expected = np.broadcast_to((digits.x_train[:50] / 16.0)[:, :, None, :, None], blocks.shape)
    np.testing.assert_array_equal(blocks, expected)
    assert x.sum() == pytest.approx(blocks.sum())  # and nothing is on the border
    np.testing.assert_array_equal(y, digits.y_train[:50])

    lab.main()
    printed = capsys.readouterr().out
    assert printed.startswith("digits: 1437 images to train on, 360 to test on")
    accuracy = float(printed.rpartition("test accuracy ")[2].strip().rstrip("%"))
    assert accuracy > 94.0


def test_lab_mlp_takes_mnist_where_it_is(lab, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(30, 28, 28), dtype=np.uint8)
    labels = np.arange(30) % 10
    mnist = Dataset(
        name="mnist",
        x_train=images,
        y_train=labels,
        x_test=images[:10],
        y_test=labels[:10],
        classes=tuple("0123456789"),
        features=None,
        source="made up",
    )
    monkeypatch.setattr(lab, "load_mnist", lambda download: mnist)
    name, (x, y, x_test, y_test) = lab.load_images(limit=20)
    assert name == "mnist"
    np.testing.assert_array_equal(x, images[:20] / 255.0)
    np.testing.assert_array_equal(y, labels[:20])
    assert len(x_test) == len(y_test) == 10


# --- Convolutions ---------------------------------------------------------------------------------


def test_three_formulas_of_a_convolution_agree():
    example = load_example("three_formulas_convolution")
    found = example.solve()
    np.testing.assert_allclose(found["z"], [[1.2, -1.0], [1.45, 1.6]], rtol=1e-12)
    np.testing.assert_allclose(found["delta"], [[-0.1, 0.0], [0.2, 0.3]], rtol=1e-12)
    np.testing.assert_allclose(found["dw"], [[0.3, 0.2], [0.65, 0.25]], rtol=1e-12)
    given = example.X, example.W
    for other in (
        example.backward_products(*given, found["delta"]),
        example.layer_gradients(*given, found["t"]),
        example.finite_differences(*given, found["t"]),
    ):
        np.testing.assert_allclose(found["error_x"], other[0], atol=1e-9)
        np.testing.assert_allclose(found["dw"], other[1], atol=1e-9)
    lines = example.written_out(found["delta"])
    products = [line.count(")·(") for line in lines]
    assert len(lines) == 4 + 9 + 4 and sum(products) == 3 * 16
    assert "z11       = (1)·(0.5) + (0)·(-1) + (0.5)·(1) + (1)·(0.2) = 1.2" in lines


def test_the_courses_convolutional_network():
    example = load_example("cs231n_convnet")
    assert abs(example.starting_loss(0.0) - math.log(10.0)) < 1e-4
    assert 2.45 < example.starting_loss(0.5) < 2.55
    assert example.gradient_error() < 1e-6
    losses, right = example.learn_by_heart()
    assert losses[-1] < 0.2 and right > 0.97
