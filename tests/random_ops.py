"""Ops with random shapes, most of which fit together: each kernel against its reference.

Run as a program, ``python random_ops.py BITS DTYPE…``, since a kernel that was handed shapes which
do not fit may take its process with it. ``BITS`` is the vectors' width to expect, 0 for any: the
process may have been told to compile for other CPUs than this one. Whatever one of the two refuses
the other must refuse too, and what both compute must be the same. ``--seed`` and ``--calls`` draw
others, or more. With ``--guard``, every array begins or ends beside memory that nobody may touch.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable

import numpy as np
from tolerances import EPS

from xpmlp import ops
from xpmlp.errors import XpmlpError
from xpmlp.random import Generator

SIZES = (0, 1, 2, 3, 4, 7, 8, 9, 16, 17, 33, 64, 100)
Rng = np.random.Generator
Call = Callable[[], object]


class Shapes:
    """Draws sizes, and arrays whose shapes are sometimes not the ones asked for."""

    def __init__(self, rng: Rng, dtype: str):
        self.rng, self.dtype = rng, dtype

    def size(self, least: int = 0) -> int:
        return int(self.rng.choice([size for size in SIZES if size >= least]))

    def lead(self) -> tuple[int, ...]:
        return tuple(self.rng.choice([1, 2, 3], self.rng.choice(3, p=[0.6, 0.3, 0.1])).tolist())

    def array(self, *shape: int) -> np.ndarray:
        return self.laid_out(self.rng.normal(size=self.perhaps_wrong(shape)).astype(self.dtype))

    def positive(self, *shape: int) -> np.ndarray:
        return (0.1 + self.rng.random(self.perhaps_wrong(shape))).astype(self.dtype)

    def integers(self, limit: int, *shape: int) -> np.ndarray:
        return self.rng.integers(0, max(limit, 1), self.perhaps_wrong(shape))

    def perhaps_wrong(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One time in twelve another shape: a size changed, an axis more, or one less."""
        if self.rng.random() > 1 / 12:
            return shape
        shape = list(shape)
        change = self.rng.integers(3)
        if change == 0 and shape:
            shape[self.rng.integers(len(shape))] = self.size()
        elif change == 1:
            shape.insert(0, int(self.rng.choice([1, 2])))
        elif shape:
            shape.pop(self.rng.integers(len(shape)))
        return tuple(shape)

    def laid_out(self, array: np.ndarray) -> np.ndarray:
        """As it is, in Fortran's order, every second column of a wider one, or read-only."""
        which = self.rng.integers(6)
        if which == 0:
            return np.asfortranarray(array)
        if which == 1 and array.ndim:
            wide = np.repeat(array, 2, axis=-1)
            return wide[..., ::2]
        if which == 2:
            array.flags.writeable = False
        return array


def _linear(s: Shapes) -> tuple[Call, ...]:
    D, M, N = s.size(), s.size(), s.size()
    lead = s.lead()
    member = lead[:1] if len(lead) == 1 and s.rng.random() < 0.7 else ()
    x, W, b = s.array(*lead, N, D), s.array(*member, D, M), s.array(*member, M)
    activation = s.rng.choice(np.array([None, None, "relu", "tanh", "sigmoid"], object))
    b = None if s.rng.random() < 0.2 else b
    dy, y = s.array(*lead, N, M), s.array(*lead, N, M)
    return (
        lambda: ops.linear(x, W, b, activation),
        lambda: ops.linear_backward(dy, x, W, y, activation, input_grad=bool(N % 2)),
    )


def _matmul(s: Shapes) -> tuple[Call, ...]:
    m, k, n, lead = s.size(), s.size(), s.size(), s.lead()
    a = s.array(*lead, m, k)
    if a.ndim >= 2 and s.rng.random() < 0.5:  # a view of its transpose's memory
        a = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    b = s.array(*(lead if s.rng.random() < 0.5 else ()), k, n)
    return (lambda: ops.matmul(a, b),)


def _cross_entropy(s: Shapes) -> tuple[Call, ...]:
    lead, N, C = s.lead(), s.size(), s.size(1)
    logits = s.array(*lead, N, C) * np.asarray(s.rng.choice([1, 30, 1e4]), s.dtype)
    probabilities = s.rng.random() < 0.3
    classes = logits.shape[-1] if logits.ndim else 1  # labels are not what is wrong here
    targets = s.positive(*lead, N, C) if probabilities else s.integers(classes, *lead, N)
    options = {
        "label_smoothing": float(s.rng.choice([0, 0, 0.1])),
        "z_loss": float(s.rng.choice([0, 0, 0.01])),
        "reduction": str(s.rng.choice(["mean", "sum", "none"])),
        "ignore_index": None if probabilities or s.rng.random() < 0.7 else 0,
        "class_weights": None if s.rng.random() < 0.7 else s.positive(C),
    }
    return (lambda: ops.softmax_cross_entropy(logits, targets, **options),)


