"""``out=``: updates written into arrays that there are, on every library that can."""

from __future__ import annotations

import numpy as np
import pytest
from checks import unchanged

from xpmlp import ops
from xpmlp.errors import BackendError, ConfigError, DTypeError, ShapeError

# Slots and rates, by op.
RULES = {
    "sgd": (0, {"lr": 0.1}),
    "momentum": (1, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adagrad": (1, {"lr": 0.1, "eps": 1e-8}),
    "rmsprop": (1, {"lr": 0.1, "gain": 0.1, "eps": 1e-8}),
    "adam": (2, dict(lr=0.1, gain1=0.1, gain2=0.001, correction1=0.3, correction2=0.2, eps=1e-8)),
    "muon": (1, {"lr": 0.1, "momentum": 0.9, "nesterov": False, "steps": 5}),
}


def drawn(name, library, rng, shape=(3, 70), dtype="float32"):
    """The op, w, g and slots, rates."""
    slots, rates = RULES[name]
    arrays = [library.array(rng.random(shape).astype(dtype)) for _ in range(2 + slots)]
    return getattr(ops, f"{name}_update"), arrays, rates


def as_out(targets):
    return targets[0] if len(targets) == 1 else tuple(targets)


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def assert_same(library, results, expected):
    for ours, wanted in zip(as_tuple(results), as_tuple(expected), strict=True):
        np.testing.assert_allclose(library.numpy(ours), library.numpy(wanted), rtol=1e-5, atol=1e-6)


def skip_read_only(library):
    if library.name in ("jax", "numpy-readonly"):
        pytest.skip("arrays that cannot be written to: see the test of the error")


of_numpy = pytest.mark.parametrize("library", ["numpy"], indirect=True)


@pytest.mark.parametrize("name", RULES)
def test_in_place(name, library, rng):
    skip_read_only(library)
    op, (w, g, *slots), rates = drawn(name, library, rng)
    expected = op(w, g, *slots, **rates)
    with unchanged(g, *as_tuple(expected)):
        results = op(w, g, *slots, **rates, out=as_out([w, *slots]))
    for ours, target in zip(as_tuple(results), (w, *slots), strict=True):
        assert ours is target
    assert_same(library, results, expected)


@pytest.mark.parametrize("name", RULES)
def test_into_other_arrays(name, library, rng):
    skip_read_only(library)
    op, (w, g, *slots), rates = drawn(name, library, rng)
    targets = [library.array(np.zeros((3, 70), np.float32)) for _ in (w, *slots)]
    with unchanged(w, g, *slots):
        results = op(w, g, *slots, **rates, out=as_out(targets))
    assert all(ours is target for ours, target in zip(as_tuple(results), targets, strict=True))
    assert_same(library, results, op(w, g, *slots, **rates))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@of_numpy
def test_of_numpy_in_any_layout(name, dtype, library, rng):
    """Transposed, in steps, and results in one another's place: never by a copy that is lost."""
    op, (w, g, *slots), rates = drawn(name, library, rng, (70, 3), dtype)
    expected = op(w, g, *slots, **rates)
    for lay in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: a):
        own = [lay(a.copy()) for a in (w, *slots)]
        results = op(own[0], lay(g), *own[1:], **rates, out=as_out(own))
        assert all(ours is target for ours, target in zip(as_tuple(results), own, strict=True))
        assert_same(library, results, expected)
    own = [a.copy() for a in (w, *slots)]
    turned = own[::-1]
    results = op(own[0], g, *own[1:], **rates, out=as_out(turned))
    assert_same(library, results, expected)


@of_numpy
def test_which_kernel_runs_in_place(library, rng):
    _, arrays, rates = drawn("adam", library, rng)
    still = [np.asfortranarray(a) for a in arrays]
    explain = ops.explain
    assert "kernel numba" in explain("adam_update", *arrays, **rates, in_place=True)
    assert "lie in order" in explain("adam_update", *still, **rates, in_place=True)


@of_numpy
def test_members_with_rates_of_their_own(library, rng):
    op, arrays, rates = drawn("adam", library, rng)
    rates = rates | {"lr": np.array([[0.1], [0.2], [0.3]], np.float32)}
    expected = op(*arrays, **rates)
    w, g, m, v = arrays
    assert_same(library, op(w, g, m, v, **rates, out=(w, m, v)), expected)


@of_numpy
def test_large_arrays_by_several_threads(library, rng):
    op, arrays, rates = drawn("adam", library, rng, (1001, 1009))
    expected = op(*arrays, **rates)
    w, g, m, v = arrays
    assert_same(library, op(w, g, m, v, **rates, out=(w, m, v)), expected)


@pytest.mark.parametrize("name", RULES)
def test_arrays_that_cannot_be_written_to(name, library, rng):
    op, (w, g, *slots), rates = drawn(name, library, rng)
    if library.name == "numpy":
        (slots or [w])[-1].flags.writeable = False
    elif library.name not in ("jax", "numpy-readonly"):
        pytest.skip("this library has no such arrays")
    with (
        unchanged(w, *slots),
        pytest.raises(BackendError, match=rf"`{name}_update`.*cannot.*without out= .*new arrays"),
    ):
        op(w, g, *slots, **rates, out=as_out([w, *slots]))


@pytest.mark.parametrize("name", RULES)
def test_what_out_may_not_be(name, library, rng):
    skip_read_only(library)
    op, (w, g, *slots), rates = drawn(name, library, rng)
    own = [w, *slots]
    with unchanged(*own):
        wrong = (w,) if not slots else (w,) * (len(own) + 1)
        with pytest.raises(ConfigError, match="expected out to be"):
            op(w, g, *slots, **rates, out=wrong)
        if slots:
            with pytest.raises(ConfigError, match=r"expected out to be a tuple of \d arrays"):
                op(w, g, *slots, **rates, out=w)
        with pytest.raises(ShapeError, match=r"expected out of shape \(3, 70\), got \(2, 70\)"):
            op(w, g, *slots, **rates, out=as_out([*own[:-1], own[-1][:2, :]]))
        other = library.array(np.zeros((3, 70)))
        with pytest.raises(DTypeError, match="expected out to be float32 as w is, got float64"):
            op(w, g, *slots, **rates, out=as_out([*own[:-1], other]))
