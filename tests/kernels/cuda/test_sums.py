"""All sums of a step by one kernel, on the CPU, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda import stand_in
from kernels.cuda.stand_in import asarray, empty

from xpmlp.errors import ShapeError
from xpmlp.kernels.cuda.sums import Sum, finish
from xpmlp.kernels.cuda.update import FlatUpdate

TYPES = ("float32", "float64", "float16", "bfloat16")


@pytest.fixture
def device(monkeypatch, shim):
    return stand_in.put_in_place(monkeypatch, shim)


def send(copy):
    copy()


def numbers(rng, shape, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    return asarray(rng.standard_normal(shape).astype(dtype))


def expected(one):
    total = one.scale * np.asarray(one.parts, np.float64).sum(axis=0)
    total = total if one.scales is None else total * np.asarray(one.scales)
    return total if one.extra is None else total + np.asarray(one.extra)


def close(one, out=None):
    out = np.asarray(one.out if out is None else out, np.float64).reshape(-1)
    np.testing.assert_allclose(out, expected(one), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", TYPES)
def test_columns_losses_and_hits_in_one_launch(device, rng, dtype):
    real = np.float64 if dtype == "float64" else np.float32
    rows = numbers(rng, (3, 70), real)  # three problems' losses
    sums = [
        Sum(numbers(rng, (17, 65), real), (65,), empty((65,), real)),  # partial sums
        Sum(numbers(rng, (50, 10), dtype), (10,), empty((10,), real)),  # a gradient itself
        Sum(numbers(rng, (1, 1), real), (), empty((), real)),
        Sum(rows.T, (3,), empty((3,), real), 0.25, scales=numbers(rng, (3,), real),
            extra=numbers(rng, (3,), real)),
        Sum(rows.T, (3,), empty((3,), real), extra=numbers(rng, (1,), real)),
        Sum(asarray(rng.integers(0, 2, (3, 70)).astype(bool)).T, (3,), empty((3,), np.int32)),
        Sum(asarray(rng.integers(0, 2, (40, 33)).astype(np.uint8)), (33,), empty((33,), np.int32)),
    ]  # fmt: skip
    finish(sums, send=send)
    assert len(device.launches) == 1
    for one in sums:
        close(one)


def test_the_number_of_the_batch_says_where_they_go(device, rng):
    losses, hits = empty((5, 2), np.float64), empty((5, 2), np.int32)
    one = Sum(numbers(rng, (9, 2), "float64"), (2,), losses, slots=5)
    other = Sum(asarray(rng.integers(0, 2, (9, 2)).astype(np.uint8)), (2,), hits, slots=5)
    finish([one, other], send=send, slot=asarray(np.array([13])))  # of the third epoch, its fourth
    close(one, losses[3])
    close(other, hits[3])
    assert np.isnan(np.delete(losses, 3, axis=0)).all() and (np.delete(hits, 3, axis=0) == -1).all()


def test_the_optimizers_numbers_of_the_step_are_made_beside_them(device, rng):
    w = numbers(rng, (3, 4), "float32")
    made = [FlatUpdate("adam", [w], [(w, w)], [True], 3, capacity=4) for _ in range(2)]
    for flat in made:
        flat.set_rates([0.1, 0.2, 0.3], 0.01, 0.9, 0.999, 1e-8)
        flat.set_schedule(0, np.array([1.0, 0.5, 0.25, 0.1]))
        flat.set_step(2)
    made[0].tick()
    one = Sum(numbers(rng, (4, 2), "float32"), (2,), empty((2,), np.float32))
    finish([one], send=send, flat=made[1])
    close(one)
    np.testing.assert_array_equal(made[1]._hyper, made[0]._hyper)
    assert made[0].step() == made[1].step() == 3


def test_numbers_that_do_not_fit_are_refused(device, rng):
    """A penalty of each member on losses of each row, say: the kernel would read beyond it."""
    parts, extra = numbers(rng, (4, 6), "float32"), numbers(rng, (3,), "float32")
    with pytest.raises(ShapeError, match=r"extra of 1 or 6 numbers .* got shape \(3,\)"):
        finish([Sum(parts, (2, 3), empty((2, 3), np.float32), extra=extra)], send=send)
