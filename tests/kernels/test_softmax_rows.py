"""The passes over rows of logits: every length of row, and numbers at the ends of the range."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

import softmax_rows_parity
from narrower import NARROWER, run_narrower
from softmax_rows_parity import softmax_parts, ulps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_length_of_row(dtype):
    softmax_rows_parity.check_all(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("case", NARROWER)
def test_every_length_of_row_with_narrower_vectors(case):
    run_narrower(case, softmax_rows_parity.__file__)


@pytest.mark.parametrize(("dtype", "least"), [("float32", -87.3), ("float64", -708.3)])
def test_exponentials_are_within_two_units_in_the_last_place(dtype, least, rng):
    x = np.concatenate([[0.0], least * rng.random(100_000), -rng.random(100_000)]).astype(dtype)
    exact = np.exp(x.astype(np.longdouble))
    assert ulps(softmax_parts(x[None])[1][0], exact) < 2


@pytest.mark.parametrize("columns", [3, 20, 100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_at_the_ends_of_the_range(dtype, columns):
    huge = np.finfo(dtype).max
    x = np.zeros((5, columns), dtype)
    x[0, 1:] = -np.inf  # impossible classes
    x[1, -1] = np.nan
    x[2] = -np.inf  # all of them
    x[3, 1:] = -huge
    x[4] = huge
    peaks, exponentials, totals, _ = softmax_parts(x)
    assert exponentials[0, 0] == totals[0] == 1
    assert not exponentials[0, 1:].any()
    assert np.isnan(totals[1:3]).all()
    assert exponentials[3, 0] == totals[3] == 1
    assert not exponentials[3, 1:].any()
    assert peaks[4] == huge
    assert totals[4] == columns


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_below_the_normal_numbers_exponentials_fade_to_zero(dtype):
    smallest = np.finfo(dtype).smallest_normal
    x = np.log(smallest.astype(np.longdouble)) + np.linspace(1, -60, 1000)
    exponentials = softmax_parts(np.append(0, x).astype(dtype)[None])[1][0, 1:]
    assert (np.diff(exponentials) <= 0).all()
    assert exponentials[0] > smallest
    assert exponentials[-1] == 0
