"""The one-pass kernels (ReLU, dropout, optimizer updates) against the ops' references."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.ops.activations import relu_backward_reference, relu_reference
from xpmlp.ops.dropout import reference as dropout_reference
from xpmlp.ops.update import adam_reference, momentum_reference
from xpmlp.random import Generator

pytest.importorskip("numba")

DTYPES = ("float32", "float64")
SHAPES = [(1,), (7, 5), (3, 4, 5), (130, 1001), (0, 3)]


def layouts(shape, dtype, rng):
    """The same values as they may lie in memory: plain, transposed, strided, read-only."""
    x = rng.normal(size=shape).astype(dtype)
    wide = np.empty((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
    wide[...] = x
    still = x.copy()
    still.flags.writeable = False
    return x, np.asfortranarray(x), wide, still


def runs_kernel(op, *arrays, **options):
    return "kernel numba" in ops.explain(op, *arrays, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu_and_its_backward(shape, dtype, rng):
    dy = rng.normal(size=shape).astype(dtype)
    for x in layouts(shape, dtype, rng):
        assert runs_kernel("relu", x)
        y = ops.relu(x)
        np.testing.assert_array_equal(y, relu_reference(x))
        dx = ops.relu_backward(dy, x, y)
        assert runs_kernel("relu_backward", dy, x, y)
        np.testing.assert_array_equal(dx, relu_backward_reference(dy, x, y))
        assert y.dtype == dx.dtype == x.dtype


def test_relu_of_the_unusual():
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
    y = ops.relu(x)
    np.testing.assert_array_equal(y, [np.nan, np.nan, np.inf, 0, 0, 0])
    np.testing.assert_array_equal(ops.relu_backward(x, x, y), [0, 0, np.inf, 0, 0, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("seeds", "shape", "rates"),
    [
        (3, (7, 5), 0.3),
        (3, (1,), 0.5),
        ((1 << 64) - 1, (130, 1001), 0.2),
        (4, (700, 1001), 0.9),  # large enough for the parallel twin
        ([1, 2, 3], (3, 5, 7), (0.1, 0.5, 0.0)),
        ([5, 6], (2, 1025), 0.5),
    ],
    ids=["odd", "one", "seed", "parallel", "rates", "population"],
)
def test_dropout_has_the_references_mask(seeds, shape, rates, dtype, rng):
    generator = Generator(seeds, stream=9)
    for step in (1, (1 << 32) - 1):
        for x in layouts(shape, dtype, rng):
            y = ops.dropout(x, rates, generator, step)
            all_rates = rates if isinstance(rates, tuple) else (rates,)
            assert runs_kernel("dropout", x, rates=all_rates)
            np.testing.assert_array_equal(y, dropout_reference(x, all_rates, generator, step))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (1001, 1009)], ids=str)  # the last one in parallel
def test_updates(shape, dtype, rng):
    tolerance = {"float32": 1e-6, "float64": 1e-15}[dtype]
    for w in layouts(shape, dtype, rng)[: 1 if len(shape) == 2 and shape[0] > 1000 else 4]:
        g, m, v = (rng.random(shape).astype(dtype) for _ in range(3))
        before = [a.copy() for a in (w, g, m, v)]
        options = dict(lr=0.1, momentum=0.9)
        for nesterov in (False, True):
            chosen = options | {"nesterov": nesterov}
            assert runs_kernel("momentum_update", w, g, m, **chosen)
            pairs = zip(
                ops.momentum_update(w, g, m, **chosen),
                momentum_reference(w, g, m, **chosen),
                strict=True,
            )
            for ours, reference in pairs:
                np.testing.assert_allclose(ours, reference, rtol=0, atol=4 * tolerance)
        options = dict(lr=0.1, gain1=0.1, gain2=0.001, correction1=0.3, correction2=0.2, eps=1e-8)
        assert runs_kernel("adam_update", w, g, m, v, **options)
        pairs = zip(
            ops.adam_update(w, g, m, v, **options),
            adam_reference(w, g, m, v, **options),
            strict=True,
        )
        for ours, reference in pairs:
            assert ours.dtype == w.dtype
            np.testing.assert_allclose(ours, reference, rtol=0, atol=4 * tolerance)
        for array, old in zip((w, g, m, v), before, strict=True):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("dtype", DTYPES)
def test_members_take_the_steps_they_would_take_alone(dtype, rng):
    w, g, m, v = (rng.random((3, 5, 7)).astype(dtype) for _ in range(4))
    lr, gain = (rng.random((3, 1, 1)).astype(dtype) for _ in range(2))
    shared = dict(gain2=0.001, correction1=0.3, correction2=0.2, eps=1e-8)
    assert runs_kernel("adam_update", w, g, m, v, lr=lr, gain1=gain, **shared)
    together = ops.adam_update(w, g, m, v, lr=lr, gain1=gain, **shared)
    for p in range(3):
        own = dict(lr=float(lr[p, 0, 0]), gain1=float(gain[p, 0, 0]), **shared)
        for all_of_them, alone in zip(
            together, ops.adam_update(w[p], g[p], m[p], v[p], **own), strict=True
        ):
            np.testing.assert_array_equal(all_of_them[p], alone)


def test_reasons_to_refuse(rng):
    x = rng.normal(size=(3, 4))
    explain = ops.explain
    assert "not float32 or float64" in explain("relu", x.astype(np.float16))
    assert "differ in dtype" in explain("relu_backward", x, x, x.astype(np.float32))
    assert "differ in shape" in explain("relu_backward", x, x, x[:1])
    rates = np.full((3,), 0.1)
    assert "lr has shape" in explain("momentum_update", x, x, x, lr=rates, momentum=0.5)
