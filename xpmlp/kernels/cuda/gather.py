"""Launches ``gather.cu``: rows of a resident data set, picked, converted and normalized at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import geometry, launch

SOURCES = ("uint8", "int8", "uint16", "int16")
_HALVES = ("f16", "bf16")


def gather(
    x: Any,
    labels: Any,
    x_out: Any,
    labels_out: Any,
    *,
    mean: Any = None,
    std: Any = None,
    rows: int,
    batch: int,
    batches: int,
    seeds: Any,
    shuffle: bool,
    step: Any = None,
    offset: int = 0,
) -> None:
    """Fill ``x_out`` and ``labels_out`` with the rows of one batch.

    Parameters
    ----------
    x : array, shape (n, …)
        Integers of 8 or 16 bits, float32 for an x_out in half precision, or x_out's type; dense.
    labels : array, shape (n, …), or None
    x_out : array, shape (rows, …) or (P, rows, …)
        P orders at once, one for each seed.
    labels_out : array, shape (rows, …) or (P, rows, …), or None
    mean, std : array, shape () or x.shape[1:], or None
        In x_out's accumulator type.
    rows, batch, batches : int
        Rows of this batch, of a full one, and batches in an epoch.
    seeds : uint64 array, shape (P,)
    shuffle : bool
        The order of :func:`xpmlp.random.permutation`; else as stored.
    step : int64 array of one element, optional
        The number of the batch since the first epoch's first, on the device.
    offset : int
        Added to it.
    """
    suffix = launch.suffix_of(x_out)
    sources = (*SOURCES, "float32") if suffix in _HALVES else SOURCES
    name = x.dtype.name if x.dtype.name in sources else "same"
    features, members = math.prod(x.shape[1:]), seeds.size
    label_bytes = 0 if labels is None else labels.dtype.itemsize * math.prod(labels.shape[1:])
    plan = geometry.gather(f"gather_{name}", rows * members, suffix)
    launch.run(
        "gather",
        suffix,
        plan,
        *(x, x_out, features, mean, std, np.int32(mean is not None and mean.size > 1)),
        *(labels, labels_out, np.int32(label_bytes), rows, np.int32(members)),
        *(x.shape[0], batch, batches, seeds, np.int32(shuffle), None, step, offset),
    )
