"""Numbers as waves: against the formula, far away, in populations, and where it does not fit."""

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import ConfigError, DTypeError, ShapeError
from xpmlp.layers import Periodic

N, F, K, E, P = 7, 3, 5, 4, 2


@pytest.mark.parametrize("dim", [None, E])
@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
def test_values_follow_the_formula(library, rng, dim, lead):
    layer = Periodic(F, K, dim=dim, scale=1.0, rng=0, dtype="float64")
    x = rng.normal(size=(*lead, N, F))
    y = library.numpy(layer.forward(library.array(x)))
    parts = []
    for f in range(F):
        angle = 2 * np.pi * x[..., f : f + 1] * library.numpy(layer.c)[f]
        u = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
        if dim is not None:
            W, b = library.numpy(layer.W), library.numpy(layer.b)
            u = np.maximum(u @ W[f] + b[f], 0.0)
        parts.append(u)
    np.testing.assert_allclose(y, np.concatenate(parts, axis=-1), rtol=1e-12, atol=1e-13)
    assert layer.output_shape((F,)) == y.shape[-1:]


@pytest.mark.parametrize("dim", [None, E])
@pytest.mark.parametrize("lead", [(), (P,), (3, P)])
def test_a_population_is_its_members(library, rng, dim, lead):
    options = {"dim": dim, "scale": 1.0, "dtype": "float64"}
    layer = Periodic(F, K, population=P, rng=[5, 8], **options)
    x = rng.normal(size=(*lead, N, F))
    y = layer.forward(library.array(x))
    dy = rng.normal(size=tuple(y.shape))
    layer.backward(library.array(dy))
    for p, seed in enumerate((5, 8)):
        single = Periodic(F, K, rng=seed, **options)
        own = x[..., p, :, :] if lead else x
        mine = single.forward(library.array(own))
        np.testing.assert_allclose(
            library.numpy(y)[..., p, :, :], library.numpy(mine), rtol=1e-12, atol=1e-13
        )
        single.backward(library.array(dy[..., p, :, :]))
        for name, gradient in single.grads.items():
            got = library.numpy(layer.grads[name])[p]
            np.testing.assert_allclose(got, library.numpy(gradient), rtol=1e-11, atol=1e-12)


def test_whole_turns_are_taken_off(rng):
    c = np.ones((1, 1), np.float32)
    x = np.array([[1000.25], [-4096.5], [2.0**24]], np.float32)
    y = ops.periodic(x, c)[:, 0]
    np.testing.assert_allclose(y, [[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]], atol=3e-7)


def test_it_starts_as_its_options_say():
    layer = Periodic(50, 40, dim=30, scale=0.3, rng=0)
    assert 0.28 < layer.c.std() < 0.32 and layer.weight_params == ("W",)
    assert not layer.b.any() and np.abs(layer.W).max() <= 1 / np.sqrt(80)
    assert layer.width == 30 and Periodic(2, 7).width == 14
    assert repr(layer) == "Periodic(50, 40, dim=30)"


def test_half_precision_stays_and_is_summed_wider(rng):
    layer = Periodic(F, K, dim=E, rng=0, dtype="float16")
    y = layer.forward(rng.normal(size=(N, F)).astype("float16"))
    dx = layer.backward(np.ones_like(y))
    assert {a.dtype.name for a in (y, dx, *layer.grads.values())} == {"float16"}


def test_what_does_not_fit_is_an_error():
    layer, members = Periodic(F, K, rng=0), Periodic(F, K, population=P, rng=0)
    for wrong, of in (((N, F + 1), layer), ((F,), layer), ((P + 1, N, F), members)):
        with pytest.raises(ShapeError, match=r"`periodic`: expected x of shape \(…, N, F\)"):
            of.forward(np.zeros(wrong, np.float32))
    with pytest.raises(DTypeError, match="x as an array of a floating dtype"):
        layer.forward(np.zeros((N, F), int))
    y = layer.forward(np.zeros((N, F), np.float32))
    with pytest.raises(ShapeError, match="expected dy of shape"):
        ops.periodic_backward(y, np.zeros((N, F)), layer.c, y.reshape(N, F, 2 * K))
    for options, words in (
        ({"features": 0}, "features"),
        ({"frequencies": 1.5}, "frequencies"),
        ({"dim": 0}, "dim"),
        ({"scale": 0.0}, "scale"),
        ({"population": -1}, "population"),
    ):
        with pytest.raises(ConfigError, match=words):
            Periodic(**{"features": F} | options)
