"""The numba kernel of softmax cross-entropy against the op's reference in float64."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import DataError
from xpmlp.ops.softmax_cross_entropy import reference

pytest.importorskip("numba")

# Rows shorter than a vector, longer ones, and few whose columns are shared; serial and parallel;
# sizes of 1, odd ones, and ends that fill no vector.
SHAPES = [
    *((1, 1), (7, 5), (64, 32), (65, 10), (12000, 10), (5, 33), (3, 100), (2000, 57)),
    *((70, 128), (5, 129), (700, 150)),
    *((1, 20_000), (3, 40_001), (2, 3, 4, 7), (3, 50, 41)),
]
OPTIONS = {
    "plain": {},
    "none": {"reduction": "none", "z_loss": 0.1},
    "weights": {"class_weights": True, "ignore_index": 0},
    "smoothing": {"label_smoothing": 0.1, "class_weights": True},
    "sum": {"label_smoothing": 0.2, "reduction": "sum", "z_loss": 0.01, "ignore_index": 0},
}
TOLERANCE = {"float32": 3e-6, "float64": 1e-13}  # of values around 1; sums of many grow with them


def options_for(name, classes, dtype, rng):
    options = dict(OPTIONS[name])
    if options.get("class_weights"):
        options["class_weights"] = (rng.random(classes) + 0.1).astype(dtype)
    return options


def wide(options):
    full = dict(label_smoothing=0.0, ignore_index=None, class_weights=None, z_loss=0.0)
    full |= {"reduction": "mean"} | options
    if full["class_weights"] is not None:
        full["class_weights"] = full["class_weights"].astype(np.float64)
    return full


def compare(x, targets, options):
    assert "kernel numba" in ops.explain("softmax_cross_entropy", x, targets, **options)
    before = x.copy()
    loss, gradient = ops.softmax_cross_entropy(x, targets, **options)
    exact_targets = targets.astype(np.float64) if targets.dtype.kind == "f" else targets
    exact_loss, exact_gradient = reference(x.astype(np.float64), exact_targets, **wide(options))
    assert loss.dtype == gradient.dtype == x.dtype
    assert np.shape(loss) == np.shape(exact_loss)
    scale = np.maximum(1.0, np.abs(exact_loss))
    tolerance = TOLERANCE[x.dtype.name]
    assert np.max(np.abs(loss - exact_loss) / scale) < 10 * tolerance
    assert np.max(np.abs(gradient - exact_gradient)) < tolerance * max(1, np.abs(gradient).max())
    np.testing.assert_array_equal(x, before)
    return loss, gradient


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_class_numbers(shape, dtype, rng):
    x = (rng.normal(size=shape) * 4).astype(dtype)
    for number, name in enumerate(OPTIONS):
        y = rng.integers(0, shape[-1], shape[:-1]).astype(["int64", "int32"][number % 2])
        y[..., ::3] = 0
        compare(x, y, options_for(name, shape[-1], dtype, rng))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (2000, 57), (2, 3, 4, 7)], ids=str)
def test_probabilities(shape, dtype, rng):
    x = (rng.normal(size=shape) * 4).astype(dtype)
    q = rng.random(shape).astype(dtype)
    q /= q.sum(axis=-1, keepdims=True)
    compare(x, q, {})
    options = options_for("smoothing", shape[-1], dtype, rng) | {"z_loss": 0.1}
    compare(x, q, options)
    compare(x, np.ascontiguousarray(q[(0,) * (len(shape) - 2)]), {"reduction": "none"})


@pytest.mark.parametrize("shared", [True, False])
def test_each_problem_with_its_own_label_smoothing(shared, rng):
    x = rng.normal(size=(3, 50, 7)).astype(np.float32)
    y = rng.integers(0, 7, 50 if shared else (3, 50))
    smoothing = np.array([0.0, 0.1, 0.3], np.float32)
    together = compare(x, y, {"label_smoothing": smoothing})
    for p in range(3):
        alone = compare(x[p], y if shared else y[p], {"label_smoothing": float(smoothing[p])})
        for all_of_them, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(all_of_them[p], one)


def test_targets_shared_by_all_problems(rng):
    x = rng.normal(size=(3, 50, 7)).astype(np.float32)
    y = rng.integers(0, 7, 50)
    shared = compare(x, y, {"ignore_index": 2})
    spread = compare(x, np.broadcast_to(y, (3, 50)), {"ignore_index": 2})
    for one, other in zip(shared, spread, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("classes", [10, 100, 200])
def test_strange_layouts(classes, rng):
    base = rng.normal(size=(2 * 40, 2 * classes)).astype(np.float32)
    y = rng.integers(0, classes, 80)[::2]
    for x in (base[::2, ::2], base[::-2, classes:][:40], base.T[:classes, :40].T):
        assert not x.flags.c_contiguous
        compare(x, y, {})
    x = np.ascontiguousarray(base[::2, ::2])
    x.flags.writeable = False
    compare(x, y, {})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [5, 50, 300, 20_000])
def test_extreme_logits(classes, dtype, rng):
    x = rng.choice([-1e4, 1e4], size=(3, classes)).astype(dtype)
    y = np.array([0, 1, 2])
    compare(x, y, {})
    only = np.full((3, classes), -np.inf, dtype)
    only[np.arange(3), y] = 2.0
    loss, gradient = compare(only, y, {})
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("classes", [5, 50, 300, 20_000])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_nan_spoils_its_row_only(classes, sign, rng):
    x = rng.normal(size=(3, classes)).astype(np.float32)
    x[1, 3] = np.copysign(np.nan, sign)
    losses, gradient = ops.softmax_cross_entropy(x, np.zeros(3, int), reduction="none")
    assert np.isnan(losses[1]) and np.isnan(gradient[1]).all()
    assert np.isfinite(losses[[0, 2]]).all() and np.isfinite(gradient[[0, 2]]).all()
    losses, gradient = ops.softmax_cross_entropy(
        x, np.array([0, -7, 0]), reduction="none", ignore_index=-7
    )
    assert losses[1] == 0 and not gradient[1].any()


@pytest.mark.parametrize("classes", [5, 50, 300, 20_000])
def test_all_rows_ignored_is_zero(classes):
    x = np.ones((4, classes), np.float32)
    loss, gradient = ops.softmax_cross_entropy(x, np.full(4, -100), ignore_index=-100)
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("label", [-1, "C", 1 << 40])
@pytest.mark.parametrize("classes", [10, 200])
@pytest.mark.parametrize("ignore_index", [None, -100])
def test_class_number_out_of_range_is_named(label, classes, ignore_index, rng):
    y = np.zeros(6, np.int64)
    y[4] = label = classes if label == "C" else label
    for logits in (rng.normal(size=(6, classes)), rng.normal(size=(2, 6, classes))):
        with pytest.raises(DataError, match=f"got {label} in row 4"):
            ops.softmax_cross_entropy(logits, y, ignore_index=ignore_index)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint64"])
def test_class_numbers_of_any_width(dtype, rng):
    x, y = rng.normal(size=(40, 10)), rng.integers(0, 10, 40)
    expected = ops.softmax_cross_entropy(x, y)
    for ours, wanted in zip(ops.softmax_cross_entropy(x, y.astype(dtype)), expected, strict=True):
        np.testing.assert_array_equal(ours, wanted)
    y[7] = 12
    with pytest.raises(DataError, match="got 12 in row 7"):
        ops.softmax_cross_entropy(x, y.astype(dtype))


def test_gradient_is_as_exact_as_torchs(rng):
    torch = pytest.importorskip("torch")
    for shape in ((512, 10), (256, 100), (256, 200), (8, 20_000)):
        x = (rng.normal(size=shape) * 5).astype(np.float32)
        y = rng.integers(0, shape[1], shape[0])
        _, exact = ops.softmax_cross_entropy(x.astype(np.float64), y)
        tensor = torch.tensor(x, requires_grad=True)
        torch.nn.functional.cross_entropy(tensor, torch.tensor(y)).backward()
        _, gradient = ops.softmax_cross_entropy(x, y)
        error = np.sqrt(np.mean((gradient - exact) ** 2))
        assert error <= 1.05 * np.sqrt(np.mean((tensor.grad.numpy() - exact) ** 2))


def test_result_is_the_same_every_time_and_from_every_thread(rng):
    x = rng.normal(size=(20_000, 40)).astype(np.float32)  # large enough for the parallel twin
    y = rng.integers(0, 40, 20_000)
    loss, gradient = ops.softmax_cross_entropy(x, y)
    with ThreadPoolExecutor(8) as pool:
        for other_loss, other in pool.map(lambda _: ops.softmax_cross_entropy(x, y), range(24)):
            assert other_loss == loss
            np.testing.assert_array_equal(other, gradient)


def _loss_in_child(arguments):
    return float(ops.softmax_cross_entropy(*arguments)[0])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads, which is the point
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX's own word on it
def test_forked_children_compute_too(rng):
    x, y = rng.normal(size=(20_000, 40)), rng.integers(0, 40, 20_000)
    expected = _loss_in_child((x, y))  # the parent's threads run now
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_loss_in_child, [(x, y)] * 4).get(60) == [expected] * 4


def test_selection_and_its_reasons(rng):
    x, y = rng.normal(size=(4, 3)), np.zeros(4, int)
    explain = ops.explain
    name = "softmax_cross_entropy"
    assert explain(name, x, y) == f"{name} on numpy: kernel numba (fits these shapes and dtypes)"
    assert "not float32 or float64" in explain(name, x.astype(np.float16), y)
    assert "targets are float32" in explain(name, x, x.astype(np.float32))
    ops.softmax_cross_entropy(x, y)
    y[0] = 99
    with ops.without_kernels():
        assert "(without_kernels)" in explain(name, x, y)
        with pytest.raises(DataError, match="got 99 in row 0"):
            ops.softmax_cross_entropy(x, y)
    with pytest.raises(DataError, match="got 99 in row 0"):
        ops.softmax_cross_entropy(x, y)


def test_without_numba_the_reference_runs():
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'numba' else real(n, *a)\n"
        "import numpy as np; from xpmlp import ops\n"
        "x, y = np.ones((2, 3)), np.array([0, 1])\n"
        "print(ops.explain('softmax_cross_entropy', x, y)); ops.softmax_cross_entropy(x, y)\n"
        "assert 'numba' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 'pip install "xpmlp[fast]"' in done.stdout


@pytest.mark.parametrize("threads", ["1", "2", "zero"])
def test_number_of_threads_from_the_environment(threads):
    code = (
        "import numpy as np; from xpmlp import ops\n"
        "x = np.random.default_rng(0).normal(size=(20000, 40))\n"
        "print(ops.softmax_cross_entropy(x, np.zeros(20000, int))[0])\n"
        "from xpmlp.kernels.numba.threads import parallel_threads; print(parallel_threads())"
    )
    import os

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"XPMLP_NUM_THREADS": threads},
    )
    if threads == "zero":
        assert "XPMLP_NUM_THREADS" in done.stderr and done.returncode == 1
    else:
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[1]) <= int(threads)
