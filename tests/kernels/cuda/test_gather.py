"""gather.cu on the CPU: the rows of xpmlp.random.permutation, converted and normalised."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.elements import EPS, SUFFIXES, WIDE, decode, encode, poisoned

from xpmlp.kernels.cuda import geometry
from xpmlp.random import permutation

KINDS = {"uint8": np.uint8, "int8": np.int8, "uint16": np.uint16, "int16": np.int16, "same": None}
KINDS_OF = [(suffix, kind) for suffix in SUFFIXES for kind in KINDS]
KINDS_OF += [(suffix, "float32") for suffix in ("f16", "bf16")]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 100, 257, 1025])
def test_the_order_of_an_epoch_is_that_of_the_loader(shim, n):
    for seed, epoch in ((0, 0), (2**64 - 7, 3), (5, 2**33)):
        out = poisoned((n,), np.int64)
        launch = geometry.finish("epoch_order", n, "f32")
        shim("gather", "f32").launch(launch, out, n, n, 0, seed, epoch)
        assert out.tolist() == permutation(n, seed=seed, epoch=epoch).tolist()


def test_the_order_reaches_two_thousand_million_rows(shim):
    n = 2**31 - 1
    out = poisoned((500,), np.int64)
    launch = geometry.finish("epoch_order", 500, "f32")
    shim("gather", "f32").launch(launch, out, n, 500, n - 500, 1, 2)
    assert len(set(out.tolist())) == 500
    assert 0 <= out.min() < out.max() < n


def gather(shim, suffix, kind, x, labels, rows, members, order, mean=None, std=None):
    features = x.shape[1]
    out = poisoned((members, rows, features), encode(np.zeros(1), suffix).dtype)
    label_bytes = 0 if labels is None else labels.itemsize * labels[0].size
    labels_out = (
        None if labels is None else poisoned((members, rows, *labels.shape[1:]), labels.dtype)
    )
    per_feature = int(mean is not None and mean.size > 1)
    launch = geometry.gather(f"gather_{kind}", rows * members, suffix)
    shim("gather", suffix).launch(
        launch,
        *(x, out, features, mean, std, per_feature, labels, labels_out, label_bytes),
        *(rows, members, *order),
    )
    return out, labels_out


@pytest.mark.parametrize(("suffix", "kind"), KINDS_OF)
@pytest.mark.parametrize("features", [45, 144])  # rows that begin anywhere, rows of whole vectors
def test_every_type_is_converted_and_normalised(shim, rng, suffix, kind, features):
    n, batch, seed = 23, 6, 2**50 + 1
    if kind == "same":
        x = encode(rng.normal(size=(n, features)), suffix)
        values = decode(x, suffix)
    elif kind == "float32":
        x = rng.normal(size=(n, features)).astype(np.float32)
        values = x.astype(np.float64)
    else:
        info = np.iinfo(KINDS[kind])
        reach = 30_000 if suffix == "f16" else 65_535  # float16 ends at 65,504
        low, high = max(info.min, -reach), min(info.max, reach)
        x = rng.integers(low, high, (n, features), endpoint=True).astype(KINDS[kind])
        values = x.astype(np.float64)
    labels = rng.integers(0, 10, n)
    for size in (0, 1, features):
        mean, std = (rng.random(size).astype(WIDE[suffix]) + 0.5 for _ in range(2))
        mean, std = (mean, std) if size else (None, None)
        # Batch 2 of epoch 5, of three whole batches an epoch.
        order = (n, batch, 3, np.array([seed], np.uint64), 1, None, np.array([16], np.int64), 1)
        out, labels_out = gather(shim, suffix, kind, x, labels, batch, 1, order, mean, std)
        rows = permutation(n, seed=seed, epoch=5)[12:18]
        expected = values[rows] if not size else (values[rows] - mean) / std
        eps = EPS[suffix]
        np.testing.assert_allclose(decode(out, suffix)[0], expected, rtol=2 * eps, atol=2 * eps)
        assert labels_out[0].tolist() == labels[rows].tolist()


def test_members_have_orders_of_their_own_and_a_batch_may_be_short(shim, rng):
    n, seeds = 11, [3, 4, 5]
    x = rng.normal(size=(n, 2)).astype(np.float32)
    targets = rng.normal(size=(n, 35)).astype(np.float32)  # a label longer than a warp is wide
    order = (n, 4, 3, np.array(seeds, np.uint64), 1, None, None, 2)
    out, labels = gather(shim, "f32", "same", x, targets, 3, 3, order)
    for member, seed in enumerate(seeds):
        rows = permutation(n, seed=seed)[8:11]
        np.testing.assert_array_equal(out[member], x[rows])
        np.testing.assert_array_equal(labels[member], targets[rows])


def test_rows_come_as_stored_or_in_a_given_order(shim, rng):
    x = rng.integers(0, 256, (9, 33)).astype(np.uint8)
    out, labels = gather(shim, "f32", "uint8", x, None, 4, 1, (9, 4, 2, None, 0, None, None, 3))
    np.testing.assert_array_equal(out[0], x[4:8])
    assert labels is None
    given = np.array([8, 0, 3, 3, 1, 1, 7, 2, 5], np.int64)
    out, _ = gather(shim, "f32", "uint8", x, None, 4, 1, (9, 4, 2, None, 0, given, None, 1))
    np.testing.assert_array_equal(out[0], x[given[4:8]])
