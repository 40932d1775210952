"""Vectors for codes: as a Linear of one-hot rows, alone and among columns of numbers."""

import numpy as np
import pytest

from xpmlp.errors import ConfigError, DataError, ShapeError
from xpmlp.layers import EmbedColumns, Embedding, Linear

V, D, P, N = 6, 3, 2, 9


@pytest.mark.parametrize("population", [None, P])
def test_it_is_linear_on_one_hot_rows(library, rng, population):
    codes = rng.integers(0, V, (N, 1))
    hot = np.eye(V)[codes[:, 0]]
    layer = Embedding(V, D, population=population, rng=3, dtype="float64")
    linear = Linear.from_arrays(layer.W)
    y = layer.forward(library.array(codes))
    expected = linear.forward(library.array(hot))
    np.testing.assert_array_equal(library.numpy(y)[..., 0, :], library.numpy(expected))
    dy = rng.normal(size=tuple(y.shape))
    layer.backward(library.array(dy))
    linear.backward(library.array(np.ascontiguousarray(dy[..., 0, :])))
    np.testing.assert_allclose(library.numpy(layer.dW), library.numpy(linear.dW), rtol=1e-13)


def test_padding_starts_at_0_and_stays(rng):
    layer = Embedding(V, D, padding=4, rng=0)
    assert not layer.W[4].any() and layer.W[[0, 5]].all()
    codes = np.array([[4, 1], [4, 4]])
    dx = layer.backward(layer.forward(codes) + 1.0)
    assert not layer.dW[4].any() and layer.dW[1].all()
    assert dx.shape == codes.shape and dx.dtype == np.float32 and not dx.any()


def test_it_starts_as_its_seed_says():
    members = Embedding(V, D, population=P, rng=7, init=0.5).W
    for p in range(P):
        np.testing.assert_array_equal(members[p], Embedding(V, D, rng=7 + p, init=0.5).W)
    assert 0.9 < Embedding(1000, 10, rng=0).W.std() < 1.1
    assert Embedding(V, D, rng=0).weight_params == ("W",)


def columns(rng, lead=()):
    """Numbers in 0 and 2, codes in 1 and 3."""
    x = rng.normal(size=(*lead, N, 4))
    x[..., 1] = rng.integers(0, V, x.shape[:-1])
    x[..., 3] = rng.integers(0, 2, x.shape[:-1])
    return x


@pytest.mark.parametrize(
    ("population", "lead"), [(None, ()), (None, (2,)), (P, ()), (P, (P,)), (P, (3, P))]
)
def test_columns_keep_their_order(library, rng, population, lead):
    x = columns(rng, lead)
    layer = EmbedColumns(4, {3: (2, 1), 1: (V, D)}, population=population, rng=0, dtype="float64")
    y = library.numpy(layer.forward(library.array(x)))
    first, second = (library.numpy(layer.params[f"{column}.W"]) for column in (1, 3))
    members = range(P) if population else [None]
    for p in members:
        own = x if p is None or not lead else x[..., p, :, :]
        got = y if p is None else y[..., p, :, :]
        tables = (first, second) if p is None else (first[p], second[p])
        vectors = [table[own[..., c].astype(int)] for table, c in zip(tables, (1, 3), strict=True)]
        parts = own[..., 0:1], vectors[0], own[..., 2:3], vectors[1]
        np.testing.assert_array_equal(got, np.concatenate(parts, axis=-1))
    assert layer.output_shape((4,)) == (6,) == y.shape[-1:]


def test_what_does_not_fit_is_an_error(rng):
    layer = EmbedColumns(4, {1: (V, D), 3: (2, 1)}, rng=0, dtype="float64")
    x = columns(rng)
    x[5, 3] = 2
    with pytest.raises(DataError, match=r"0…1, got 2.0 at \(5, 0\).*this is column 3 of x"):
        layer.forward(x)
    for shape in ((N, 3), (4,)):
        with pytest.raises(ShapeError, match=r"x of shape \(…, N, 4\)"):
            layer.forward(np.zeros(shape))
    for wrong in ({}, None, [1], {4: (2, 1)}, {-1: (2, 1)}, {"a": (2, 1)}, {0: 3}, {0: (3,)}):
        with pytest.raises(ConfigError, match="codes of columns among 0…3"):
            EmbedColumns(4, wrong)
    for options, words in (
        ({"count": 0}, "count"),
        ({"dim": 1.5}, "dim"),
        ({"population": 0}, "population"),
        ({"padding": V}, "padding to be a code in 0…5"),
        ({"padding": -1}, "padding"),
    ):
        with pytest.raises(ConfigError, match=words):
            Embedding(**{"count": V, "dim": D} | options)
