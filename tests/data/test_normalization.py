"""Normalization: right numbers, on every backend, exact through JSON."""

import json

import numpy as np
import pytest

from xpmlp.backend import asarray, dtype_name, to_numpy
from xpmlp.data import Normalization, normalization
from xpmlp.errors import DataError, DTypeError, ShapeError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("chunk", [1, 1 << 25])
def test_fit_is_mean_and_population_deviation(monkeypatch, per_feature, dtype, chunk):
    monkeypatch.setattr(normalization, "_CHUNK_BYTES", chunk)
    x = RNG.integers(0, 256, (50, 3, 4)).astype(dtype)
    fitted = Normalization.fit(x, per_feature=per_feature)
    axis = 0 if per_feature else None
    np.testing.assert_allclose(fitted.mean, x.astype(float).mean(axis=axis), rtol=1e-13)
    np.testing.assert_allclose(fitted.std, x.astype(float).std(axis=axis), rtol=1e-13)
    y = fitted.apply(x, dtype="float64")
    np.testing.assert_allclose(y.mean(axis=axis), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=axis), 1, rtol=1e-12)


def test_constant_columns_become_zero():
    x = np.column_stack([np.full(7, 0.1), np.arange(7.0), np.full(7, -1e300)])
    fitted = Normalization.fit(x)
    y = fitted.apply(x)
    assert fitted.std[0] == 1 and fitted.std[2] == 1
    np.testing.assert_array_equal(y[:, [0, 2]], 0)
    assert y[:, 1].std() == pytest.approx(1)
    assert Normalization.fit(np.full((3, 2), 7, np.uint8), per_feature=False).std == 1


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_apply_on_every_backend(backend, per_feature, dtype):
    x = RNG.integers(0, 256, (5, 2, 3)).astype(dtype)
    fitted = Normalization.fit(x, per_feature=per_feature)
    expected = (x.astype(np.float32) - fitted.mean.astype(np.float32)) / fitted.std.astype(
        np.float32
    )
    given = asarray(x.copy())
    y = fitted.apply(given)
    assert type(y) is type(given) and dtype_name(y.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(given), x)


def test_leading_axes_and_read_only_input():
    x = RNG.random((4, 5, 3))
    x.setflags(write=False)
    fitted = Normalization.fit(x.reshape(20, 3))
    np.testing.assert_allclose(
        fitted.apply(x).reshape(20, 3), fitted.apply(x.reshape(20, 3)), rtol=1e-15
    )


@pytest.mark.parametrize(
    ("given", "asked", "result"),
    [
        ("uint8", None, "float32"),
        ("int64", None, "float32"),
        ("float32", None, "float32"),
        ("float64", None, "float64"),
        ("float64", "float32", "float32"),
        ("uint8", np.float64, "float64"),
        ("uint8", np.dtype("float16"), "float16"),
    ],
)
def test_result_type(given, asked, result):
    y = Normalization(1.0, 2.0).apply(np.ones((2, 3), given), dtype=asked)
    assert y.dtype == result
    y = Normalization(np.ones(3), np.ones(3)).apply(np.ones((2, 3), given), dtype=asked)
    assert y.dtype == result


def test_wide_floats_are_normalized_before_they_are_narrowed():
    x = 1.7e9 + np.arange(8.0)[:, None]  # float32 holds such numbers in steps of 128
    y = Normalization.fit(x).apply(x, dtype="float32")
    expected = (np.arange(8.0) - 3.5) / np.arange(8.0).std()
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)


def test_json_round_trip_is_exact(rng):
    x = rng.standard_normal((20, 2, 3)) * 10.0 ** rng.integers(-100, 100, (2, 3))
    for per_feature in (True, False):
        fitted = Normalization.fit(x, per_feature=per_feature)
        back = Normalization.from_dict(json.loads(json.dumps(fitted.to_dict())))
        assert back.mean.shape == fitted.mean.shape
        np.testing.assert_array_equal(back.mean, fitted.mean)
        np.testing.assert_array_equal(back.std, fitted.std)


@pytest.mark.parametrize(
    "values", [{}, {"mean": 1}, {"mean": "a", "std": 1}, {"mean": [1, [2]], "std": 1}, None]
)
def test_bad_dictionaries(values):
    with pytest.raises(DataError, match="from_dict"):
        Normalization.from_dict(values)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 0.0), (0.0, -1.0), (np.nan, 1.0), (0.0, np.inf), ([0.0, 1.0], [1.0])],
)
def test_bad_numbers(mean, std):
    with pytest.raises(DataError, match="positive standard deviations"):
        Normalization(mean, std)


def test_values_too_large_for_a_variance():
    with pytest.raises(DataError, match="finite"):
        Normalization.fit(np.array([[1e300], [-1e300]]))


def test_no_examples():
    with pytest.raises(DataError, match="expected examples"):
        Normalization.fit(np.zeros((0, 3)))


def test_wrong_shape_and_dtype():
    fitted = Normalization.fit(RNG.random((5, 2, 3)))
    for shape in [(5, 2, 4), (5, 6), (3,)]:
        with pytest.raises(ShapeError, match=r"\(…, 2, 3\)"):
            fitted.apply(np.zeros(shape))
    with pytest.raises(DTypeError, match="complex"):
        fitted.apply(np.zeros((5, 2, 3), complex))
    with pytest.raises(DTypeError, match="int32"):
        fitted.apply(np.zeros((5, 2, 3)), dtype="int32")


def test_one_pair_a_channel_can_be_given():
    fitted = Normalization(np.ones((3, 1, 1)), np.full((3, 1, 1), 2.0))
    assert (fitted.apply(np.full((4, 3, 2, 2), 5.0)) == 2).all()


def test_uncentred_keeps_zeros_and_scales_by_the_root_mean_square(rng):
    x = rng.integers(0, 3, size=(40, 5)).astype(np.uint8)
    x[:, 2] = 0
    for per_feature in (True, False):
        normalization = Normalization.fit(x, per_feature=per_feature, center=False)
        y = normalization.apply(x, "float64")
        np.testing.assert_array_equal(y == 0, x == 0)
        columns = [0, 1, 3, 4] if per_feature else slice(None)
        axis = 0 if per_feature else None
        np.testing.assert_allclose(np.mean(y[:, columns] ** 2, axis=axis), 1.0)


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_undo_gives_back_what_was_normalized(backend, per_feature, dtype):
    x = RNG.normal(50.0, 7.0, size=(5, 3)).astype(dtype)
    fitted = Normalization.fit(x, per_feature=per_feature)
    y = asarray(fitted.apply(x))
    if dtype_name(y.dtype) != dtype:
        pytest.skip(f"{backend} narrows {dtype}")
    before = to_numpy(y).copy()
    back = fitted.undo(y)
    assert dtype_name(back.dtype) == dtype
    np.testing.assert_allclose(to_numpy(back), x, rtol=1e-6 if dtype == "float32" else 1e-13)
    np.testing.assert_array_equal(to_numpy(y), before)
    with pytest.raises(ShapeError, match="fit the normalization"):
        Normalization(np.zeros(3), np.ones(3)).undo(y[:, :2])


def test_undo_of_integers_is_float32():
    back = Normalization(10.0, 2.0).undo(np.array([-1, 0, 1]))
    assert back.dtype == np.float32 and back.tolist() == [8.0, 10.0, 12.0]


@pytest.mark.parametrize("x", [b"abc", bytearray(b"abc"), memoryview(b"abc")], ids=type)
def test_bytes_are_no_numbers(x):
    with pytest.raises(DataError, match="expected an array, got"):
        Normalization.fit(x)
