"""Dropout for NumPy arrays: the mask is drawn and applied in one pass, and never stored.

Bit for bit the mask of :mod:`xpmlp.random`: Philox4x32-10 on (element / 4, step, stream, 0).
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .threads import enter_parallel, leave_parallel
from .twins import twins

_PARALLEL_ELEMENTS = 400_000
_BITS = 24
_WORD = 0xFFFFFFFF


def dropout(x, rates, rng, step):
    """The kernel, with the signature and the results of the op's reference."""
    members = len(rng.seeds)
    y = np.empty(x.shape, x.dtype)
    keys = np.array([(seed & _WORD, seed >> 32) for seed in rng.seeds], np.uint32)
    rates = np.array(rates * (members // len(rates)))
    thresholds = np.rint(rates * (1 << _BITS)).astype(np.uint32)
    scales = (1.0 / (1.0 - rates)).astype(x.dtype)
    arguments = x.reshape(-1), y.reshape(-1), keys, np.uint32(step & _WORD), np.uint32(rng.stream)
    if x.size > _PARALLEL_ELEMENTS and enter_parallel():
        try:
            _drop_parallel(*arguments, thresholds, scales)
        finally:
            leave_parallel()
    else:
        _drop(*arguments, thresholds, scales)
    return y


_BLOCKS = 256  # of four elements, whose words are drawn side by side in vectors
CHUNK = 4 * _BLOCKS


def _drop_body(x, y, keys, step, stream, thresholds, scales):
    members = keys.shape[0]
    size = x.size // members
    chunks = (size + CHUNK - 1) // CHUNK
    for task in prange(members * chunks):
        member, chunk = task // chunks, task % chunks
        drop_chunk(x, y, size, keys, step, stream, thresholds, scales, member, chunk)


@njit(inline="always")
def drop_chunk(x, y, size, keys, step, stream, thresholds, scales, member, chunk):
    """``y = x ⊙ keep / (1 − p)`` for one member's elements from ``chunk · CHUNK`` on.

    x and y are flat, (P · size,); keys (P, 2), thresholds and scales (P,).
    """
    first = chunk * _BLOCKS
    c0 = np.empty(_BLOCKS, np.uint32)
    c1 = np.empty(_BLOCKS, np.uint32)
    c2 = np.empty(_BLOCKS, np.uint32)
    c3 = np.empty(_BLOCKS, np.uint32)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(_BLOCKS):
        c0[i] = np.uint32(first + i)
        c1[i] = step
        c2[i] = stream
        c3[i] = np.uint32(0)
    k0, k1 = keys[member, 0], keys[member, 1]
    for _ in range(10):
        for i in range(_BLOCKS):
            product0 = np.uint64(c0[i]) * np.uint64(0xD2511F53)
            product1 = np.uint64(c2[i]) * np.uint64(0xCD9E8D57)
            c0[i] = np.uint32(product1 >> half) ^ c1[i] ^ k0
            c1[i] = np.uint32(product1 & low)
            c2[i] = np.uint32(product0 >> half) ^ c3[i] ^ k1
            c3[i] = np.uint32(product0 & low)
        k0 = np.uint32(k0 + np.uint32(0x9E3779B9))
        k1 = np.uint32(k1 + np.uint32(0xBB67AE85))
    words = np.empty(CHUNK, np.uint32)
    for i in range(_BLOCKS):
        words[4 * i] = c0[i]
        words[4 * i + 1] = c1[i]
        words[4 * i + 2] = c2[i]
        words[4 * i + 3] = c3[i]
    threshold, scale = thresholds[member], scales[member]
    zero = y.dtype.type(0)
    begin = np.uintp(member * size + chunk * CHUNK)
    for j in range(np.uintp(min(CHUNK, size - chunk * CHUNK))):
        kept = (words[j] >> np.uint32(8)) >= threshold
        y[begin + j] = x[begin + j] * scale if kept else zero


_drop, _drop_parallel = twins(_drop_body)
