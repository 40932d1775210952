"""The numba kernels of batch and layer norm against the ops' references in float64, and torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.ops import normalization as reference

pytest.importorskip("numba")

# x and features: sizes of 1, odd ones, rows that are no multiple of eight, columns that fill no
# vector, populations, and sizes that run in parallel (the last three).
SHAPES = [
    *(((1, 1), (1,)), ((7, 5), (5,)), ((8, 64), (64,)), ((13, 37), (37,)), ((2, 4, 9, 5), (5,))),
    *(((3, 9, 17), (3, 17)), ((2, 3, 4, 5), (2, 3, 5)), ((1, 200), (200,)), ((300, 1), (1,))),
    *(((601, 333), (333,)), ((2, 70, 1000), (2, 1000)), ((5, 30_001), (30_001,))),
]
EPS = 1e-5
TOLERANCE = {"float32": 4e-6, "float64": 5e-14}  # of each array's largest, for sums of 30,000


def numbers(shape, features, dtype, rng, mean=2.0):
    x, dy = rng.normal(mean, 3, size=shape), rng.normal(size=shape)
    gamma, beta = rng.normal(size=features), rng.normal(size=features)
    return [a.astype(dtype) for a in (dy, x, gamma, beta)]


def both_ways(name, module, dy, x, gamma, beta):
    """y, the statistics, dx, dgamma, dbeta."""
    suffix = "_reference" if module is reference else ""
    y, *saved = getattr(module, name + suffix)(x, gamma, beta, EPS)
    extra = (EPS,) if name == "batch_norm" else ()
    backward = getattr(module, f"{name}_backward{suffix}")
    return [y, *saved, *backward(dy, x, gamma, *saved, *extra)]


def assert_kernels_run(name, dy, x, gamma, beta):
    _, *saved = getattr(ops, name)(x, gamma, beta)
    assert "kernel numba" in ops.explain(name, x, gamma, beta)
    assert "kernel numba" in ops.explain(f"{name}_backward", dy, x, gamma, *saved)


def compare(name, *arrays, tolerance=None):
    assert_kernels_run(name, *arrays)
    before = [a.copy() for a in arrays]
    results = both_ways(name, ops, *arrays)
    exact = both_ways(name, reference, *(a.astype(np.float64) for a in arrays))
    dtype = arrays[1].dtype
    for number, (ours, wanted) in enumerate(zip(results, exact, strict=True)):
        assert ours.dtype == dtype and ours.shape == wanted.shape
        limit = (tolerance or TOLERANCE[dtype.name]) * max(1.0, np.abs(wanted).max())
        assert np.abs(ours - wanted).max() <= limit, number
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)
    return results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "features"), SHAPES, ids=str)
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_like_the_reference(name, shape, features, dtype, rng):
    arrays = numbers(shape, features, dtype, rng)
    # With one element there is no spread, and 1/√ε magnifies every rounding error.
    alone = 1 in (shape[-1 if name == "layer_norm" else -2],)
    tolerance = 1e-3 if alone and dtype == "float32" else 1e-11 * alone
    if max(shape) > 10_000 and dtype == "float64":
        tolerance = 1e-13  # rounding errors grow with the length of a sum
    compare(name, *arrays, tolerance=tolerance)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_any_layout(name, rng):
    dy, x, gamma, beta = numbers((40, 50), (50,), "float32", rng)
    wide = np.empty((80, 100), np.float32)
    wide[::2, ::-2] = x
    still = x.copy()
    still.flags.writeable = False
    plain = both_ways(name, ops, dy, x, gamma, beta)
    for other in (np.asfortranarray(x), wide[::2, ::-2], still):
        other_dy = np.asfortranarray(dy) if other is not still else dy
        assert_kernels_run(name, other_dy, other, gamma, beta)
        results = both_ways(name, ops, other_dy, other, gamma[::-1].copy()[::-1], beta)
        for ours, wanted in zip(results, plain, strict=True):
            np.testing.assert_array_equal(ours, wanted)
    one = x[:, :1]  # flat, it has gaps
    compare(name, dy[:, :1], one, gamma[:1], beta[:1], tolerance=1e-3)


def torch_results(name, dy, x, gamma, beta):
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
    if name == "batch_norm":
        y = f.batch_norm(leaves[0], None, None, *leaves[1:], training=True, eps=EPS)
    else:
        y = f.layer_norm(leaves[0], gamma.shape, *leaves[1:], eps=EPS)
    y.backward(torch.tensor(dy))
    return [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("shape", [(128, 256), (4096, 64), (500, 37)], ids=str)
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_as_exact_as_torch(name, shape, mean, rng):
    """Root-mean-square errors against float64, also with a mean of 10⁴ standard deviations."""
    arrays = numbers(shape, shape[1:], "float32", rng, mean)
    arrays[1] = (mean + (arrays[1] - np.float32(mean)) / 3).astype(np.float32)
    y, _, _, *gradients = both_ways(name, ops, *arrays)
    y64, _, _, *exact = both_ways(name, reference, *(a.astype(np.float64) for a in arrays))
    theirs = torch_results(name, *arrays)
    for ours, other, wanted in zip([y, *gradients], theirs, [y64, *exact], strict=True):
        error, limit = (np.sqrt(np.mean((a - wanted) ** 2)) for a in (ours, other))
        assert error <= 1.1 * limit


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_first_row_may_be_an_outlier(name, rng):
    dy, x, gamma, beta = numbers((1000, 20), (20,), "float32", rng)
    x[0] = 1e4
    compare(name, dy, x, gamma, beta, tolerance=2e-5)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_nan_and_infinity_stay_where_they_act(name, rng):
    _, x, gamma, beta = numbers((20, 30), (30,), "float32", rng)
    x[3, 4], x[5, 7] = np.nan, np.inf
    y = getattr(ops, name)(x, gamma, beta)[0]
    spoiled = np.zeros(x.shape, bool)
    if name == "batch_norm":
        spoiled[:, [4, 7]] = True
    else:
        spoiled[[3, 5], :] = True
    assert np.isfinite(y[~spoiled]).all()
    assert np.isnan(y[3, 4]) and np.isnan(y[5, 7])


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_constant_input_has_no_spread(name):
    x = np.full((30, 20), 7.1, np.float32)
    gamma, beta = np.full(20, 2, np.float32), np.full(20, 0.5, np.float32)
    y, mean, _ = getattr(ops, name)(x, gamma, beta)
    np.testing.assert_allclose(y, 0.5, atol=2e-3)
    np.testing.assert_allclose(mean, 7.1, rtol=1e-6)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_the_same_bits_however_the_work_is_cut(name, rng):
    from xpmlp.kernels.numba import launching
    from xpmlp.kernels.numba import normalization as kernels

    arrays = numbers((203, 611), (611,), "float32", rng)  # large enough for the parallel twin
    dy, x, gamma, beta = arrays
    expected = both_ways(name, ops, *arrays)
    with ThreadPoolExecutor(4) as pool:  # some of them find the threads taken, and run serially
        for results in pool.map(lambda _: both_ways(name, ops, *arrays), range(8)):
            for ours, wanted in zip(results, expected, strict=True):
                np.testing.assert_array_equal(ours, wanted)
    dtype, eps = x.dtype, float(EPS)
    y, kept, spread, dx, dgamma, dbeta = results = [np.empty(a.shape, "f4") for a in expected]
    if name == "batch_norm":
        norm = kernels.BatchNorm.plain(1, *x.shape, x, gamma, beta, eps, kept, spread, y)
        given = x, gamma, kept, spread, eps, dx, dgamma, dbeta
        back = kernels.BatchNormBackward.plain(1, *x.shape, dy, *given)
    else:
        norm = kernels.RowNorm.plain(1, *x.shape, x, gamma, beta, eps, y, kept, spread)
        given = x, gamma, kept, spread, dx, dgamma, dbeta
        back = kernels.RowNormBackward.plain(1, *x.shape, dy, *given)
    names = {
        "batch_norm": ("batch_statistics", "batch_norm_rows", "batch_norm_slopes"),
        "layer_norm": ("layer_norm_rows", "layer_norm_slopes"),
    }
    back_names = [names[name][-1], f"{name}_backward_rows"]
    calls = []
    for each in names[name][:-1]:
        calls += getattr(kernels, each)(dtype), norm
    for each in back_names:
        calls += getattr(kernels, each)(dtype), back
    for parts in (1, 3, 40):
        for array in results:
            array.fill(np.nan)
        launching.launch_in_parts(parts, *calls)
        for ours, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(ours, wanted)


def test_reasons_to_refuse(rng):
    dy, x, gamma, beta = numbers((3, 4, 5), (3, 5), "float32", rng)
    explain = ops.explain
    assert "not float32 or float64" in explain(
        "batch_norm", *(a.astype(np.float16) for a in (x, gamma, beta))
    )
    assert "differ in dtype" in explain("batch_norm", x, gamma, beta.astype(np.float64))
    assert "features have shapes" in explain("layer_norm", x, gamma, beta[0])
    assert "x has shape" in explain("layer_norm", x[:2], gamma, beta)
    assert "x has shape (2, 3, 4, 5)" in explain("batch_norm", np.stack([x, x]), gamma, beta)
    assert "dy and x" in explain("batch_norm_backward", dy[:1], x, gamma, gamma, gamma)
    rows = np.ones((3, 4, 1), np.float32)
    assert "statistics" in explain("layer_norm_backward", dy, x, gamma, rows, rows[..., 0])
    assert "kernel numba" in explain("layer_norm_backward", dy, x, gamma, rows, rows)
