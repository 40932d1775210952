"""layer_norm.cu on the CPU, against the ops' references in float64."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.elements import EPS, SUFFIXES, WIDE, decode, encode, poisoned

from xpmlp import ops
from xpmlp.kernels.cuda import geometry

DEVICE = geometry.Device(multiprocessors=3)
EPSILON = 1e-3
# A warp a row with and without a rest, then a block a row: 8 of its values fit in registers.
SHAPES = [(1, 1, 1), (1, 5, 7), (2, 3, 255), (1, 6, 300), (2, 2, 1025), (1, 2, 2300)]


def close(actual, expected, suffix, factor=256):
    factor = 4 if "16" in suffix else factor
    scale = max(1.0, np.abs(expected).max())
    eps = EPS[suffix] * factor
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=eps, atol=eps)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("centered", [1, 0])
def test_forward_and_backward_match_the_references(shim, rng, suffix, shape, centered):
    members, batch, features = shape
    rows, wide, program = members * batch, WIDE[suffix], shim("layer_norm", suffix)
    x, dy = (encode(rng.normal(size=shape) + 0.5, suffix) for _ in range(2))
    gamma, beta = (encode(rng.normal(size=(members, features)), suffix) for _ in range(2))
    y, mean = poisoned(shape, x.dtype), poisoned((rows,), wide)
    inv_std = poisoned((rows,), wide)
    sizes = (rows, features, batch)
    launch = geometry.layer_norm("layer_norm", rows, features, suffix, DEVICE)
    beta_in, mean_out = (beta, mean) if centered else (None, None)
    program.launch(launch, x, gamma, beta_in, EPSILON, centered, y, mean_out, inv_std, *sizes)

    wide_x, wide_dy, g, b = (decode(array, suffix) for array in (x, dy, gamma, beta))
    if centered:
        expected, expected_mean, expected_inv = ops.layer_norm(wide_x, g, b, EPSILON)
        close(mean.reshape(expected_mean.shape), expected_mean, "f64" if suffix == "f64" else "f32")
    else:
        expected, expected_inv = ops.rms_norm(wide_x, g, EPSILON)
    close(inv_std.reshape(expected_inv.shape), expected_inv, "f64" if suffix == "f64" else "f32")
    close(decode(y, suffix), expected, suffix)

    dx = poisoned(shape, x.dtype)
    launch = geometry.layer_norm("layer_norm_backward", rows, features, suffix, DEVICE)
    program.launch(launch, dy, x, gamma, mean_out, inv_std, centered, dx, *sizes)
    inv = inv_std.astype(np.float64).reshape(members, batch, 1)
    if centered:
        mu = mean.astype(np.float64).reshape(members, batch, 1)
        expected = ops.layer_norm_backward(wide_dy, wide_x, g, mu, inv)
    else:
        expected = (*ops.rms_norm_backward(wide_dy, wide_x, g, inv), None)
    close(decode(dx, suffix), expected[0], suffix, 1024)

    chunks = geometry.column_chunks(batch, features, members, DEVICE)
    columns = members * features
    partial = poisoned((chunks, 2, columns), wide)
    launch = geometry.columns("layer_norm_parameters", batch, features, members, suffix, DEVICE)
    program.launch(launch, dy, x, mean_out, inv_std, partial, batch, features, members)
    dgamma, dbeta = (poisoned((members, features), x.dtype) for _ in range(2))
    launch = geometry.finish("layer_norm_parameters_finish", columns, suffix)
    program.launch(launch, partial, chunks, columns, dgamma, dbeta if centered else None)
    close(decode(dgamma, suffix), expected[1], suffix, 1024)
    if centered:
        close(decode(dbeta, suffix), expected[2], suffix, 1024)
