"""The launchers with their kernels on the CPU (shim/) against the ops' references."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from kernels.cuda import stand_in
from kernels.cuda.stand_in import asarray
from tolerances import EPS

from xpmlp.kernels.cuda import bias_activation, cublas, elementwise, launch, linear, normalization
from xpmlp.kernels.cuda import dropout as cuda_dropout
from xpmlp.kernels.cuda import gather as cuda_gather
from xpmlp.kernels.cuda import matmul as cuda_matmul
from xpmlp.kernels.cuda import softmax_cross_entropy as cuda_loss
from xpmlp.ops.activations import FUSABLE
from xpmlp.random import Generator, permutation

# The modules, whose names in the package are those of the functions.
dropout_op, linear_op, normalization_op, loss_op = (
    import_module(f"xpmlp.ops.{name}")
    for name in ("dropout", "linear", "normalization", "softmax_cross_entropy")
)
TYPES = ("float32", "float64", "float16")
OPTIONS = {
    "label_smoothing": 0.0,
    "ignore_index": None,
    "class_weights": None,
    "z_loss": 0.0,
    "reduction": "mean",
}


@pytest.fixture
def device(monkeypatch, without_kernels, shim):
    return stand_in.put_in_place(monkeypatch, shim)


def close(actual, expected, dtype, ulps=64):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), expected, rtol=0, atol=ulps * scale * EPS[dtype]
    )


def wide(arrays):
    return [None if a is None else np.asarray(a, np.float64) for a in arrays]


@pytest.mark.parametrize("dtype", [*TYPES, "bfloat16"])
def test_without_cublas_products_go_through_cupy(device, rng, monkeypatch, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    monkeypatch.setattr(cublas, "is_missing", lambda: True)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 40, 50), (50, 20)))
    found = cuda_matmul.matmul(asarray(a), asarray(b))
    assert found.dtype == a.dtype and not device.products
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    tolerance = EPS.get(np.dtype(dtype).name, 2.0**-7)
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=0, atol=64 * tolerance)


def test_a_device_that_launches_no_cluster_reads_wide_rows_otherwise(device, rng, monkeypatch):
    """A part of a device, say; it is asked once."""
    run, refused = device.run, []
    monkeypatch.setattr(cuda_loss, "_without_clusters", set())

    def refusing(op, suffix, plan, *arguments):
        if "cluster" in plan.kernel:
            refused.append(plan.kernel)
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE")
        run(op, suffix, plan, *arguments)

    monkeypatch.setattr(launch, "run", refusing)
    logits, labels = asarray(rng.standard_normal((2, 20_000))), asarray([3, 19_999])
    with pytest.warns(UserWarning, match="clusters of blocks are not used: CUDA_ERROR"):
        loss, gradient = cuda_loss.softmax_cross_entropy(logits, labels)
    expected = loss_op.reference(logits, labels, **OPTIONS)
    close(loss, expected[0], "float64")
    close(gradient, expected[1], "float64")
    cuda_loss.softmax_cross_entropy(logits, labels)
    assert len(refused) == 1
    device.launches.clear()
    narrow = asarray(rng.standard_normal((2, 5)))
    cuda_loss.softmax_cross_entropy(narrow, asarray([3, 4]))
    assert device.launches[0] == "softmax_cross_entropy_thread_f64"


def test_what_is_no_matter_of_clusters_is_not_hidden(device, rng, monkeypatch):
    def refusing(*arguments):
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    monkeypatch.setattr(cuda_loss, "_without_clusters", set())
    monkeypatch.setattr(launch, "run", refusing)
    with pytest.raises(RuntimeError, match="ILLEGAL"):
        cuda_loss.softmax_cross_entropy(asarray(rng.standard_normal((2, 5))), asarray([3, 4]))
    assert not cuda_loss._without_clusters


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("lead", "options"),
    [
        ((), {}),
        ((), {"reduction": "sum", "z_loss": 1e-3, "label_smoothing": 0.1}),
        ((), {"reduction": "none"}),
        ((3,), {"ignore_index": 2}),
        ((3,), {"class_weights": True, "label_smoothing": "each"}),
        ((2, 2), {"class_weights": True, "ignore_index": 1, "reduction": "sum"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("targets", ["own", "shared", "uint8", "probabilities"])
def test_softmax_cross_entropy(device, rng, dtype, lead, options, targets):
    N, C = 5, 7
    options = OPTIONS | options
    logits = asarray((3 * rng.standard_normal((*lead, N, C))).astype(dtype))
    y = rng.integers(0, C, (N,) if targets == "shared" else (*lead, N))
    if targets == "uint8":
        y = y.astype(np.uint8)
    if targets == "probabilities":
        y = rng.dirichlet(np.ones(C), (*lead, N)).astype(dtype)
        options["ignore_index"] = None
    if options["class_weights"]:
        options["class_weights"] = asarray(rng.uniform(0.5, 2, C).astype(dtype))
    if options["label_smoothing"] == "each":
        options["label_smoothing"] = asarray(np.linspace(0, 0.2, 3).astype(dtype))
    y = asarray(y)
    loss, gradient, hits = cuda_loss.with_hits(logits, y, **options)
    exact = {
        n: np.asarray(v, np.float64) if isinstance(v, np.ndarray) else v for n, v in options.items()
    }
    target = np.asarray(y)
    if targets == "probabilities":
        target = target.astype(np.float64)
    expected = loss_op.reference(np.asarray(logits, np.float64), target, **exact)
    assert loss.dtype == gradient.dtype == np.dtype(dtype)
    close(loss, expected[0], dtype)
    close(gradient, expected[1], dtype)
    if targets == "probabilities":
        assert hits is None
    else:
        right = np.argmax(np.asarray(logits), -1) == np.asarray(y)
        if options["ignore_index"] is not None:
            right &= np.asarray(y) != options["ignore_index"]
        np.testing.assert_array_equal(hits, right.sum(-1))
    plain = cuda_loss.softmax_cross_entropy(logits, y, **options)
    np.testing.assert_array_equal(plain[1], gradient)


def test_padded_logits_are_read_in_place(device, rng):
    store = asarray(rng.standard_normal((6, 12)).astype(np.float32))
    labels = asarray(rng.integers(0, 9, 6))
    loss, gradient = cuda_loss.softmax_cross_entropy(store[:, :9], labels)
    expected = loss_op.reference(
        np.asarray(store[:, :9], np.float64), np.asarray(labels), **OPTIONS
    )
    close(loss, expected[0], "float32")
    close(gradient, expected[1], "float32")
    transposed = asarray(rng.standard_normal((9, 6)).astype(np.float32)).T
    expected = loss_op.reference(np.asarray(transposed, np.float64), np.asarray(labels), **OPTIONS)
    close(cuda_loss.softmax_cross_entropy(transposed, labels)[1], expected[1], "float32")


def test_a_loss_scale_multiplies_the_gradient_only(device, rng):
    logits, labels = asarray(rng.standard_normal((4, 3))), asarray(rng.integers(0, 3, 4))
    scale = asarray(np.float32([8.0]))
    loss, gradient, _ = cuda_loss.with_hits(logits, labels)
    scaled_loss, scaled, _ = cuda_loss.with_hits(logits, labels, loss_scale=scale)
    np.testing.assert_array_equal(scaled, 8 * gradient)
    assert loss == scaled_loss


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize(
    ("x_shape", "W_shape", "bias"),
    [
        ((5, 4), (4, 3), True),
        ((5, 4), (4, 3), False),
        ((2, 5, 4), (4, 3), True),
        ((5, 4), (2, 4, 3), True),
        ((2, 5, 4), (2, 4, 3), True),
        ((4,), (4, 3), True),
    ],
    ids=str,
)
def test_linear_and_its_gradients(device, rng, dtype, activation, x_shape, W_shape, bias):
    x, W = (asarray(rng.standard_normal(s).astype(dtype)) for s in (x_shape, W_shape))
    b_shape = (*W_shape[:-2], W_shape[-1])
    b = asarray(rng.standard_normal(b_shape).astype(dtype)) if bias else None
    y = linear.linear(x, W, b, activation)
    exact = linear_op.reference(*wide((x, W, b)), activation)
    close(y, exact, dtype)
    dy = asarray(rng.standard_normal(exact.shape).astype(dtype))
    y = asarray(exact.astype(dtype))
    expected = linear_op.reference_backward(*wide((dy, x, W, y)), activation, True)
    found = linear.backward(dy, x, W, y, activation, None, b_shape if bias else None, True)
    for actual, wanted in zip(found, expected, strict=True):
        if actual is None:
            assert not bias
        else:
            assert actual.dtype == np.dtype(dtype)
            close(actual, wanted, dtype)
    whole = linear.linear_backward(dy, x, W, y, activation, True)
    for actual, wanted in zip(whole, expected, strict=True):
        close(actual, wanted, dtype)
    assert linear.linear_backward(dy, x, W, y, activation, False)[0] is None


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("members", [None, 3])
def test_bias_activation_and_dropout_in_one_pass(device, rng, dtype, members):
    lead = () if members is None else (members,)
    rates = (0.3,) if members is None else (0.1, 0.0, 0.6)
    generator = Generator(7 if members is None else [7, 8, 9])
    x = asarray(rng.standard_normal((*lead, 5, 6)).astype(dtype))
    b = asarray(rng.standard_normal((*lead, 6)).astype(dtype))
    dy = asarray(rng.standard_normal(x.shape).astype(dtype))
    wide_bias = np.asarray(b, np.float64) if members is None else np.asarray(b, np.float64)[:, None]
    for activation in ("relu", "tanh", "sigmoid", None):
        y = bias_activation.forward(x, b, activation, (rates, generator, 4))
        z = np.asarray(x, np.float64) + wide_bias
        f = z if activation is None else FUSABLE[activation][0](z)
        close(y, dropout_op.reference(f, rates, generator, 4), dtype)
        dz, db = bias_activation.backward(
            dy, y, activation, (rates, generator, 4), want_bias=tuple(b.shape)
        )
        gradient = dropout_op.reference(np.asarray(dy, np.float64), rates, generator, 4)
        if activation is not None:
            gradient = FUSABLE[activation][1](gradient, z, f)
        close(dz, gradient, dtype)
        close(db, gradient.sum(axis=-2), dtype)


def test_relu_is_the_ops(device, rng):
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    x[0, 0, :3] = 0.0, np.nan, -np.inf
    x, dy = asarray(x), asarray(rng.standard_normal((3, 4, 5)).astype(np.float32))
    y = elementwise.relu(x)
    np.testing.assert_array_equal(y, np.where(np.asarray(x) < 0, 0, x))
    np.testing.assert_array_equal(elementwise.relu_backward(dy, x, y), np.where(y > 0, dy, 0))


@pytest.mark.parametrize("dtype", TYPES)
def test_dropout_draws_the_ops_masks(device, rng, dtype):
    for shape, rates, seed in (((5, 7), (0.4,), 3), ((2, 3, 5), (0.2, 0.7), [3, 2**63 + 1])):
        x, generator = asarray(rng.standard_normal(shape).astype(dtype)), Generator(seed)
        expected = dropout_op.reference(np.asarray(x), rates, generator, 9)
        np.testing.assert_array_equal(cuda_dropout.dropout(x, rates, generator, 9), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("x_shape", "members"), [((6, 5), None), ((2, 3, 5), None), ((3, 6, 5), 3)], ids=str
)
@pytest.mark.parametrize("kind", ["batch_norm", "layer_norm"])
def test_normalization(device, rng, dtype, x_shape, members, kind):
    lead = () if members is None else (members,)
    x, dy = (asarray((2 + rng.standard_normal(x_shape)).astype(dtype)) for _ in range(2))
    gamma, beta = (asarray(rng.standard_normal((*lead, 5)).astype(dtype)) for _ in range(2))
    found = getattr(normalization, kind)(x, gamma, beta, 1e-3)
    reference = getattr(normalization_op, f"{kind}_reference")
    expected = reference(*wide((x, gamma, beta)), 1e-3)
    for actual, wanted in zip(found, expected, strict=True):
        close(actual, wanted, dtype, 256)
    saved = [asarray(s.astype(found[1].dtype)) for s in expected[1:]]
    eps = (1e-3,) if kind == "batch_norm" else ()
    back = getattr(normalization, f"{kind}_backward")(dy, x, gamma, *saved, *eps)
    reference = getattr(normalization_op, f"{kind}_backward_reference")
    expected = reference(*wide((dy, x, gamma, *saved)), *eps)
    for actual, wanted in zip(back, expected, strict=True):
        assert actual.dtype == np.dtype(dtype)
        close(actual, wanted, dtype, 256)


@pytest.mark.parametrize("dtype", TYPES)
def test_small_batches_of_products_have_a_kernel(device, rng, dtype):
    a = asarray(rng.standard_normal((70, 5, 4)).astype(dtype))
    b = asarray(rng.standard_normal((70, 6, 4)).astype(dtype)).swapaxes(-1, -2)
    for x, y in ((a, b), (a, b[0]), (a[0], b), (a[::-1][::-1], b)):
        c = cuda_matmul.matmul(x, y)
        close(c, np.asarray(x, np.float64) @ np.asarray(y, np.float64), dtype)
    assert not device.products and all("batched_matmul" in name for name in device.launches)


@pytest.mark.parametrize("source", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("normalized", [None, "one", "each"])
def test_gathered_rows(device, rng, source, dtype, normalized):
    n, batch, batches = 11, 4, 3
    x = rng.integers(0, 100, (n, 2, 3)).astype(source)
    y = rng.integers(0, 10, n).astype(np.int64)
    mean = std = None
    if normalized:
        shape = () if normalized == "one" else (2, 3)
        mean, std = (asarray(rng.uniform(1, 2, shape).astype(np.float32)) for _ in range(2))
    step = asarray(np.array([4], np.int64))
    for offset, rows in ((0, 4), (1, 3)):  # batches 1 and 2 of epoch 1, the last one short
        x_out = stand_in.empty((rows, 2, 3), dtype)
        y_out = stand_in.empty((rows,), np.int64)
        cuda_gather.gather(
            *(asarray(x), asarray(y), x_out, y_out),
            mean=mean,
            std=std,
            rows=rows,
            batch=batch,
            batches=batches,
            seeds=asarray(np.array([5], np.uint64)),
            shuffle=True,
            step=step,
            offset=offset,
        )
        order = permutation(n, seed=5, epoch=1)[4 * (1 + offset) :][:rows]
        expected = x[order].astype(np.float64)
        if normalized:
            expected = (expected - np.asarray(mean)) / np.asarray(std)
        close(x_out, expected, dtype)
        np.testing.assert_array_equal(y_out, y[order])
