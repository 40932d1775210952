"""Dropout for NumPy arrays: the mask is drawn and applied in one pass, and never stored.

Bit for bit the mask of :mod:`xpmlp.random`: Philox4x32-10 on (element / 4, step, stream, 0).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from .launching import launch
from .records import EACH_MEMBER, ROWS, Of, by_elements, record
from .simd import stack_buffer
from .tape import vector

_PARALLEL_ELEMENTS = 400_000
_BITS = 24
_WORD = 0xFFFFFFFF
_TIMES0, _TIMES1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_PLUS0, _PLUS1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)

Dropout = record(
    "Dropout", x=ROWS, y=ROWS, seed=Of(2, dtype="uint32"),
    counter=Of(3, dtype="uint32", shared=True), threshold=Of(dtype="uint32"), scale=EACH_MEMBER,
)  # fmt: skip


def dropout(x, rates, rng, step):
    """The kernel, with the signature and the results of the op's reference."""
    dtype = x.dtype
    y, counter = np.empty(x.shape, dtype), np.empty(3, np.uint32)
    counter[0], counter[1], counter[2] = step & _WORD, rng.stream & _WORD, 0
    members, seeds, thresholds, scales = _prepared(rng.seeds, rates, dtype)
    sizes = members, 1, x.size // members
    given = Dropout.plain(*sizes, x, y, seeds, counter, thresholds, scales)
    launch(dropped(dtype), given, worth_it=x.size > _PARALLEL_ELEMENTS)
    return y


@lru_cache(256)
def _prepared(seeds, rates, dtype):
    """P, and for each member its key, and what keeps an element and by what that is multiplied."""
    members = len(seeds)
    keys = np.array([(seed & _WORD, seed >> 32) for seed in seeds], np.uint32)
    each = np.array(rates * (members // len(rates)))
    thresholds = np.rint(each * (1 << _BITS)).astype(np.uint32)
    return members, keys, thresholds, (1.0 / (1.0 - each)).astype(dtype)


CHUNK = 1024
_CHUNK_BYTES = 4 * CHUNK


def _dropped(a, first, last):
    """``y = x ⊙ keep / (1 − p)`` with the mask of step ``counter[0]`` of stream ``counter[1]``.

    The first element of x has the first word of block ``counter[2]``.
    """
    step, stream, chunk = a.counter[0], a.counter[1], np.uintp(CHUNK)
    for begin in range(first, last, chunk):
        _drop_chunk(a, step, stream, begin, min(last, begin + chunk))


@njit(inline="always")
def _drop_chunk(a, step, stream, begin, end):
    """One member's elements from a multiple of ``CHUNK`` on."""
    place, blocks = stack_buffer(_CHUNK_BYTES), (end - begin + np.uintp(3)) // np.uintp(4)
    pairs = vector(place, np.uintp(2) * blocks, np.uint64(0))
    _draw(pairs, begin // np.uintp(4) + np.uintp(a.counter[2]), step, stream, a.seed)
    words, zero = vector(place, CHUNK, np.uint32(0)), a.y.dtype.type(0)
    for j in range(end - begin):
        kept = (words[j] >> np.uint32(8)) >= a.threshold
        a.y[begin + j] = a.x[begin + j] * a.scale if kept else zero


@njit(inline="always")
def _draw(pairs, first, step, stream, seed):
    """Blocks of four words from number ``first`` on, two to an integer, the lower half first.

    Each word is the low half of 64 bits, as the CPU's products take it and give it: what is in the
    upper half does no harm, and no vector has to be widened or narrowed on the way.
    """
    low, half = np.uint64(_WORD), np.uint64(32)
    for i in range(np.uintp(pairs.size) // np.uintp(2)):
        c0, c1, c2, c3 = np.uint64(first + i), np.uint64(step), np.uint64(stream), np.uint64(0)
        k0, k1 = np.uint64(seed[0]), np.uint64(seed[1])
        for _ in range(10):
            product0, product1 = (c0 & low) * _TIMES0, (c2 & low) * _TIMES1
            c0, c1 = (product1 >> half) ^ c1 ^ k0, product1
            c2, c3 = (product0 >> half) ^ c3 ^ k1, product0
            k0, k1 = k0 + _PLUS0, k1 + _PLUS1
        pairs[np.uintp(2) * i] = (c0 & low) | (c1 << half)
        pairs[np.uintp(2) * i + np.uintp(1)] = (c2 & low) | (c3 << half)


dropped = by_elements(Dropout, _dropped, unit=CHUNK)
