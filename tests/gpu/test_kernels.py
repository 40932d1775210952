"""Every kernel on the device against its op's reference in float64, outputs poisoned first.

Tests whose ids say ``smallest`` also run under compute-sanitizer.
"""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import EPS

import xpmlp
from xpmlp import ops
from xpmlp.random import Generator, permutation

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]
FLOATS = ("float32", "float64", "float16", "bfloat16")
ULPS = EPS | {"bfloat16": 2.0**-7}


def on_device(cupy, values, dtype):
    if dtype == "bfloat16":
        return cupy.asarray(np.asarray(values, np.float32)).astype(
            pytest.importorskip("ml_dtypes").bfloat16
        )
    return cupy.asarray(np.asarray(values, dtype))


def exact(array):
    return None if array is None else xpmlp.to_numpy(array).astype(np.float64)


def close(actual, expected, dtype, ulps=64):
    actual, expected = exact(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=ulps * scale * ULPS[dtype])


def expected_of(op, *arrays, **options):
    """What the reference gives in float64, without NumPy's kernels, which take long to build."""
    with ops.without_kernels():
        return getattr(ops, op)(*map(exact_floats, arrays), **options)


def exact_floats(value):
    return exact(value) if hasattr(value, "dtype") and value.dtype.kind in "fV" else value


def runs_kernel(op, *arrays, **options):
    assert "kernel cuda" in ops.explain(op, *arrays, **options)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("rows", "classes"),
    [(5, 3), (300, 10), (130, 33), (64, 100), (33, 1000), (9, 1025), (7, 5000), (5, 50257),
     (3, 128256), (2, 250000)],
    ids=lambda n: "smallest" if n == 5 else str(n),
)  # fmt: skip
def test_softmax_cross_entropy_of_every_width(cupy, rng, dtype, rows, classes):
    logits = on_device(cupy, 3 * rng.standard_normal((rows, classes)), dtype)
    labels = rng.integers(0, classes, rows)
    options = {"label_smoothing": 0.1, "ignore_index": int(labels[0]), "z_loss": 1e-4}
    plain = dict(ops_defaults(), **options)
    runs_kernel("softmax_cross_entropy", logits, cupy.asarray(labels), **plain)
    loss, gradient = ops.softmax_cross_entropy(logits, cupy.asarray(labels), **options)
    expected = expected_of("softmax_cross_entropy", logits, labels, **options)
    close(loss, expected[0], dtype)
    close(gradient, expected[1], dtype)


def ops_defaults():
    return {
        "label_smoothing": 0.0,
        "ignore_index": None,
        "class_weights": None,
        "z_loss": 0.0,
        "reduction": "mean",
    }


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_softmax_cross_entropy_of_unaligned_rows(cupy, rng, dtype, offset):
    store = on_device(cupy, rng.standard_normal(40 * 1003 + offset), dtype)
    logits = store[offset:].reshape(40, 1003)
    labels = rng.integers(0, 1003, 40)
    loss, gradient = ops.softmax_cross_entropy(logits, cupy.asarray(labels))
    expected = expected_of("softmax_cross_entropy", logits, labels)
    close(loss, expected[0], dtype)
    close(gradient, expected[1], dtype)


def test_hostile_logits(cupy):
    logits = np.full((4, 50), -np.inf)
    logits[:, 7] = 1.0
    logits[1, 3] = 1e4
    logits[2] = -1e4
    labels = np.array([7, 3, 0, 7])
    for dtype in ("float32", "float64"):
        device = on_device(cupy, logits, dtype)
        loss, gradient = ops.softmax_cross_entropy(device, cupy.asarray(labels))
        expected = expected_of("softmax_cross_entropy", logits, labels)
        close(loss, expected[0], dtype)
        close(gradient, expected[1], dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((4, 5), (5, 3)),
        ((128, 784), (784, 256)),
        ((100, 8, 8), (100, 8, 8)),
        ((100, 31, 17), (100, 17, 5)),
        ((33, 100, 64), (33, 64, 70)),
        ((6, 40, 64), (64, 50)),
        ((40, 64), (6, 64, 50)),
        ((2, 3, 40, 30), (3, 30, 20)),
    ],
    ids=lambda shape: "smallest" if shape == (4, 5) else str(shape),
)
def test_matmul(cupy, rng, dtype, a_shape, b_shape, transposed):
    a, b = (on_device(cupy, rng.standard_normal(s) / 4, dtype) for s in (a_shape, b_shape))
    if "a" in transposed:
        a = cupy.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    if "b" in transposed:
        b = cupy.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    runs_kernel("matmul", a, b)
    close(ops.matmul(a, b), exact(a) @ exact(b), dtype)


