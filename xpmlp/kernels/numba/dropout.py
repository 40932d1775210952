"""Dropout for NumPy arrays: the mask is drawn and applied in one pass, and never stored.

Bit for bit the mask of :mod:`xpmlp.random`: Philox4x32-10 on (element / 4, step, stream, 0).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .launching import launch
from .records import EACH_MEMBER, ROWS, Of, by_elements, record

_PARALLEL_ELEMENTS = 400_000
_BITS = 24
_WORD = 0xFFFFFFFF

Dropout = record(
    "Dropout", x=ROWS, y=ROWS, seed=Of(2, dtype="uint32"),
    counter=Of(2, dtype="uint32", shared=True), threshold=Of(dtype="uint32"), scale=EACH_MEMBER,
)  # fmt: skip


def dropout(x, rates, rng, step):
    """The kernel, with the signature and the results of the op's reference."""
    members = len(rng.seeds)
    y = np.empty(x.shape, x.dtype)
    seeds = np.array([(seed & _WORD, seed >> 32) for seed in rng.seeds], np.uint32).reshape(-1)
    counter = np.array([step & _WORD, rng.stream & _WORD], np.uint32)
    rates = np.array(rates * (members // len(rates)))
    thresholds = np.rint(rates * (1 << _BITS)).astype(np.uint32)
    scales = (1.0 / (1.0 - rates)).astype(x.dtype)
    sizes = members, 1, x.size // members
    given = Dropout.plain(*sizes, x, y, seeds, counter, thresholds, scales)
    launch(dropped(x.dtype), given, worth_it=x.size > _PARALLEL_ELEMENTS)
    return y


_BLOCKS = 256  # of four elements, whose words are drawn side by side in vectors
CHUNK = 4 * _BLOCKS


def _dropped(a, first, last):
    """``y = x ⊙ keep / (1 − p)`` with the mask of step ``counter[0]`` of stream ``counter[1]``."""
    step, stream, chunk = a.counter[0], a.counter[1], np.uintp(CHUNK)
    for begin in range(first, last, chunk):
        _drop_chunk(a, step, stream, begin, min(last, begin + chunk))


@njit(inline="always")
def _drop_chunk(a, step, stream, begin, end):
    """One member's elements from a multiple of ``CHUNK`` on."""
    first = begin // np.uintp(4)
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
    k0, k1 = a.seed[0], a.seed[1]
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
    zero = a.y.dtype.type(0)
    for j in range(end - begin):
        kept = (words[j] >> np.uint32(8)) >= a.threshold
        a.y[begin + j] = a.x[begin + j] * a.scale if kept else zero


dropped = by_elements(Dropout, _dropped, unit=CHUNK)
