"""The product driver that the matrix kernels share, for every width of vectors this CPU can run."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

import gemm_parity
import llvmlite.binding
from gemm_parity import product
from narrower import NARROWER, run_narrower

from xpmlp.kernels.numba import gemm, simd


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_path(dtype):
    gemm_parity.check_all(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("case", NARROWER)
def test_every_path_with_narrower_vectors(case):
    run_narrower(case, gemm_parity.__file__)


def test_the_width_follows_the_features_numba_is_told(monkeypatch):
    import numba

    machine = llvmlite.binding.get_process_triple().partition("-")[0]
    if machine != "x86_64":
        pytest.skip("names of x86 features")
    widths = {"+avx512f,+avx2,+fma": 512, "+avx2,+fma": 256, "+avx2": 128, "-avx512f": 128}
    for features, bits in widths.items():
        monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
        assert simd.target.__wrapped__().bits == bits, features


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [4, 19])
def test_strange_numbers_go_through(size, bad):
    a, b = np.ones((1, size, size), np.float32), np.ones((1, size, size), np.float32)
    a[0, 1, 2] = bad
    c = np.zeros_like(a)
    product(a, b, c)
    assert np.array_equal(c[0, 1], np.full(size, bad, np.float32), equal_nan=True)
    assert (np.delete(c[0], 1, axis=0) == size).all()


def test_relu_keeps_nan():
    a, b = np.full((1, 3, 4), np.nan, np.float32), np.ones((1, 4, 5), np.float32)
    c = np.zeros((1, 3, 5), np.float32)
    product(a, b, c, flags=gemm.RELU)
    assert np.isnan(c).all()


@pytest.mark.parametrize(("depth", "width"), [(300, 75), (1100, 900)])  # as they are, and packed
def test_division_of_rows_and_columns_changes_no_bit(depth, width, rng):
    a = rng.normal(size=(1, 61, depth)).astype(np.float32)
    b = rng.normal(size=(1, depth, width)).astype(np.float32)
    whole, parts = np.empty((1, 61, width), np.float32), np.empty((1, 61, width), np.float32)
    product(a, b, whole)
    for rows in (slice(0, 7), slice(7, 60), slice(60, 61)):
        for columns in (slice(0, 33), slice(33, width)):
            product(a[:, rows], b[:, :, columns], parts[:, rows, columns])
    np.testing.assert_array_equal(whole, parts)


def test_a_batch_equals_its_members(rng):
    for n in (4, 8, 16, 21):
        a, b = rng.normal(size=(2, 9, n, n)).astype(np.float32)
        together, alone = np.empty_like(a), np.empty_like(a)
        product(a, b, together)
        for i in range(9):
            product(a[i : i + 1], b[i : i + 1], alone[i : i + 1])
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("count", "rows", "columns", "apart", "expected"),
    [
        (4, 96, 256, 9, gemm.BATCH),
        (3, 96, 256, 9, gemm.ROWS),
        (3, 95, 256, 9, gemm.COLUMNS),
        (3, 95, 255, 9, gemm.WHOLE),
        (4, 96, 256, 0, gemm.ROWS),  # four problems add to one result
    ],
)
def test_four_threads_cut_what_is_long_enough(count, rows, columns, apart, expected):
    a, c = gemm.Matrix(0, 0, 1, 1), gemm.Matrix(0, apart, 1, 1)
    given = {"a": a, "b": a, "c": c, "bias": gemm.Bias(0, 0), "gate": 0, "flags": 0, "depth": 5}
    sizes = {"count": count, "rows": rows, "columns": columns}
    assert gemm._axis(gemm.Product(axis=gemm.ANY, **sizes, **given), 4) == expected
    assert gemm._axis(gemm.Product(axis=gemm.ROWS, **sizes, **given), 4) == gemm.ROWS
