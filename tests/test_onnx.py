"""An exported file computes what the model computes, in two independent ONNX runtimes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest

import xpmlp
from xpmlp.data import Normalization
from xpmlp.errors import (
    CheckpointError,
    ConfigError,
    DTypeError,
    MissingDependencyError,
    ShapeError,
)
from xpmlp.layers import (
    CELU,
    ELU,
    GELU,
    GLU,
    AvgPool2D,
    BatchNorm,
    BatchNorm2D,
    Conv2D,
    Dropout,
    EmbedColumns,
    Embedding,
    Flatten,
    GlobalAvgPool2D,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    Log,
    LogSoftmax,
    Matmul,
    MaxPool2D,
    Periodic,
    PiecewiseLinear,
    PReLU,
    PReLU2D,
    ReLU,
    Residual,
    RMSNorm,
    Sequential,
    Softmax,
    SwiGLU,
    Tanh,
    Unflatten,
)
from xpmlp.models import ACTIVATIONS, ConvNet, FullyConnectedNet
from xpmlp.onnx import export_onnx

D = 6

LAYERS: dict[str, Layer] = {
    "Linear": Linear(D, 4, rng=1),
    "Linear without bias": Linear(D, 4, bias=False, rng=1),
    "PiecewiseLinear": PiecewiseLinear(
        [("bins", 3), ("linear", 1), ("levels", 2), ("bins", 1), ("levels", 3), ("bins", 2)],
        4,
        rng=1,
    ),
    **{name: kind() for name, kind in ACTIVATIONS.items()},
    "LeakyReLU": LeakyReLU(0.2),
    "PReLU": PReLU(D),
    "PReLU of one slope": PReLU(),
    "GLU": Sequential(Linear(D, 6, rng=5), GLU()),
    "SwiGLU": Sequential(Linear(D, 6, rng=6), SwiGLU()),
    "ELU": ELU(0.7),
    "CELU": CELU(0.7),
    "GELU tanh": GELU("tanh"),
    "Softmax": Softmax(),
    "LogSoftmax": LogSoftmax(),
    "BatchNorm": BatchNorm(D),
    "LayerNorm": LayerNorm(D),
    "RMSNorm": RMSNorm(D, eps=1e-3),
    "Periodic": Periodic(D, 5, scale=1.0, rng=1),
    "Periodic with a map": Periodic(D, 5, dim=4, rng=1),
    "Dropout": Dropout(0.5, rng=1),
    "Flatten": Flatten(),
    "Unflatten": Unflatten((3, 2)),
    "Residual": Residual(Sequential(Linear(D, D, rng=2), Tanh())),
    "Sequential": Sequential(Linear(D, 5, rng=3), Sequential(ReLU(), Linear(5, 3, rng=4))),
    "Sequential of nothing": Sequential(),
}


C = 4
IMAGES: dict[str, Layer] = {
    "Conv2D": Conv2D(C, 6, 3, rng=1),
    "Conv2D with options": Conv2D(
        C, 6, (2, 3), stride=(2, 1), padding=(1, 2), dilation=2, groups=2, bias=False, rng=1
    ),
    "MaxPool2D": MaxPool2D(2),
    "MaxPool2D overlapping": MaxPool2D((3, 2), stride=(2, 1), padding=(1, 0)),
    "AvgPool2D": AvgPool2D(2),
    "AvgPool2D overlapping": AvgPool2D(3, stride=2, padding=1),
    "AvgPool2D of what is inside": AvgPool2D(3, stride=2, padding=1, count_padding=False),
    "GlobalAvgPool2D": GlobalAvgPool2D(),
    "BatchNorm2D": BatchNorm2D(C),
    "GroupNorm": GroupNorm(2, C),
    "PReLU2D": PReLU2D(C),
    "network": Sequential(
        Conv2D(C, 3, 3, padding=1, rng=1), ReLU(), MaxPool2D(2), Flatten(), Linear(18, 5, rng=2)
    ),
    "all convolutional": Sequential(Conv2D(C, 3, 3, rng=1), GlobalAvgPool2D(), Linear(3, 5, rng=2)),
}


def randomize(model: Layer, rng: np.random.Generator) -> Layer:
    """Give every parameter and statistic a value it would not have by default."""
    values = model.state_dict()
    for name, value in values.items():
        drawn = rng.uniform(0.5, 1.5, value.shape)
        values[name] = drawn if "var" in name or "gamma" in name else drawn - 1.0
    model.load_state_dict(values)
    return model


def run_reference(path: Path, x: np.ndarray) -> np.ndarray:
    return onnx.reference.ReferenceEvaluator(str(path)).run(None, {"input": x})[0]


def run_runtime(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


def check(path: Path, x: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    """Both runtimes agree with the model, in shape, dtype and values."""
    assert np.max(np.abs(expected)) > 1e-2  # not an agreement of zeros
    for run in (run_reference, run_runtime):
        y = run(path, x)
        assert y.shape == expected.shape
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_computes_the_same_for_any_batch_size(name, tmp_path, rng):
    model = randomize(LAYERS[name], rng)
    path = export_onnx(model, tmp_path / "layer.onnx", input_shape=(D,))
    for rows in (1, 7):
        x = rng.normal(size=(rows, D)).astype(np.float32) * 2
        check(path, x, model.forward(x))


@pytest.mark.parametrize("name", IMAGES)
def test_layers_of_images_compute_the_same(name, tmp_path, rng):
    model = randomize(IMAGES[name], rng)
    path = export_onnx(model, tmp_path / "layer.onnx", input_shape=(C, 7, 5))
    for rows in (1, 3):
        x = rng.normal(size=(rows, C, 7, 5)).astype(np.float32)
        check(path, x, model.forward(x), 5e-6)


def test_images_that_onnx_cannot_have(tmp_path):
    options = {"input_shape": (C, 7, 5)}
    with pytest.raises(ConfigError, match="a population of 2"):
        export_onnx(Conv2D(C, 3, 3, population=2), tmp_path / "p.onnx", **options)
    with pytest.raises(ShapeError, match=r"expected \(N, 4, H, W\)"):
        export_onnx(BatchNorm2D(C), tmp_path / "p.onnx", input_shape=(C,))


def test_a_network_of_images_says_how_large_they_are_or_is_told(tmp_path, rng):
    model = randomize(ConvNet([(1, 8, 6), 4, 3], seed=0), rng)
    x = rng.normal(size=(5, 48)).astype(np.float32)
    check(export_onnx(model, tmp_path / "net.onnx"), x, model.forward(x), 5e-6)
    for first in (Conv2D(C, 3, 3, rng=1), MaxPool2D(2)):
        with pytest.raises(ConfigError, match="expected input_shape="):
            export_onnx(Sequential(first, Flatten(), Linear(45, 5)), tmp_path / "none.onnx")


@pytest.mark.parametrize("population", [None, 3])
def test_levels_and_bins_compute_the_same(population, tmp_path, rng):
    columns = [("levels", 3), ("bins", 2), ("linear", 1)]
    model = FullyConnectedNet([3, 5, 2], columns=columns, population=population)
    randomize(model, rng)
    path = export_onnx(model, tmp_path / "net.onnx")
    x = rng.integers(-1, 5, (40, 3)).astype(np.float32)
    check(path, x, model.forward(x))


def test_log_computes_the_same(tmp_path, rng):
    x = rng.uniform(0.1, 5.0, (7, D)).astype(np.float32)
    for eps in (0.0, 0.25):
        model = Log(eps)
        check(export_onnx(model, tmp_path / "log.onnx", input_shape=(D,)), x, model.forward(x))


def test_every_public_layer_is_covered():
    apart = {"Log", "Matmul", "Embedding", "EmbedColumns", "SharedLinear"}
    models = (LAYERS | IMAGES).values()
    parts = [*models, *(layer for model in models for _, layer in model.named_layers())]
    tested = {type(layer).__name__ for layer in parts} | apart
    bases = {"Layer", "Parameter", "State", "Activation", "Container"}
    public = {n for n, v in vars(xpmlp.layers).items() if isinstance(v, type)} - bases
    public = {n for n in public if issubclass(getattr(xpmlp.layers, n), Layer)}
    assert public == tested


@pytest.mark.parametrize("population", [None, 3])
def test_vectors_for_codes(population, tmp_path, rng):
    x = rng.integers(0, 5, (7, 4)).astype(np.float32)
    options = {"population": population, "rng": 1}
    model = Sequential(Embedding(5, 3, **options), Flatten(axes=2), Linear(12, 2, **options))
    path = export_onnx(model, tmp_path / "codes.onnx", input_shape=(4,))
    check(path, x, model.forward(x))
    x[:, [0, 2]] = rng.normal(size=(7, 2))
    model = Sequential(EmbedColumns(4, {1: (5, 3), 3: (9, 2)}, **options), Linear(7, 2, **options))
    check(export_onnx(model, path, input_shape=(4,)), x, model.forward(x))


@pytest.mark.parametrize("dim", [None, 4])
def test_waves_of_a_population(dim, tmp_path, rng):
    waves = Periodic(D, 5, dim=dim, scale=1.0, population=3, rng=1)
    model = Sequential(waves, Linear(D * waves.width, 2, population=3, rng=2))
    x = rng.normal(size=(7, D)).astype(np.float32)
    check(export_onnx(model, tmp_path / "waves.onnx"), x, model.forward(x))


@pytest.mark.parametrize("bias", [True, False])
def test_matrices_that_members_share(bias, tmp_path, rng):
    model = FullyConnectedNet([D, 8, 5, 2], population=3, shared=True, bias=bias)
    values = model.state_dict()
    model.load_state_dict({name: rng.normal(size=v.shape) for name, v in values.items()})
    x = rng.normal(size=(7, D)).astype(np.float32)
    check(export_onnx(model, tmp_path / "shared.onnx"), x, model.forward(x), tolerance=1e-5)
    x = rng.normal(size=(3, 7, D)).astype(np.float32)
    path = export_onnx(model, tmp_path / "shared.onnx", input_shape=(2, D // 2))
    check(path, x[0].reshape(7, 2, D // 2), model.forward(x[0]), tolerance=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm", "rmsnorm"])
def test_network_computes_the_same(activation, normalization, tmp_path, rng):
    model = FullyConnectedNet(
        [12, 9, 8, 5], activation=activation, normalization=normalization, dropout=0.3
    )
    x = rng.normal(size=(20, 12)).astype(np.float32)
    model.forward(x, training=True)  # moves the running statistics
    randomize(model, rng)
    check(export_onnx(model, tmp_path / "net.onnx"), x, model.forward(x), tolerance=1e-5)


def test_raw_pixels_give_probabilities(tmp_path, rng):
    model = FullyConnectedNet([28 * 28, 16, 10])
    pixels = rng.integers(0, 256, (9, 28, 28), dtype=np.uint8)
    fitted = Normalization.fit(pixels, per_feature=False)
    path = export_onnx(
        model,
        tmp_path / "pixels.onnx",
        input_shape=(28, 28),
        normalization=fitted,
        probabilities=True,
        input_dtype="uint8",
    )
    check(path, pixels, model.predict_proba(fitted.apply(pixels)))
    assert onnx.load(path).graph.output[0].name == "probabilities"


def test_normalization_of_each_feature_is_the_first_step(tmp_path, rng):
    x = rng.normal(size=(50, D)).astype(np.float32) * [1, 10, 100, 1, 5, 2] + 40
    x = x.astype(np.float32)
    fitted = Normalization.fit(x)
    model = FullyConnectedNet([D, 5, 3])
    path = export_onnx(model, tmp_path / "table.onnx", normalization=fitted)
    check(path, x, model.forward(fitted.apply(x)), tolerance=1e-5)


def test_sigmoid_network_ends_with_a_sigmoid(tmp_path, rng):
    model = FullyConnectedNet([D, 5, 3], output="sigmoid")
    x = rng.normal(size=(8, D)).astype(np.float32)
    path = export_onnx(model, tmp_path / "yes_no.onnx", probabilities=True)
    check(path, x, model.predict_proba(x))


@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm", "rmsnorm"])
def test_population_is_one_graph(normalization, tmp_path, rng):
    model = FullyConnectedNet([D, 5, 3], normalization=normalization, population=4)
    randomize(model, rng)
    x = rng.normal(size=(8, D)).astype(np.float32)
    path = export_onnx(model, tmp_path / "population.onnx")
    assert model.forward(x).shape == (4, 8, 3)
    check(path, x, model.forward(x), tolerance=1e-5)


def test_samples_as_columns_stay_columns(tmp_path, rng):
    W1, W2 = rng.normal(size=(2, D, D)).astype(np.float32)
    model = Sequential(Matmul(W1), ReLU(), Matmul(W2[:3]), Softmax(axis=-2), Log(1e-6))
    x = rng.normal(size=(D, 9)).astype(np.float32)
    path = export_onnx(model, tmp_path / "columns.onnx")
    check(path, x, model.forward(x), tolerance=1e-5)
    fitted = Normalization(rng.normal(size=D), rng.uniform(1, 2, D))
    plain = Sequential(Matmul(W1))
    path = export_onnx(plain, tmp_path / "columns.onnx", normalization=fitted, probabilities=True)
    shifted = fitted.apply(x.T).T
    check(path, x, xpmlp.ops.softmax(plain.forward(shifted), -2), tolerance=1e-5)


def test_matmul_on_each_sample(tmp_path, rng):
    model = Matmul(rng.normal(size=(4, D)).astype(np.float32))
    x = rng.normal(size=(5, D, 2)).astype(np.float32)
    path = export_onnx(model, tmp_path / "matmul.onnx", input_shape=(D, 2))
    check(path, x, model.forward(x))


def test_matmul_with_stacked_weights(tmp_path, rng):
    model = Matmul(rng.normal(size=(3, 4, D)).astype(np.float32))
    x = rng.normal(size=(D, 5)).astype(np.float32)
    check(export_onnx(model, tmp_path / "matmul.onnx"), x, model.forward(x))


def test_axes_between_batch_and_features_are_kept(tmp_path, rng):
    model = Sequential(Linear(D, 4, rng=1), LayerNorm(4), BatchNorm(4), Flatten(axes=1), ReLU())
    randomize(model, rng)
    x = rng.normal(size=(5, 3, D)).astype(np.float32)
    path = export_onnx(model, tmp_path / "sequence.onnx", input_shape=(3, D))
    check(path, x, model.forward(x), tolerance=1e-5)
    grouped = rng.normal(size=(5, 3, 2, D // 2)).astype(np.float32)
    path = export_onnx(model, tmp_path / "sequence.onnx", input_shape=(3, 2, D // 2))
    check(path, grouped, model.forward(grouped), tolerance=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-13), ("float16", 5e-3)])
@pytest.mark.parametrize("normalization", ["batchnorm", "layernorm", "rmsnorm"])
def test_dtype_of_the_model_is_kept(dtype, tolerance, normalization, tmp_path, rng):
    model = FullyConnectedNet([D, 5, 3], normalization=normalization, dtype=dtype)
    randomize(model, rng)
    x = rng.normal(size=(8, D)).astype(dtype)
    y = run_reference(export_onnx(model, tmp_path / "net.onnx"), x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, model.forward(x), rtol=tolerance, atol=tolerance)


def test_squares_that_overflow_half_precision_are_summed_wider(tmp_path):
    model = LayerNorm(4, dtype="float16")
    x = np.array([[1000.0, -1000.0, 500.0, 0.0]], dtype=np.float16)
    y = run_reference(export_onnx(model, tmp_path / "half.onnx", input_shape=(4,)), x)
    np.testing.assert_allclose(y, model.forward(x), rtol=2e-3)


def test_arrays_of_every_library_are_exported(library, tmp_path, rng):
    model = FullyConnectedNet([D, 5, 3], normalization="batchnorm")
    randomize(model, rng)
    x = rng.normal(size=(8, D)).astype(np.float32)
    expected = library.numpy(model.forward(library.array(x)))
    check(export_onnx(model, tmp_path / "net.onnx"), x, expected, tolerance=1e-5)


def test_file_is_readable_by_runtimes_of_opset_17_and_names_its_parts(tmp_path):
    model = FullyConnectedNet([D, 5, 3])
    written = onnx.load(export_onnx(model, tmp_path / "net.onnx"))
    assert written.opset_import[0].version == 17
    assert written.ir_version <= 8
    assert written.producer_name == "xpmlp"
    names = {constant.name for constant in written.graph.initializer}
    assert names == set(model.params)
    sizes = [d.dim_param or d.dim_value for d in written.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["N", D]


class Doubled(ReLU):
    """A user's own layer, which only looks like one of ours."""

    def forward(self, x, training=False):
        return 2 * super().forward(x, training)


