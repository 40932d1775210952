"""The one-pass kernels (ReLU, dropout, optimizer updates) against the ops' references."""

from __future__ import annotations

import re

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.ops import update as references
from xpmlp.ops.activations import relu_backward_reference, relu_reference
from xpmlp.ops.dropout import reference as dropout_reference
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


# What each rule remembers, in arrays, and its rates.
RULES = {
    "sgd": (0, {"lr": 0.1}),
    "momentum": (1, {"lr": 0.1, "momentum": 0.9, "nesterov": False}),
    "nesterov": (1, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adagrad": (1, {"lr": 0.1, "eps": 1e-8}),
    "rmsprop": (1, {"lr": 0.1, "gain": 0.1, "eps": 1e-8}),
    "adam": (2, dict(lr=0.1, gain1=0.1, gain2=0.001, correction1=0.3, correction2=0.2, eps=1e-8)),
}


def rule(name):
    """The op's name, how many arrays it remembers, its rates."""
    return ("momentum" if name == "nesterov" else name), *RULES[name]


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (1001, 1009)], ids=str)  # the last one in parallel
@pytest.mark.parametrize("name", RULES)
def test_updates(name, shape, dtype, rng):
    tolerance = {"float32": 1e-6, "float64": 1e-15}[dtype]
    op, slots, rates = rule(name)
    for w in layouts(shape, dtype, rng)[: 1 if len(shape) == 2 and shape[0] > 1000 else 4]:
        rest = [rng.random(shape).astype(dtype) for _ in range(1 + slots)]
        before = [a.copy() for a in (w, *rest)]
        assert runs_kernel(f"{op}_update", w, *rest, **rates)
        results = as_tuple(getattr(ops, f"{op}_update")(w, *rest, **rates))
        wanted = as_tuple(getattr(references, f"{op}_reference")(w, *rest, **rates))
        for ours, reference in zip(results, wanted, strict=True):
            assert ours.dtype == w.dtype and ours.shape == w.shape
            np.testing.assert_allclose(ours, reference, rtol=0, atol=4 * tolerance)
        for array, old in zip((w, *rest), before, strict=True):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("name", RULES)
def test_updates_of_the_unusual(name, rng):
    """Infinities, NaN, zero gradients and the ends of the range come out as from the reference."""
    op, slots, rates = rule(name)
    values = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 3e38, 1e-30, 1], np.float32)
    w, g = np.repeat(values, 8), np.tile(values, 8)
    rest = [np.full_like(w, 0.5) for _ in range(slots)]
    with np.errstate(all="ignore"):
        wanted = as_tuple(getattr(references, f"{op}_reference")(w, g, *rest, **rates))
    results = as_tuple(getattr(ops, f"{op}_update")(w, g, *rest, **rates))
    for ours, reference in zip(results, wanted, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_updates_in_place(name, rng):
    """A range of flat arrays, the others untouched; decay of both kinds and clipping on the way."""
    op, slots, rates = rule(name)
    arrays = [rng.random(1000).astype(np.float32) for _ in range(2 + slots)]
    w, g, *rest = (a.copy() for a in arrays)
    decay, shrink, clip = 0.02, 0.99, 0.4
    update_in_place(op, w[3:901], g[3:901], *(a[3:901] for a in rest), **rates, decay=decay,
                    shrink=shrink, clip=clip)  # fmt: skip
    old = arrays[0]
    slope = np.float32(clip) * arrays[1] + np.float32(decay) * old
    wanted = as_tuple(getattr(references, f"{op}_reference")(old, slope, *arrays[2:], **rates))
    wanted = [wanted[0] - np.float32(1 - shrink) * old, *wanted[1:]]
    for ours, whole, before in zip((w, *rest), wanted, (old, *arrays[2:]), strict=True):
        np.testing.assert_allclose(ours[3:901], whole[3:901], atol=4e-6)
        np.testing.assert_array_equal(ours[:3], before[:3])
        np.testing.assert_array_equal(ours[901:], before[901:])
    np.testing.assert_array_equal(g, arrays[1])
    plain, *kept = (a.copy() for a in (arrays[0], *arrays[2:]))
    update_in_place(op, plain, g, *kept, **rates, decay=0.0, shrink=1.0, clip=1.0)
    results = as_tuple(getattr(ops, f"{op}_update")(*arrays, **rates))
    # To rounding: a shrink of 1 that is not known when compiled is one more factor.
    for ours, same in zip((plain, *kept), results, strict=True):
        np.testing.assert_allclose(ours, same, rtol=1e-6, atol=1e-7)


def update_in_place(op, w, g, m=None, v=None, **rates):
    """The step's instruction, on flat arrays."""
    from xpmlp.kernels.numba import launching, update

    made = getattr(update, op)
    named = made.record.__annotations__["rates"](**rates)
    row = made.record.plain(1, w.size, 1, w, g, w if m is None else m, w if v is None else v,
                            np.array(named, np.float64))  # fmt: skip
    assert launching.launch(made(w.dtype), row) == 0


@pytest.mark.parametrize("name", RULES)
def test_updates_are_compiled_to_vectors(name, monkeypatch):
    """A branch in the loop, such as Python's on division by zero, makes it ten times slower."""
    from xpmlp.kernels.numba import code_cache, simd, tape, update

    if simd.target().bits < 256:
        pytest.skip("the registers of this processor have the same name for numbers and vectors")
    op, _, rates = rule(name)
    # Code from the cache cannot be looked at.
    monkeypatch.setattr(code_cache.CodeCache, "load_overload", lambda *_: None)
    monkeypatch.setattr(code_cache.CodeCache, "save_overload", lambda *_: None)
    for made in (update._IN_PLACE[op], update._NEW[op]):
        made.__wrapped__(np.dtype(np.float32))
        code = tape._alive.pop()._library.get_asm_str()
        operation = "vsqrtps" if "eps" in rates else "vmulps|vfn?m(?:add|sub)[0-9]*ps"
        assert re.search(rf"(?:{operation})\s.*%[yz]mm", code)


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