def _normalization(s: Shapes) -> tuple[Call, ...]:
    lead, N, D = s.lead(), s.size(1), s.size(1)
    member = lead[:1] if len(lead) == 1 and s.rng.random() < 0.7 else ()
    x, dy = s.array(*lead, N, D), s.array(*lead, N, D)
    gamma, beta = s.array(*member, D), s.array(*member, D)
    mean, var = s.array(*member, D), s.positive(*member, D)
    row_mean, inverse = s.array(*lead, N, 1), s.positive(*lead, N, 1)
    return (
        lambda: ops.batch_norm(x, gamma, beta),
        lambda: ops.batch_norm_backward(dy, x, gamma, mean, var),
        lambda: ops.layer_norm(x, gamma, beta),
        lambda: ops.layer_norm_backward(dy, x, gamma, row_mean, inverse),
    )


def _elementwise(s: Shapes) -> tuple[Call, ...]:
    shape = (*s.lead(), s.size(), s.size())
    x, dy = s.array(*shape), s.array(*shape)
    return (
        lambda: ops.relu(x),
        lambda: ops.relu_backward(dy, x, x),
        lambda: ops.dropout(x, 0.4, Generator(3), 5),
    )


def _updates(s: Shapes) -> tuple[Call, ...]:
    shape = (s.size(), s.size())
    w, g, m, v = s.array(*shape), s.array(*shape), s.array(*shape), s.positive(*shape)
    adam = {"gain1": 0.1, "gain2": 0.01, "correction1": 0.2, "correction2": 0.02}
    return (
        lambda: ops.sgd_update(w, g, lr=0.1),
        lambda: ops.momentum_update(w, g, m, lr=0.1, momentum=0.9, nesterov=True),
        lambda: ops.adagrad_update(w, g, v, lr=0.1, eps=1e-8),
        lambda: ops.rmsprop_update(w, g, v, lr=0.1, gain=0.1, eps=1e-8),
        lambda: ops.adam_update(w, g, m, v, lr=0.1, eps=1e-8, **adam),
    )


def _gather(s: Shapes) -> tuple[Call, ...]:
    rows, D, lead, N = s.size(1), s.size(), s.lead()[:1], s.size()
    index = s.integers(rows, *lead, N)
    if s.rng.random() < 0.5:
        x = s.rng.integers(0, 256, s.perhaps_wrong((rows, D)), dtype=np.uint8)
    else:
        x = s.array(rows, D)
    mean, std = s.array(D), s.positive(D)
    return (
        lambda: ops.gather_rows(x, index, dtype=s.dtype),
        lambda: ops.gather_rows(x, index, mean, std, dtype=s.dtype),
    )


KINDS = (_linear, _matmul, _cross_entropy, _normalization, _elementwise, _updates, _gather)


def outcome(call: Call) -> object:
    """Its arrays, or that it was refused; any other error is a fault."""
    try:
        result = call()
    except XpmlpError as error:
        return type(error)
    return result if isinstance(result, tuple) else (result,)


def check(call: Call, dtype: str) -> bool:
    """Whether the shapes were legal; raises where kernel and reference do not agree."""
    actual = outcome(call)
    with ops.without_kernels():
        expected = outcome(call)
    refused = isinstance(actual, type), isinstance(expected, type)
    assert refused[0] == refused[1], f"kernel {actual}, reference {expected}"
    if refused[0]:
        return False
    for a, b in zip(actual, expected, strict=True):
        assert (a is None) == (b is None)
        if a is None:
            continue
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape, a.dtype, b.dtype)
        largest = float(np.max(np.abs(b), initial=1.0, where=np.isfinite(b)))
        np.testing.assert_allclose(a, b, rtol=1e3 * EPS[dtype], atol=1e3 * EPS[dtype] * largest)
    return True


def run(seed: int, calls: int, dtype: str) -> tuple[int, int]:
    """So many calls: how many were legal, how many refused by both."""
    rng = np.random.default_rng(seed)
    done = [0, 0]
    while sum(done) < calls:
        kind = KINDS[rng.integers(len(KINDS))]
        state = rng.bit_generator.state
        for number, call in enumerate(kind(Shapes(rng, dtype))):
            try:
                done[check(call, dtype)] += 1
            except Exception as error:
                what = f"{kind.__name__} {number} of {dtype}, {state['state']}"
                raise AssertionError(f"{what}: {error}") from error
    return done[1], done[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("bits", type=int)
    parser.add_argument("dtypes", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--guard", choices=("end", "begin"))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # means of nothing, in the reference
    if asked.guard:
        from guarded_memory import install

        install(asked.guard)
    if asked.bits:
        from xpmlp.kernels.numba import simd

        assert simd.target().bits == asked.bits, simd.target()
    for name in asked.dtypes:
        legal, refused = run(asked.seed, asked.calls, name)
        assert legal > asked.calls // 2 and refused > asked.calls // 50, (legal, refused)
    print("done")
    sys.stdout.flush()
    if asked.guard:
        os._exit(0)