class Reversed(Sequential):
    """A user's own container with another order."""

    def forward(self, x, training=False):
        for layer in reversed(self.layers):
            x = layer.forward(x, training)
        return x


@pytest.mark.parametrize("layer, name", [(Doubled(), "Doubled"), (Reversed(ReLU()), "Reversed")])
def test_unknown_layer_is_refused_by_name(layer, name, tmp_path):
    model = Sequential(Linear(D, D, rng=1), Residual(Sequential(Tanh(), layer)))
    with pytest.raises(ConfigError, match=rf"got {name} \(layer 1\.inner\.1\)"):
        export_onnx(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "model, options, error, words",
    [
        (ReLU(), {}, ConfigError, "input_shape"),
        (Linear(D, 2, rng=1), {"input_shape": (5,)}, ShapeError, r"expected 6 .* got \(N, 5\)"),
        (Linear(D, 2, rng=1), {"input_shape": (0, D)}, ShapeError, "sizes ≥ 1"),
        (LayerNorm(D), {"input_shape": (5,)}, ShapeError, r"expected \(…, N, 6\)"),
        (LayerNorm(D, population=2), {}, ShapeError, r"expected \(…, 2, N, 6\)"),
        (Matmul(np.ones((2, D), np.float32)), {"input_shape": (5,)}, ShapeError, "columns"),
        (Flatten(axes=2), {"input_shape": (D,)}, ShapeError, "batch axis"),
        (Residual(Linear(D, 2, rng=1)), {}, ShapeError, r"\(N, 6\), got \(N, 2\)"),
        (
            Linear(D, 2, population=3, rng=1),
            {"input_shape": (3, D)},
            ShapeError,
            "population of 3",
        ),
        (
            FullyConnectedNet([D, 1], output="identity"),
            {"probabilities": True},
            ConfigError,
            "expected a classifier",
        ),
        (Linear(D, 2, rng=1), {"input_dtype": "complex64"}, ConfigError, "uint8"),
        (
            Linear(D, 2, rng=1),
            {"normalization": Normalization(np.zeros(5), np.ones(5))},
            ShapeError,
            "Normalization",
        ),
        (
            Sequential(Linear(D, 2, rng=1), Linear(2, 2, rng=1, dtype="float64")),
            {},
            DTypeError,
            "float32, float64",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_and_leaves_no_file(model, options, error, words, tmp_path):
    with pytest.raises(error, match=words):
        export_onnx(model, tmp_path / "net.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"no_such_folder"):
        export_onnx(Linear(D, 2, rng=1), tmp_path / "no_such_folder" / "net.onnx")


def test_failed_export_leaves_the_old_file(tmp_path):
    path = export_onnx(Linear(D, 2, rng=1), tmp_path / "net.onnx")
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        export_onnx(Sequential(Linear(D, 2, rng=1), Doubled()), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_without_the_library_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "xpmlp\[onnx\]"'):
        export_onnx(Linear(D, 2, rng=1), tmp_path / "net.onnx")


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"got dict; the network of .* is estimator.model_"):
        export_onnx({}, tmp_path / "x.onnx")
