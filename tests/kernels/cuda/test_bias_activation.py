"""bias_activation.cu on the CPU, against the ops' references in float64."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.driver import At
from kernels.cuda.elements import EPS, SUFFIXES, WIDE, decode, encode, poisoned
from kernels.cuda.test_dropout import mask_arguments

from xpmlp.kernels.cuda import geometry
from xpmlp.ops.activations import FUSABLE
from xpmlp.ops.dropout import reference as dropout
from xpmlp.random import Generator

DEVICE = geometry.Device(multiprocessors=4)
NO_MASK = (None, None, None, 0, None, 0)
SHAPES = [(1, 1, 1), (1, 5, 10), (3, 7, 33), (2, 70, 12), (1, 300, 40)]


def f(activation, x):
    return x if activation is None else FUSABLE[activation][0](x)


def f_backward(activation, dy, y):
    return dy if activation is None else FUSABLE[activation][1](dy, y, y)


def close(actual, expected, suffix, factor=16):
    eps = EPS[suffix] * factor
    np.testing.assert_allclose(actual, expected, rtol=eps, atol=eps)


def forward(shim, suffix, x, bias, activation, mask=NO_MASK, out=None):
    members, batch, features = x.shape
    y = poisoned(x.shape, x.dtype) if out is None else out
    launch = geometry.elementwise("bias_activation", batch * features, members, suffix, DEVICE)
    code = geometry.ACTIVATIONS[activation]
    shim("bias_activation", suffix).launch(
        launch, x, bias, y, batch, features, members, code, *mask
    )
    return y


def backward(shim, suffix, dy, y, activation, mask=NO_MASK, in_place=False):
    members, batch, features = dy.shape
    chunks = geometry.column_chunks(batch, features, members, DEVICE)
    partial = poisoned((chunks, members, features), WIDE[suffix])
    dz = dy if in_place else poisoned(dy.shape, dy.dtype)
    launch = geometry.columns("bias_activation_backward", batch, features, members, suffix, DEVICE)
    code = geometry.ACTIVATIONS[activation]
    program = shim("bias_activation", suffix)
    program.launch(launch, dy, y, dz, partial, batch, features, members, code, *mask)
    db = poisoned((members, features), dy.dtype)
    columns = members * features
    launch = geometry.finish("column_sums_finish", columns, suffix)
    program.launch(launch, partial, chunks, columns, db)
    return dz, db


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", geometry.ACTIVATIONS)
def test_forward_and_backward_match_the_references(shim, rng, suffix, shape, activation):
    x, dy = (encode(rng.normal(size=shape) * 2, suffix) for _ in range(2))
    bias = encode(rng.normal(size=(shape[0], shape[2])), suffix)
    y = forward(shim, suffix, x, bias, activation)
    expected = f(activation, decode(x, suffix) + decode(bias, suffix)[:, None])
    close(decode(y, suffix), expected, suffix, 2 if "16" in suffix else 16)

    dz, db = backward(shim, suffix, dy, y, activation)
    expected = f_backward(activation, decode(dy, suffix), decode(y, suffix))
    close(decode(dz, suffix), expected, suffix, 2 if "16" in suffix else 16)
    close(decode(db, suffix), decode(dz, suffix).sum(axis=1), suffix, 64)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("activation", geometry.ACTIVATIONS)
def test_dropout_is_that_of_the_op_applied_after(shim, rng, suffix, activation):
    shape, seeds = (2, 9, 13), [4, 2**40]
    rates = (0.25, 0.75)  # whose factors, 4/3 and 4, are an inexact and an exact number
    x, dy = (encode(rng.normal(size=shape), suffix) for _ in range(2))
    mask = (*mask_arguments(rates, seeds, 3, suffix), np.array([10], np.int64), -4)
    plain = forward(shim, suffix, x, None, activation)
    y = forward(shim, suffix, x, None, activation, mask)
    dz, db = backward(shim, suffix, dy, y, activation, mask)
    kept = dropout(np.ones(shape), rates, Generator(seeds, 3), 6) != 0
    factors = decode(mask[2], suffix)[:, None, None]
    expected = decode(encode(np.where(kept, decode(plain, suffix) * factors, 0), suffix), suffix)
    if suffix != "f64":  # a float64 product is rounded once more by a float32 comparison
        np.testing.assert_array_equal(decode(y, suffix), expected)
    dropped = np.where(kept, decode(dy, suffix) * factors, 0)
    close(decode(dz, suffix), f_backward(activation, dropped, decode(plain, suffix)), suffix)
    close(decode(db, suffix), decode(dz, suffix).sum(axis=1), suffix, 64)
    assert 0 < kept.sum() < kept.size


def test_in_place_unaligned_extremes_and_missing_outputs(shim, rng):
    x = np.array([[[-1e4, 1e4, -0.0, np.nan, 88.0, -88.0, 3.0]]], np.float32)
    bias = np.zeros((1, 7), np.float32)
    expected = forward(shim, "f32", x, bias, "sigmoid")
    np.testing.assert_allclose(expected[0, 0, :3], [0, 1, 0.5])
    assert np.isnan(expected[0, 0, 3])
    assert np.isnan(forward(shim, "f32", x, bias, "relu")[0, 0, 3])
    launch = geometry.elementwise("bias_activation", 7, 1, "f32", DEVICE)
    moved = At(x, 4)
    shim("bias_activation", "f32").launch(launch, moved, bias, moved, 1, 7, 1, 3, *NO_MASK)
    np.testing.assert_array_equal(x, expected)

    dy = rng.normal(size=(1, 50, 7)).astype(np.float32)
    y = rng.normal(size=(1, 50, 7)).astype(np.float32)
    dz, db = backward(shim, "f32", dy.copy(), y, "relu")
    again, db_again = backward(shim, "f32", dy.copy(), y, "relu", in_place=True)
    np.testing.assert_array_equal(dz, again)
    np.testing.assert_array_equal(db, db_again)
    launch = geometry.columns("bias_activation_backward", 50, 7, 1, "f32", DEVICE)
    out = poisoned(dz.shape, dz.dtype)
    program = shim("bias_activation", "f32")
    program.launch(launch, dy, y, out, None, 50, 7, 1, 1, *NO_MASK)  # no bias gradient wanted
    np.testing.assert_array_equal(out, dz)
    chunks = geometry.column_chunks(50, 7, 1, DEVICE)
    partial = poisoned((chunks, 1, 7), np.float32)
    program.launch(launch, dy, None, None, partial, 50, 7, 1, 0, *NO_MASK)  # only the sum
    np.testing.assert_allclose(partial.sum(axis=0), dy.sum(axis=1), rtol=1e-5, atol=1e-5)


def test_more_members_than_the_grid_has_layers(shim, rng):
    x = rng.normal(size=(5, 6, 40)).astype(np.float32)
    partial, again = (poisoned((2, 5, 40), np.float32) for _ in range(2))
    full = geometry.Launch("bias_activation_backward_f32", (2, 2, 5), (32, 8, 1))
    few = geometry.Launch("bias_activation_backward_f32", (2, 2, 2), (32, 8, 1))
    for launch, out in ((full, partial), (few, again)):
        shim("bias_activation", "f32").launch(launch, x, x, None, out, 6, 40, 5, 1, *NO_MASK)
    np.testing.assert_array_equal(partial, again)
    np.testing.assert_allclose(partial.sum(axis=0), np.maximum(x, 0).sum(axis=1), rtol=1e-5)
