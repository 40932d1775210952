"""batch_norm.cu on the CPU, against the ops' references in float64."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.elements import EPS, SUFFIXES, WIDE, decode, encode, poisoned

from xpmlp import ops
from xpmlp.kernels.cuda import geometry

DEVICE = geometry.Device(multiprocessors=3)
SHAPES = [(1, 1, 1), (1, 2, 7), (2, 5, 33), (1, 64, 40), (3, 301, 3)]
EPSILON = 1e-3


class Case:
    """One batch on the kernels of a suffix: what every launch needs."""

    def __init__(self, shim, rng, suffix, shape, shift=0.0):
        self.program, self.suffix, self.shape = shim("batch_norm", suffix), suffix, shape
        self.members, self.batch, self.features = shape
        self.columns = self.members * self.features
        self.parameters = (self.members, self.features)
        self.x = encode(rng.normal(size=shape) + shift, suffix)
        self.dy = encode(rng.normal(size=shape), suffix)
        self.gamma, self.beta = (encode(rng.normal(size=self.parameters), suffix) for _ in "gb")
        self.chunks = geometry.column_chunks(self.batch, self.features, self.members, DEVICE)

    def wide(self, *shape):
        return poisoned(shape, WIDE[self.suffix])

    def sizes(self):
        return self.batch, self.features, self.members

    def launch(self, kernel, *arguments):
        if "partial" in kernel:
            made = geometry.columns(kernel, *self.sizes(), self.suffix, DEVICE)
        elif "finish" in kernel:
            made = geometry.finish(kernel, self.columns, self.suffix)
        else:
            size = self.batch * self.features
            made = geometry.elementwise(kernel, size, self.members, self.suffix, DEVICE)
        self.program.launch(made, *arguments)

    def forward(self, running=None, keep=0.9, unbiased=0):
        partial = self.wide(self.chunks, 2, self.columns)
        self.launch("batch_norm_partial", self.x, partial, *self.sizes())
        self.mean, self.var = self.wide(*self.parameters), self.wide(*self.parameters)
        moved = (None, None) if running is None else running
        self.launch(
            "batch_norm_finish",
            *(self.x, partial, self.chunks, *self.sizes(), self.mean, self.var, *moved),
            *(keep, unbiased),
        )
        y = poisoned(self.shape, self.x.dtype)
        self.launch(
            "batch_norm_apply",
            *(self.x, self.gamma, self.beta, self.mean, self.var, EPSILON, y, *self.sizes()),
        )
        return y

    def backward(self, constant=False):
        statistics = (self.mean, self.var, EPSILON)
        partial = self.wide(self.chunks, 2, self.columns)
        self.launch(
            "batch_norm_backward_partial", self.dy, self.x, *statistics, partial, *self.sizes()
        )
        sums = self.wide(2, self.columns)
        dgamma, dbeta = (poisoned(self.parameters, self.x.dtype) for _ in "gb")
        arguments = (partial, self.chunks, self.columns, sums, dgamma, dbeta)
        self.launch("batch_norm_backward_finish", *arguments)
        dx = poisoned(self.shape, self.x.dtype)
        used = None if constant else sums
        self.launch(
            "batch_norm_backward_apply",
            *(self.dy, self.x, self.gamma, *statistics, used, dx, *self.sizes()),
        )
        return dx, dgamma, dbeta

    def decoded(self, *arrays):
        return [decode(array, self.suffix) for array in arrays]


def close(actual, expected, suffix, factor=256):
    factor = 4 if "16" in suffix else factor
    eps = EPS[suffix] * factor
    np.testing.assert_allclose(actual, expected, rtol=eps, atol=eps)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_match_the_references(shim, rng, suffix, shape):
    c = Case(shim, rng, suffix, shape)
    y = c.forward()
    x, gamma, beta, dy = c.decoded(c.x, c.gamma, c.beta, c.dy)
    expected, mean, var = ops.batch_norm(x, gamma, beta, EPSILON)
    wide = "f64" if suffix == "f64" else "f32"
    close(c.mean, mean, wide)
    close(c.var, var, wide)
    close(decode(y, suffix), expected, suffix)

    mean, var = c.mean.astype(np.float64), c.var.astype(np.float64)
    expected = ops.batch_norm_backward(dy, x, gamma, mean, var, EPSILON)
    for actual, wanted in zip(c.decoded(*c.backward()), expected, strict=True):
        scale = max(1.0, np.abs(wanted).max())
        close(actual / scale, wanted / scale, suffix, 1024)
    from xpmlp.ops.normalization import batch_norm_inference_backward

    expected = batch_norm_inference_backward(dy, x, gamma, mean, var, EPSILON)
    for actual, wanted in zip(c.decoded(*c.backward(constant=True)), expected, strict=True):
        scale = max(1.0, np.abs(wanted).max())
        close(actual / scale, wanted / scale, suffix, 1024)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_a_large_mean_does_no_harm(shim, rng, suffix):
    c = Case(shim, rng, suffix, (1, 300, 5), shift=1e4)
    c.forward()
    x = c.x.astype(np.float64)
    np.testing.assert_allclose(c.var, x.var(axis=1), rtol=64 * EPS[suffix])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("unbiased", [0, 1])
@pytest.mark.parametrize("batch", [1, 6])
def test_running_statistics_move_towards_the_batch(shim, rng, suffix, unbiased, batch):
    c = Case(shim, rng, suffix, (2, batch, 3))
    running = [encode(rng.random((2, 3)), suffix) for _ in range(2)]
    before = c.decoded(*running)
    c.forward(running, 0.75, unbiased)
    correction = batch / (batch - 1) if unbiased and batch > 1 else 1.0
    for after, old, new in zip(
        c.decoded(*running), before, (c.mean, c.var * correction), strict=True
    ):
        np.testing.assert_allclose(
            after, 0.75 * old + 0.25 * new, rtol=8 * EPS[suffix], atol=8 * EPS[suffix]
        )


def test_chunks_without_rows_and_few_layers(shim, rng):
    c = Case(shim, rng, "f32", (3, 10, 4))
    c.forward()
    c.chunks = 7  # of two rows: the last two have none
    partial, again = c.wide(7, 2, 12), c.wide(7, 2, 12)
    for layers, out in ((3, partial), (2, again)):
        launch = geometry.Launch("batch_norm_partial_f32", (1, 7, layers), (32, 8, 1))
        c.program.launch(launch, c.x, out, *c.sizes())
    np.testing.assert_array_equal(partial, again)
    mean, var = c.wide(3, 4), c.wide(3, 4)
    c.launch("batch_norm_finish", c.x, partial, 7, *c.sizes(), mean, var, None, None, 0.9, 0)
    np.testing.assert_allclose(mean, c.mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, c.var, rtol=1e-6)