def test_tf32_rounds_and_only_inside(cupy, rng):
    from xpmlp.kernels.cuda import cublas, launch

    if launch.device().capability < 80:
        pytest.skip("no TF32 before compute capability 8.0")
    a = on_device(cupy, rng.standard_normal((512, 512)), "float32")
    true = exact(a) @ exact(a)
    with cublas.tensor_float_32():
        rough = np.abs(exact(ops.matmul(a, a)) - true).max()
    fine = np.abs(exact(ops.matmul(a, a)) - true).max()
    assert fine < 1e-4 * np.abs(true).max() < 100 * rough and rough > 10 * fine


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize(
    ("x_shape", "W_shape"),
    [
        ((5, 4), (4, 3)),
        ((512, 784), (784, 512)),
        ((3, 100, 20), (3, 20, 33)),
        ((9, 20), (3, 20, 7)),
    ],
    ids=lambda shape: "smallest" if shape in ((5, 4), (4, 3)) else str(shape),
)
def test_linear_and_its_gradients(cupy, rng, dtype, activation, x_shape, W_shape):
    x, W = (on_device(cupy, rng.standard_normal(s) / 5, dtype) for s in (x_shape, W_shape))
    b = on_device(cupy, rng.standard_normal((*W_shape[:-2], W_shape[-1])), dtype)
    runs_kernel("linear", x, W, b, activation=activation)
    y = ops.linear(x, W, b, activation)
    close(y, expected_of("linear", x, W, b, activation), dtype)
    dy = on_device(cupy, rng.standard_normal(y.shape), dtype)
    found = ops.linear_backward(dy, x, W, y, activation)
    expected = expected_of("linear_backward", dy, x, W, y, activation)
    for actual, wanted in zip(found, expected, strict=True):
        close(actual, wanted, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["batch_norm", "layer_norm"])
@pytest.mark.parametrize(
    ("shape", "members"),
    [((5, 7), None), ((513, 300), None), ((4, 65, 1025), None), ((3, 50, 33), 3)],
    ids=lambda s: "smallest" if s == (5, 7) else str(s),
)
def test_normalization(cupy, rng, dtype, kind, shape, members):
    lead = () if members is None else (members,)
    x, dy = (on_device(cupy, 2 + rng.standard_normal(shape), dtype) for _ in range(2))
    gamma, beta = (on_device(cupy, rng.standard_normal((*lead, shape[-1])), dtype) for _ in "gb")
    runs_kernel(kind, x, gamma, beta)
    found = getattr(ops, kind)(x, gamma, beta)
    expected = expected_of(kind, x, gamma, beta)
    for actual, wanted in zip(found, expected, strict=True):
        close(actual, wanted, dtype, 512)
    back = getattr(ops, f"{kind}_backward")(dy, x, gamma, *found[1:])
    expected = expected_of(f"{kind}_backward", dy, x, gamma, *found[1:])
    for actual, wanted in zip(back, expected, strict=True):
        close(actual, wanted, dtype, 512)


@pytest.mark.parametrize("dtype", ("float32", "float64", "float16"))
@pytest.mark.parametrize("shape", [(3, 5), (1000, 33), (2, 70001)], ids=["smallest", "b", "c"])
def test_dropout_draws_the_masks_of_every_library(cupy, rng, dtype, shape):
    x = on_device(cupy, rng.standard_normal(shape), dtype)
    for p, seed in ((0.3, 5), ([0.2, 0.6], [1, 2**64 - 1])):
        if seed != 5 and shape[0] != 2:
            continue
        generator = Generator(seed)
        found = xpmlp.to_numpy(ops.dropout(x, p, generator, 3))
        with ops.without_kernels():
            wanted = ops.dropout(xpmlp.to_numpy(x), p, generator, 3)
        np.testing.assert_array_equal(found, wanted)


def test_relu_smallest(cupy):
    x = cupy.asarray(np.array([[-1.0, 0.0, 2.0], [np.nan, -np.inf, np.inf]], np.float32))
    y = ops.relu(x)
    np.testing.assert_array_equal(xpmlp.to_numpy(y), [[0, 0, 2], [np.nan, 0, np.inf]])
    back = ops.relu_backward(cupy.ones_like(x), x, y)
    np.testing.assert_array_equal(xpmlp.to_numpy(back), [[0, 0, 1], [0, 0, 1]])


@pytest.mark.parametrize("drop_last", [True, False])
def test_resident_batches_are_those_of_the_loader(cupy, rng, drop_last):
    from xpmlp.data import Batches, Normalization
    from xpmlp.data.resident import ResidentBatches

    x, y = rng.integers(0, 256, (1003, 7, 5), dtype=np.uint8), rng.integers(0, 10, 1003)
    options = dict(batch_size=64, seed=11, drop_last=drop_last)
    plain = Batches(x, y, normalization=Normalization(np.asarray(3.0), np.asarray(7.0)), **options)
    resident = ResidentBatches(cupy.asarray(x), cupy.asarray(y), mean=3.0, std=7.0, **options)
    for (xa, ya), (xb, yb) in zip(plain.epoch(4), resident.epoch(4), strict=True):
        np.testing.assert_allclose(xpmlp.to_numpy(xb), xpmlp.to_numpy(xa), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(xpmlp.to_numpy(yb), xpmlp.to_numpy(ya))


def test_streamed_batches_arrive_whole(cupy, rng):
    from xpmlp.data.resident import StreamedBatches

    x, y = rng.standard_normal((1000, 2000)).astype(np.float32), rng.integers(0, 10, 1000)
    streamed = StreamedBatches(x, y, batch_size=64, seed=2)
    order = permutation(1000, seed=2, epoch=1)
    for index, (xb, yb) in enumerate(streamed.epoch(1)):
        rows = order[index * 64 : index * 64 + 64]
        busy = xb @ xb.T  # work that the next transfer runs beside
        np.testing.assert_array_equal(xpmlp.to_numpy(xb), x[rows])
        np.testing.assert_array_equal(xpmlp.to_numpy(yb), y[rows])
        del busy
    assert index == 15
