"""Batches: every row once an epoch, the same order everywhere, converted as promised."""

import warnings
from itertools import pairwise

import numpy as np
import pytest

from xpmlp.backend import dtype_name, has_wide_types, to_numpy, use_backend
from xpmlp.data import Batches, Normalization
from xpmlp.errors import ConfigError, DataError, DTypeError, ShapeError
from xpmlp.random import permutation

N = 23
X = np.random.default_rng(0).integers(0, 256, (N, 4, 2), dtype=np.uint8)
Y = np.arange(N) % 5


def rows_of(batches, epoch):
    """All of an epoch as NumPy: inputs, targets."""
    pairs = [(to_numpy(x), to_numpy(y)) for x, y in batches.epoch(epoch)]
    return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("epoch", [0, 3])
def test_order_is_the_permutation_of_seed_and_epoch_on_every_backend(backend, seed, epoch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = Batches(X, Y, batch_size=5, seed=seed)
        list(batches.epoch(99))  # what came before does not matter
        x, y = rows_of(batches, epoch)
    order = permutation(N, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(x, X[order].astype(np.float32))
    np.testing.assert_array_equal(y, Y[order])


def test_orders_differ_between_epochs_and_seeds():
    one = rows_of(Batches(X, Y, batch_size=5, seed=0), 0)[0].tolist()
    assert one != rows_of(Batches(X, Y, batch_size=5, seed=0), 1)[0].tolist()
    assert one != rows_of(Batches(X, Y, batch_size=5, seed=1), 0)[0].tolist()


def test_without_shuffle_rows_come_as_stored(backend):
    x, y = rows_of(Batches(X, Y, batch_size=5, shuffle=False), 4)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("size", "drop", "expected"),
    [
        (5, False, [5, 5, 5, 5, 3]),
        (5, True, [5, 5, 5, 5]),
        (23, True, [23]),
        (100, False, [23]),
        (1, False, [1] * 23),
    ],
)
def test_batch_sizes_and_length(shuffle, size, drop, expected):
    batches = Batches(X, Y, batch_size=size, shuffle=shuffle, drop_last=drop)
    assert len(batches) == len(expected)
    sizes = [(x.shape[0], y.shape[0]) for x, y in batches.epoch(0)]
    assert sizes == [(n, n) for n in expected]


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float64", "int64"])
def test_normalized_and_converted(backend, per_feature, dtype):
    x = X.astype(dtype)
    fitted = Normalization.fit(x, per_feature=per_feature)
    batches = Batches(x, Y, batch_size=5, shuffle=False, normalization=fitted)
    got = [xb for xb, _ in batches.epoch(0)]
    assert all(dtype_name(xb.dtype) == "float32" for xb in got)
    np.testing.assert_allclose(
        np.concatenate([to_numpy(xb) for xb in got]),
        fitted.apply(x, "float64"),
        rtol=1e-5,
        atol=1e-5,
    )


def test_bytes_stay_bytes_in_memory(backend):
    batches = Batches(X, batch_size=5, normalization=Normalization.fit(X, per_feature=False))
    assert dtype_name(batches.x.dtype) == "uint8"
    assert all(y is None for _, y in batches.epoch(0))


def test_float_targets_follow_the_dtype_and_labels_stay_integers(backend):
    wide = has_wide_types(backend.xp)
    for dtype in ("float32", "float64") if wide else ("float32",):
        batches = Batches(X, Y * 0.5, batch_size=5, dtype=dtype)
        xb, yb = next(batches.epoch(0))
        assert dtype_name(xb.dtype) == dtype_name(yb.dtype) == dtype
    _, yb = next(Batches(X, Y, batch_size=5).epoch(0))
    assert dtype_name(yb.dtype) == ("int64" if wide else "int32")


def test_dtype_that_the_backend_cannot_hold_fails_at_once():
    jax = pytest.importorskip("jax")
    with (
        jax.enable_x64(False),
        use_backend("jax"),
        pytest.raises(DTypeError, match="32-bit mode"),
    ):
        Batches(X.astype(float), batch_size=5, dtype="float64")


def test_jax_in_32_bit_mode_keeps_order_and_values():
    jax = pytest.importorskip("jax")
    x = (1_700_000_000 + np.arange(N)).astype(np.int64)[:, None]
    fitted = Normalization.fit(x)
    with jax.enable_x64(False), use_backend("jax"), warnings.catch_warnings():
        warnings.simplefilter("error")
        got, y = rows_of(Batches(x, Y, batch_size=5, seed=3, normalization=fitted), 1)
    order = permutation(N, seed=3, epoch=1)
    np.testing.assert_array_equal(y, Y[order])
    np.testing.assert_allclose(got, fitted.apply(x, "float64")[order], rtol=1e-5, atol=1e-6)


def test_bfloat16_from_host_arrays():
    pytest.importorskip("torch")
    with use_backend("torch"):
        for x in (X, X.astype(np.float64)):
            fitted = Normalization.fit(x)
            xb, yb = next(Batches(x, Y * 0.5, batch_size=5, shuffle=False, normalization=fitted,
                                  dtype="bfloat16").epoch(0))  # fmt: skip
            assert dtype_name(xb.dtype) == dtype_name(yb.dtype) == "bfloat16"
            expected = fitted.apply(x, "float32")[:5]
            np.testing.assert_allclose(to_numpy(xb.float()), expected, atol=0.05)


def test_wide_numbers_are_normalized_before_they_are_narrowed(backend):
    for dtype in (np.float64, np.int64):
        x = (1_700_000_000 + np.arange(8)).astype(dtype)[:, None]
        batches = Batches(x, batch_size=8, shuffle=False, normalization=Normalization.fit(x))
        (xb, _), = batches.epoch(0)  # fmt: skip
        np.testing.assert_allclose(
            to_numpy(xb)[:, 0], (np.arange(8) - 3.5) / np.arange(8).std(), rtol=1e-5
        )


def test_arrays_of_the_backend_are_taken_where_they_are(backend):
    x = backend.xp.asarray(X)
    got, _ = rows_of(Batches(x, backend.xp.asarray(Y), batch_size=5, shuffle=False), 0)
    np.testing.assert_array_equal(got, X)


def test_inputs_are_not_written_to():
    x, y = X.copy(), Y.copy()
    x.setflags(write=False)
    y.setflags(write=False)
    list(Batches(x, y, batch_size=5, normalization=Normalization.fit(x)).epoch(0))


@pytest.mark.parametrize("size", [0, -3, 2.5, "5", True, None])
def test_bad_batch_size(size):
    with pytest.raises(ConfigError, match="`batch_size`"):
        Batches(X, Y, batch_size=size)


def test_other_bad_input():
    with pytest.raises(DataError, match="at least one row"):
        Batches(X[:0], Y[:0], batch_size=5)
    with pytest.raises(DataError, match="at least one row"):
        Batches(np.float32(1), batch_size=5)
    with pytest.raises(ShapeError, match="each of the 23 rows"):
        Batches(X, Y[:-1], batch_size=5)
    with pytest.raises(ConfigError, match="no batch"):
        Batches(X, Y, batch_size=24, drop_last=True)
    with pytest.raises(ShapeError, match="fit the normalization"):
        Batches(X, Y, batch_size=5, normalization=Normalization(np.zeros(3), np.ones(3)))
    with pytest.raises(DTypeError, match="int32"):
        Batches(X, Y, batch_size=5, dtype="int32")
    with pytest.raises(DTypeError, match="integers or floats"):
        Batches(X.astype(complex), Y, batch_size=5)
    with pytest.raises(DTypeError, match="class numbers or floats"):
        Batches(X, Y.astype(str), batch_size=5)
    with pytest.raises(ConfigError, match="from 0"):
        Batches(X, Y, batch_size=5).epoch(-1)


@pytest.mark.parametrize("per_feature", [None, False, True])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("source", ["uint8", "float32"])
def test_reused_memory_holds_the_same_batches(backend, source, shuffle, per_feature):
    x = X.astype(source)
    fitted = None if per_feature is None else Normalization.fit(x, per_feature=per_feature)
    options = {"batch_size": 5, "shuffle": shuffle, "seed": 3, "normalization": fitted}
    fresh, reused = Batches(x, Y, **options), Batches(x, Y, reuse=True, **options)
    for epoch in (0, 1):  # the second one begins with the memory that the first one left
        pairs = zip(fresh.epoch(epoch), reused.epoch(epoch), strict=True)
        for (xa, ya), (xb, yb) in pairs:
            np.testing.assert_array_equal(to_numpy(xb), to_numpy(xa))
            np.testing.assert_array_equal(to_numpy(yb), to_numpy(ya))


def test_batches_stay_as_they_are_unless_reuse_is_asked_for():
    pytest.importorskip("numba")
    kept = [xb for xb, _ in Batches(X, Y, batch_size=5).epoch(0)]
    assert not any(np.shares_memory(a, b) for a, b in pairwise(kept))
    reused = [xb for xb, _ in Batches(X, Y, batch_size=5, reuse=True).epoch(0)]
    assert all(np.shares_memory(a, b) for a, b in pairwise(reused))


def test_statistics_that_broadcast_over_a_row(backend):
    narrow = Normalization(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    batches = Batches(X, Y, batch_size=N, shuffle=False, normalization=narrow)
    ((xb, _),) = batches.epoch(0)
    np.testing.assert_allclose(to_numpy(xb), narrow.apply(X, "float32"), rtol=1e-6)


def test_frames_and_lists_are_taken_as_arrays():
    pandas = pytest.importorskip("pandas")
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6) % 3
    frame, column = pandas.DataFrame(x, columns=["a", "b"]), pandas.Series(y)
    for given in ((frame, column), (x.tolist(), y.tolist())):
        batches = Batches(*given, batch_size=6, shuffle=False)
        got, labels = rows_of(batches, 0)
        np.testing.assert_array_equal(got, x.astype(np.float32))
        np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_found_before_it_is_trained_on(bad):
    x, y = np.zeros((6, 2)), np.zeros((6, 1))
    x[3, 1] = bad
    with pytest.raises(DataError, match=r"`x`: expected finite .* column number 1 .* row 3"):
        Batches(x, y, batch_size=2)
    with pytest.raises(DataError, match="`x`"):
        Batches(x, y, batch_size=2, normalization=Normalization(0.0, 1.0))
    y[2] = bad
    with pytest.raises(DataError, match=r"`y`: expected finite .* row 2"):
        Batches(np.zeros((6, 2)), y, batch_size=2)


def test_names_as_targets_say_how_they_become_numbers():
    with pytest.raises(DTypeError, match=r"numpy\.unique\(y, return_inverse=True\)"):
        Batches(np.zeros((2, 2)), np.array(["a", "b"]), batch_size=2)


def test_a_tensor_without_values_is_refused():
    torch = pytest.importorskip("torch")
    empty = torch.ones(8, 3, device="meta")
    for x, y in ((empty, np.zeros(8, int)), (np.zeros((8, 3)), empty[:, 0])):
        with pytest.raises(DataError, match="without values"):
            Batches(x, y, batch_size=4)
